"""Notes which functions below a folder a process calls, for scripts/mutate.py: Python imports a module of this name at
its start where the module's folder is on the path. So the calls of a server that a test has started are known too.

A line for each function, when it is called first: a server is stopped, and may have no time to write at its end.
"""

from __future__ import annotations

import os
import sys
import threading


def note_calls(prefix: str, path: str) -> None:
    """Appends "file<TAB>function" to ``path`` for each function of a file below ``prefix``."""
    codes: dict[int, object] = {}
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def on_call(frame, event, argument) -> None:
        code = frame.f_code
        if id(code) not in codes:
            codes[id(code)] = code  # kept, so that its id is not given to another
            if code.co_filename.startswith(prefix):
                os.write(target, f"{code.co_filename.removeprefix(prefix)}\t{code.co_name}\n".encode())

    threading.settrace(on_call)
    sys.settrace(on_call)


if "QSCHED_NOTE_CALLS" in os.environ:
    note_calls(*os.environ["QSCHED_NOTE_CALLS"].split(os.pathsep))
