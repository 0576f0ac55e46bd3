"""The progress of calibrations, kept for pages that are reloaded or come back from another tab."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..host.reports import last_error, reports
from ..host.server import page_server, running_prompt

MAX_NODES, MAX_POINTS = 32, 2000
"""What is kept in all, and of one study; the oldest goes first."""


@dataclass
class _StudyRecord:
    """One search: its latest event, and its last finished trials of ``count`` in all."""

    run: str
    latest: dict = field(default_factory=dict)
    points: deque = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    count: int = 0


@dataclass
class _NodeRecord:
    """One node of one workflow; ``prompt`` is the host's id of the run that told something last."""

    prompt: str | None = None
    studies: dict[str, _StudyRecord] = field(default_factory=dict)


_nodes: OrderedDict[tuple[str | None, str], _NodeRecord] = OrderedDict()
_lock = threading.Lock()  # nodes run in one thread, the server answers in another


def keep(unique_id: str | None, run: str, event: dict, trials: Callable[[], list[dict]]) -> dict:
    """Notes a node's "qsched.progress" event, and returns it with what tells a page where it belongs.

    ``event["count"]`` are the finished trials there are, those of an earlier run that is resumed among them; ``trials``
    lists them all, and is called only where some are not known here. ``run`` names the inputs of the study: a resumed
    one adds to its trials, another one replaces them. Added are ``run``, ``prompt`` (the host's id) and ``workflow``
    (the page's id of it, None where a script sent the prompt).
    """
    prompt, workflow = running_prompt()
    with _lock:
        node = _nodes.setdefault((workflow, str(unique_id)), _NodeRecord())
        _nodes.move_to_end((workflow, str(unique_id)))
        while len(_nodes) > MAX_NODES:
            _nodes.popitem(last=False)
        node.prompt = prompt
        study = node.studies.get(event["study"])
        if study is None or study.run != run:
            # What follows in the dictionary is the control of the study that is replaced.
            names = list(node.studies)
            for name in names[names.index(event["study"]) :] if study else ():
                del node.studies[name]
            study = node.studies[event["study"]] = _StudyRecord(run)
        if event["trial"] is not None:
            study.points.append(event["trial"])
            study.count += 1
        if study.count != event["count"]:
            study.points = deque(trials(), maxlen=MAX_POINTS)
            study.count = event["count"]
        study.latest = {key: value for key, value in event.items() if key != "trial"}
        return {**event, "run": run, "prompt": prompt, "workflow": workflow}


def node_states(workflow: str | None) -> list[dict]:
    """What is kept of a workflow, and of prompts that name none: one entry per node, plain JSON values.

    ``prompt`` is the host's id of the run that is still working on it, None after its end.
    """
    prompt, _ = running_prompt()
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


def answer(workflow: str | None) -> dict:
    """What a page is told of a workflow, as plain JSON.

    ``running`` says whether a run of it goes on. ``error`` is that of ``last_error``, and None meanwhile: that run may
    be past it. ``queue`` counts the runs of anybody that have not ended.
    """
    running = workflow is not None and running_prompt()[1] == workflow
    return {
        "nodes": node_states(workflow),
        "reports": reports(workflow),
        "error": None if running else last_error(workflow),
        "running": running,
        "queue": page_server().prompt_queue.get_tasks_remaining(),
    }
