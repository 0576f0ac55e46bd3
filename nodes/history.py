"""What calibrations have told the page, kept for pages that are reloaded or come back from another tab."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from aiohttp import web

from .page import page_server, workflow_id

MOST_NODES, MOST_POINTS = 32, 2000
"""What is kept in all, and of one study; the oldest goes first."""


@dataclass
class _Study:
    """One search: its latest event, and its last finished trials of ``count`` in all."""

    run: str
    latest: dict = field(default_factory=dict)
    points: deque = field(default_factory=lambda: deque(maxlen=MOST_POINTS))
    count: int = 0


@dataclass
class _Node:
    """One node of one workflow; ``prompt`` is the host's id of the run that told something last."""

    prompt: str | None = None
    studies: dict[str, _Study] = field(default_factory=dict)


_nodes: OrderedDict[tuple[str | None, str], _Node] = OrderedDict()
_lock = threading.Lock()  # nodes run in one thread, the server answers in another


def keep(unique_id: str | None, run: str, event: dict) -> dict:
    """Notes a node's "qsched.progress" event, and returns it with what tells a page where it belongs.

    ``run`` names the inputs of the study: a resumed one adds to its trials, another one replaces them. Added are
    ``run``, ``prompt`` (the host's id), ``workflow`` (the page's id of it, None where a script sent the prompt) and
    ``count``, trials so far.
    """
    prompt, workflow = _running()
    with _lock:
        node = _nodes.setdefault((workflow, str(unique_id)), _Node())
        _nodes.move_to_end((workflow, str(unique_id)))
        while len(_nodes) > MOST_NODES:
            _nodes.popitem(last=False)
        node.prompt = prompt
        study = node.studies.get(event["study"])
        if study is None or study.run != run:
            # What follows in the dictionary is the control of the study that is replaced.
            names = list(node.studies)
            for name in names[names.index(event["study"]) :] if study else ():
                del node.studies[name]
            study = node.studies[event["study"]] = _Study(run)
        if event["trial"] is not None:
            study.points.append(event["trial"])
            study.count += 1
        study.latest = {key: value for key, value in event.items() if key != "trial"}
        return {**event, "run": run, "prompt": prompt, "workflow": workflow, "count": study.count}


def told(workflow: str | None) -> list[dict]:
    """What is kept of a workflow, and of prompts that name none: one entry per node, plain JSON values.

    ``prompt`` is the host's id of the run that is still working on it, None after its end.
    """
    prompt, _ = _running()
    with _lock:
        return [
            {
                "node": unique_id,
                "prompt": node.prompt if node.prompt == prompt else None,
                "studies": [
                    {**study.latest, "run": study.run, "count": study.count, "points": list(study.points)}
                    for study in node.studies.values()
                ],
            }
            for (owner, unique_id), node in _nodes.items()
            if owner in (workflow, None)
        ]


def add_history_route() -> None:
    """GET /qsched/history?workflow=ID; nothing where no server runs. To be called once, as the pack is loaded."""
    server = page_server()
    if server is None:
        return

    @server.routes.get("/qsched/history")
    async def history(request: web.Request) -> web.Response:
        return web.json_response({"nodes": told(request.query.get("workflow"))})


def _running() -> tuple[str | None, str | None]:
    """(The id of the prompt that runs now, the id of the workflow it was made from); None where there is none."""
    server = page_server()
    running = server.prompt_queue.get_current_queue_volatile()[0] if server is not None else []
    if not running:
        return None, None
    _, prompt, _, extra, *_ = running[0]
    return prompt, workflow_id(extra.get("extra_pnginfo"))
