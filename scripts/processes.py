"""Child processes that never outlive the command that started them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import DevError

GRACE_SECONDS = 15.0


def stop(process: subprocess.Popen, grace: float = GRACE_SECONDS) -> None:
    """End `process`: ask, wait `grace` seconds, then force. Does nothing when it has already ended."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:  # a second Ctrl-C while waiting: leave at once, but leave nothing behind
        process.kill()
        raise


def run(command: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> int:
    """Run `command` on this terminal and return its exit status.

    `subprocess.call` kills its child a quarter of a second after Ctrl-C; our children own servers of their own and
    need the time to stop them.
    """
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, env=env)
    try:
        return process.wait()
    except KeyboardInterrupt:
        let_finish(process)  # the terminal has sent Ctrl-C to the child too
        raise
    finally:
        stop(process)


def exit_on_termination() -> None:
    """Turn SIGTERM into an ordinary exit, so that `finally` and `with` blocks run."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def run_script(job: Callable[[], None]) -> int:
    """Run a script that `scripts/dev.py` has started; its exit status. Errors of ours are told without a traceback."""
    exit_on_termination()
    try:
        job()
    except DevError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # scripts/dev.py says so
    return 0


def let_finish(process: subprocess.Popen) -> None:
    """Give a process that Ctrl-C has reached too `GRACE_SECONDS` to stop what it has started."""
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return  # `stop` forces it
