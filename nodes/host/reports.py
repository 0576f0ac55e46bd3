"""What our nodes showed last, for pages that were reloaded, come back from another tab, or did not send the run.

The host sends a node's ``ui`` to the tab that queued the run, once. A page that missed it asks here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from .graphs import signature
from .progress import node_id, node_kind, tell
from .server import page_server, running_graph, running_prompt, workflow_id

MAX_NODES = 256
"""What is kept in all; the oldest goes first."""

RECENT_RUNS = 30
"""Of the host's history, in which the last runs of a workflow are looked for."""

_ERROR_KEYS = ("node_id", "node_type", "exception_type", "exception_message")


@dataclass
class _NodeReport:
    """``kind`` is the node's id in the host's list; ``note`` is said beside its output: a preset differs, a cancel.
    ``signature`` is that of the graph which the output belongs to."""

    kind: str
    output: dict | None = None
    note: dict | None = None
    signature: str | None = None


_nodes: OrderedDict[tuple[str | None, str], _NodeReport] = OrderedDict()
_lock = threading.Lock()  # nodes run in one thread, the server answers in another


def keep_output(cls, output: dict) -> dict:
    """Keeps a node's ``ui`` (plain JSON values) and returns it."""
    unique_id = node_id(cls)
    if unique_id is not None:
        _set_output(unique_id, node_kind(cls), output)
    return output


def forget(cls) -> None:
    """For a node whose run has begun: what it showed of other inputs must not come back if the run is cancelled."""
    unique_id, kind = node_id(cls), node_kind(cls)
    if unique_id is None:
        return
    keep_note(unique_id, kind, None)
    _set_output(unique_id, kind, None)


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
    run = next(_runs(workflow), None)
    with _lock:
        if run is not None:
            _adopt_cached(workflow, run)
        return [
            {"node": unique_id, "kind": node.kind, "output": node.output, "note": node.note}
            for (owner, unique_id), node in _nodes.items()
            if owner in (workflow, None)
        ]


def last_error(workflow: str | None) -> dict | None:
    """The host's ``execution_error`` of one of our nodes that no later run of the workflow got past; {}: there is none.

    None where nothing is known of its runs: they are too long ago, or before the server's start.
    """
    later: set[str] | None = None  # the nodes that later runs got past
    for run in _runs(workflow):
        later = later or set()
        messages = _messages(run)
        error = messages.get("execution_error")
        if error is not None and str(error.get("node_type")).startswith("QSched"):
            return {} if str(error.get("node_id")) in later else {key: error.get(key) for key in _ERROR_KEYS}
        stop = error or messages.get("execution_interrupted")
        if stop is None:
            return {}  # it came to its end
        later.update(map(str, [*(stop.get("executed") or ()), *_cached(run)]))
    return None if later is None else {}


def _runs(workflow: str | None) -> Iterator[dict]:
    """The host's records of a workflow's last runs, the newest first."""
    server = page_server()
    runs = server.prompt_queue.get_history(max_items=RECENT_RUNS) if server is not None and workflow else {}
    for run in reversed(list(runs.values())):
        if workflow_id(run["prompt"][3].get("extra_pnginfo")) == workflow:
            yield run


def _messages(run: dict) -> dict:
    return dict((run.get("status") or {}).get("messages") or ())


def _cached(run: dict) -> list:
    """Ids of the nodes whose outputs the host had already."""
    return _messages(run).get("execution_cached", {}).get("nodes", [])


def _adopt_cached(workflow: str | None, run: dict) -> None:
    """What the host took from its cache, and did not visit, was said of another workflow: a template that was opened
    anew has the same nodes under another id."""
    graph = run["prompt"][2]
    for unique_id in map(str, _cached(run)):
        kind = graph.get(unique_id, {}).get("class_type", "")
        own = _nodes.get((workflow, unique_id))
        key = signature(graph, unique_id) if kind.startswith("QSched") else None
        if key is None or (own is not None and (own.kind, own.signature) == (kind, key)):
            continue
        alike = (
            node
            for (_, other), node in reversed(_nodes.items())
            if (other, node.kind, node.signature) == (unique_id, kind, key)
        )
        twin = next(alike, None)
        if twin is not None:
            entry = _entry(workflow, unique_id, kind)
            entry.output, entry.note, entry.signature = twin.output, twin.note, key


def _set_output(unique_id: str, kind: str, output: dict | None) -> None:
    _, workflow = running_prompt()
    key = signature(running_graph(), unique_id)
    with _lock:
        entry = _entry(workflow, unique_id, kind)
        entry.output, entry.signature = output, key


def _entry(workflow: str | None, unique_id: str, kind: str) -> _NodeReport:
    key = (workflow, str(unique_id))
    entry = _nodes.get(key)
    if entry is None or entry.kind != kind:
        entry = _nodes[key] = _NodeReport(kind)
    _nodes.move_to_end(key)
    while len(_nodes) > MAX_NODES:
        _nodes.popitem(last=False)
    return entry
