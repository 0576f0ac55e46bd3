"""What the server keeps of a calibration for its page."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "nodes"


@pytest.fixture
def history(monkeypatch):
    """A fresh module beside a stand-in for the host's server, whose running prompts are ``history.queue``."""
    queue: list[tuple] = []
    server = SimpleNamespace(prompt_queue=SimpleNamespace(get_current_queue_volatile=lambda: (queue, [])))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    package = ModuleType("qsched_nodes")  # without what the real one imports of the host
    package.__path__ = [str(FOLDER)]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    for name in ("page", "history"):
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
    module = importlib.import_module(f"{package.__name__}.history")
    module.queue = queue
    return module


def starts(history, prompt: str, workflow: object) -> None:
    """A prompt from the page of a workflow."""
    history.queue[:] = [(0, prompt, {}, {"extra_pnginfo": {"workflow": workflow}}, [])]


def event(value: float | None, study: str = "quantised model") -> dict:
    trial = None if value is None else {"point": {"c_x": value}, "jaq": value, "whole": True}
    return {"study": study, "phase": "search", "done": 1, "total": 2, "best": {}, "identity": 1.0, "trial": trial}


def values(history, workflow: str | None = "w") -> dict[str, list[float]]:
    """Every study's points, of the only node."""
    (node,) = history.told(workflow)
    return {study["study"]: [point["jaq"] for point in study["points"]] for study in node["studies"]}


def test_an_event_tells_the_page_where_it_belongs_and_how_many_trials_it_should_have(history):
    starts(history, "p", {"id": "w"})
    history.keep("6:2", "run", event(1.0))
    told = history.keep("6:2", "run", event(None))
    assert (told["workflow"], told["run"], told["count"]) == ("w", "run", 1)
    assert history.told("another") == []
    (node,) = history.told("w")
    assert (told["prompt"], node["node"], node["prompt"]) == ("p", "6:2", "p")
    history.queue.clear()
    assert history.told("w")[0]["prompt"] is None


def test_a_resumed_run_adds_and_another_one_replaces_its_control_too(history):
    starts(history, "p", {"id": "w"})
    history.keep("4", "a", event(1.0))
    history.keep("4", "c", event(2.0, "control"))
    starts(history, "q", {"id": "w"})
    history.keep("4", "a", event(3.0))
    assert values(history) == {"quantised model": [1.0, 3.0], "control": [2.0]}
    history.keep("4", "b", event(4.0))
    assert values(history) == {"quantised model": [4.0]}


@pytest.mark.parametrize("workflow", [None, {}, {"id": 7}, "text"])
def test_a_prompt_without_a_page_is_shown_on_every_page(history, workflow):
    starts(history, "p", workflow)
    assert history.keep("4", "a", event(1.0))["workflow"] is None
    assert values(history, "any") == {"quantised model": [1.0]}


def test_only_so_much_is_kept(history):
    starts(history, "p", {"id": "w"})
    for number in range(history.MOST_POINTS + 5):
        told = history.keep("0", "a", event(float(number)))
    assert told["count"] == history.MOST_POINTS + 5
    assert values(history)["quantised model"][0] == 5.0
    for number in range(1, history.MOST_NODES + 1):
        history.keep(str(number), "a", event(1.0))
    kept = [node["node"] for node in history.told("w")]
    assert len(kept) == history.MOST_NODES
    assert "0" not in kept
