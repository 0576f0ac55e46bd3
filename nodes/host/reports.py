"""What our nodes showed last, for pages that were reloaded, come back from another tab, or did not send the run.

The host sends a node's ``ui`` to the tab that queued the run, once. A page that missed it asks here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from .progress import node_id, node_kind, tell
from .server import page_server, running_prompt, workflow_id

MAX_NODES = 256
"""What is kept in all; the oldest goes first."""

RECENT_RUNS = 30
"""Of the host's history, in which the last runs of a workflow are looked for."""

_ERROR_KEYS = ("node_id", "node_type", "exception_type", "exception_message")


@dataclass
class _Node:
    """``kind`` is the node's id in the host's list; ``note`` is said beside its output: a preset differs, a cancel."""

    kind: str
    output: dict | None = None
    note: dict | None = None


_nodes: OrderedDict[tuple[str | None, str], _Node] = OrderedDict()
_lock = threading.Lock()  # nodes run in one thread, the server answers in another


def keep_output(cls, output: dict) -> dict:
    """Keeps a node's ``ui`` (plain JSON values) and returns it."""
    unique_id = node_id(cls)
    if unique_id is not None:
        _, workflow = running_prompt()
        with _lock:
            _entry(workflow, unique_id, node_kind(cls)).output = output
    return output


def forget(cls) -> None:
    """For a node whose run has begun: what it showed of other inputs must not come back if the run is cancelled."""
    unique_id, kind = node_id(cls), node_kind(cls)
    if unique_id is None:
        return
    keep_note(unique_id, kind, None)
    _, workflow = running_prompt()
    with _lock:
        _entry(workflow, unique_id, kind).output = None


def keep_note(unique_id: str | None, kind: str, note: dict | None) -> None:
    """Shows a note on a node at once and keeps it; None takes it away. ``kind`` is the node's id in the host's list.

    ``note`` is plain JSON: "kind" is "differs" (with "differences": [{"what", "preset", "here"}] and "choice") or
    "stopped" (with "count" and "total" candidates).
    """
    if unique_id is None:
        return
    prompt, workflow = running_prompt()
    with _lock:
        entry = _entry(workflow, unique_id, kind)
        if note is None and entry.note is None:
            return
        entry.note = note
    tell(unique_id, "qsched.note", {"workflow": workflow, "prompt": prompt, "kind": kind, "note": note})


def reports(workflow: str | None) -> list[dict]:
    """What is kept of a workflow, and of prompts that name none: one entry per node, plain JSON values."""
    with _lock:
        return [
            {"node": unique_id, "kind": node.kind, "output": node.output, "note": node.note}
            for (owner, unique_id), node in _nodes.items()
            if owner in (workflow, None)
        ]


def last_error(workflow: str | None) -> dict | None:
    """The host's ``execution_error`` of one of our nodes that no later run of the workflow got past; {}: there is none.

    None where nothing is known of its runs: they are too long ago, or before the server's start.
    """
    server = page_server()
    runs = server.prompt_queue.get_history(max_items=RECENT_RUNS) if server is not None and workflow else {}
    later: set[str] | None = None  # the nodes that later runs got past
    for run in reversed(list(runs.values())):
        if workflow_id(run["prompt"][3].get("extra_pnginfo")) != workflow:
            continue
        later = later or set()
        messages = dict((run.get("status") or {}).get("messages") or ())
        error = messages.get("execution_error")
        if error is not None and str(error.get("node_type")).startswith("QSched"):
            return {} if str(error.get("node_id")) in later else {key: error.get(key) for key in _ERROR_KEYS}
        stop = error or messages.get("execution_interrupted")
        if stop is None:
            return {}  # it came to its end
        later.update(map(str, [*(stop.get("executed") or ()), *messages.get("execution_cached", {}).get("nodes", ())]))
    return None if later is None else {}


def _entry(workflow: str | None, unique_id: str, kind: str) -> _Node:
    key = (workflow, str(unique_id))
    entry = _nodes.get(key)
    if entry is None or entry.kind != kind:
        entry = _nodes[key] = _Node(kind)
    _nodes.move_to_end(key)
    while len(_nodes) > MAX_NODES:
        _nodes.popitem(last=False)
    return entry
