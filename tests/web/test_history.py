"""What the server keeps of its nodes for the page."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

NODES = Path(__file__).resolve().parents[2] / "nodes"


@pytest.fixture
def history(monkeypatch):
    """A fresh module beside a stand-in for the host's server, whose running prompts are ``history.queue``."""
    queue: list[tuple] = []
    runs: dict[str, dict] = {}
    prompts = SimpleNamespace(
        get_current_queue_volatile=lambda: (queue, []),
        get_history=lambda max_items: dict(list(runs.items())[-max_items:]),
        get_tasks_remaining=lambda: len(queue),
    )
    server = SimpleNamespace(prompt_queue=prompts)
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    for name in [name for name in sys.modules if name.split(".")[0] == "qsched_nodes"]:
        monkeypatch.delitem(sys.modules, name)
    for name, folder in (("qsched_nodes", NODES), ("qsched_nodes.host", NODES / "host")):
        package = ModuleType(name)  # without what the real one imports of the host
        package.__path__ = [str(folder)]
        monkeypatch.setitem(sys.modules, name, package)
    events: list[tuple] = []
    progress = ModuleType("qsched_nodes.host.progress")
    progress.node_id = lambda cls: cls.unique_id
    progress.node_kind = lambda cls: cls.kind
    progress.tell = lambda *event: events.append(event)
    monkeypatch.setitem(sys.modules, progress.__name__, progress)
    module = importlib.import_module("qsched_nodes.calibrating.history")
    module.queue, module.runs, module.events = queue, runs, events
    return module


@pytest.fixture
def reports(history):
    return sys.modules["qsched_nodes.host.reports"]


def starts(history, prompt: str, workflow: object, graph: dict | None = None) -> None:
    """A prompt from the page of a workflow."""
    history.queue[:] = [(0, prompt, graph or {}, {"extra_pnginfo": {"workflow": workflow}}, [])]


def trial(value: float) -> dict:
    return {"point": {"c_x": value}, "jaq": value, "whole": True}


def tell(history, node: str, run: str, finished: list[float], study: str = "quantised model", *, new=True) -> dict:
    """An event of a study that has ``finished`` trials, the last of them just now."""
    state = {"study": study, "phase": "search", "done": 1, "total": 2, "best": {}, "identity": 1.0}
    state |= {"count": len(finished), "trial": trial(finished[-1]) if new else None}
    return history.keep(node, run, state, lambda: [trial(value) for value in finished])


def values(history, workflow: str | None = "w") -> dict[str, list[float]]:
    """Every study's points, of the only node."""
    (node,) = history.node_states(workflow)
    return {study["study"]: [point["jaq"] for point in study["points"]] for study in node["studies"]}


def test_an_event_tells_the_page_where_it_belongs_and_how_many_trials_it_should_have(history):
    starts(history, "p", {"id": "w"})
    tell(history, "6:2", "run", [1.0])
    state = tell(history, "6:2", "run", [1.0], new=False)
    assert (state["workflow"], state["run"], state["count"]) == ("w", "run", 1)
    assert history.node_states("another") == []
    (node,) = history.node_states("w")
    assert (state["prompt"], node["node"], node["prompt"]) == ("p", "6:2", "p")
    history.queue.clear()
    assert history.node_states("w")[0]["prompt"] is None


def test_a_resumed_run_has_what_an_earlier_server_found_and_another_one_replaces_its_control_too(history):
    """After the server's restart a resumed search was drawn and counted from nothing."""
    starts(history, "p", {"id": "w"})
    tell(history, "4", "a", [0.5, 1.0])
    tell(history, "4", "c", [2.0], "control")
    starts(history, "q", {"id": "w"})
    tell(history, "4", "a", [0.5, 1.0, 3.0])
    assert values(history) == {"quantised model": [0.5, 1.0, 3.0], "control": [2.0]}
    tell(history, "4", "b", [4.0])
    assert values(history) == {"quantised model": [4.0]}


@pytest.mark.parametrize("workflow", [None, {}, {"id": 7}, "text", {"id": "00000000-0000-0000-0000-000000000000"}])
def test_a_prompt_without_a_page_is_shown_on_every_page(history, workflow):
    starts(history, "p", workflow)
    assert tell(history, "4", "a", [1.0])["workflow"] is None
    assert values(history, "any") == {"quantised model": [1.0]}


def test_only_so_much_is_kept(history):
    starts(history, "p", {"id": "w"})
    everything = [float(number) for number in range(history.MAX_POINTS + 5)]
    for count in (1, 2, len(everything)):
        state = tell(history, "0", "a", everything[:count])
    assert state["count"] == history.MAX_POINTS + 5
    assert values(history)["quantised model"][0] == 5.0
    for number in range(1, history.MAX_NODES + 1):
        tell(history, str(number), "a", [1.0])
    names = [node["node"] for node in history.node_states("w")]
    assert len(names) == history.MAX_NODES
    assert "0" not in names


def node(unique_id: str | None, kind: str = "QSchedCheck") -> SimpleNamespace:
    return SimpleNamespace(unique_id=unique_id, kind=kind)


def test_the_last_output_and_note_of_a_node_are_there_for_its_workflow_alone(history, reports):
    starts(history, "p", {"id": "w"})
    assert reports.keep_output(node("4"), {"text": ["old"]}) == {"text": ["old"]}
    reports.keep_output(node("4"), {"text": ["new"]})
    reports.keep_note("4", "QSchedCheck", {"kind": "stopped", "count": 1, "total": 2})
    assert reports.reports("w") == [
        {
            "node": "4",
            "kind": "QSchedCheck",
            "output": {"text": ["new"]},
            "note": {"kind": "stopped", "count": 1, "total": 2},
        }
    ]
    assert reports.reports("another") == []
    ((unique_id, name, state),) = history.events
    assert (unique_id, name, state["workflow"], state["note"]["count"]) == ("4", "qsched.note", "w", 1)
    reports.keep_note("4", "QSchedCheck", None)
    reports.keep_note("4", "QSchedCheck", None)  # nothing to take away: nothing to say
    assert (len(history.events), reports.reports("w")[0]["note"]) == (2, None)


def test_a_run_that_has_begun_forgets_what_an_earlier_one_showed(history, reports):
    """Cancelled, it came back with the verdict of other inputs."""
    starts(history, "p", {"id": "w"})
    reports.keep_output(node("4"), {"text": ["old"]})
    reports.keep_note("4", "QSchedCheck", {"kind": "stopped"})
    reports.forget(node("4"))
    assert [(entry["output"], entry["note"]) for entry in reports.reports("w")] == [(None, None)]
    reports.forget(node(None))


def test_a_node_of_another_kind_under_the_same_id_begins_anew_and_a_script_keeps_nothing(history, reports):
    starts(history, "p", {"id": "w"})
    reports.keep_output(node("4"), {"text": ["a"]})
    reports.keep_note("4", "QSchedSampler", {"kind": "differs"})
    assert [(entry["kind"], entry["output"]) for entry in reports.reports("w")] == [("QSchedSampler", None)]
    reports.keep_output(node(None), {"text": ["b"]})
    reports.keep_note(None, "QSchedCheck", {"kind": "differs"})
    assert len(reports.reports("w")) == 1


def test_the_oldest_reports_go_first(history, reports):
    starts(history, "p", {"id": "w"})
    for number in range(reports.MAX_NODES + 1):
        reports.keep_output(node(str(number)), {})
    assert [entry["node"] for entry in reports.reports("w")] == [str(n) for n in range(1, reports.MAX_NODES + 1)]


def ends(history, prompt: str, workflow: str, *messages: tuple[str, dict], graph: dict | None = None) -> None:
    extra = {"extra_pnginfo": {"workflow": {"id": workflow}}}
    prompt_item = (0, prompt, graph or {}, extra, [])
    history.runs[prompt] = {"prompt": prompt_item, "outputs": {}, "status": {"messages": list(messages)}}


# --- nodes that the host takes from its cache


def graph_of(bits: str, loader: str = "1") -> dict:
    return {
        loader: {"class_type": "Loader", "inputs": {"name": "a"}},
        "4": {"class_type": "QSchedCheck", "inputs": {"model": [loader, 0], "bits": bits, "range": [1, 2]}},
    }


CACHED = ("execution_cached", {"nodes": ["1", "4"]})


def said(history, reports, workflow: str) -> list:
    return [(entry["node"], entry["output"]) for entry in reports.reports(workflow)]


def test_a_cached_node_says_what_it_said_in_another_workflow_of_the_same_graph(history, reports):
    """Regression: a template that was opened anew in a server that had run it showed nothing on such nodes."""
    starts(history, "p", {"id": "w"}, graph_of("4"))
    reports.keep_output(node("4"), {"text": ["four"]})
    starts(history, "q", {"id": "x"}, graph_of("8"))
    reports.keep_output(node("4"), {"text": ["eight"]})
    for loader in ("1", "another id"):
        ends(history, f"r{loader}", f"anew {loader}", CACHED, graph=graph_of("4", loader))
        assert said(history, reports, f"anew {loader}") == [("4", {"text": ["four"]})]
    ends(history, "s", "not run", ("execution_interrupted", {}), graph=graph_of("4"))
    ends(history, "t", "other inputs", CACHED, graph=graph_of("2"))
    ends(history, "u", "broken", CACHED, graph={"4": {"class_type": "QSchedCheck", "inputs": {"a": ["4", 0]}}})
    assert [said(history, reports, name) for name in ("not run", "other inputs", "broken")] == [[], [], []]


def test_what_was_taken_back_is_said_again_when_the_host_has_it_in_its_cache(history, reports):
    starts(history, "p", {"id": "w"}, graph_of("4"))
    reports.keep_output(node("4"), {"text": ["four"]})
    ends(history, "q", "anew", CACHED, graph=graph_of("4"))
    said(history, reports, "anew")
    starts(history, "r", {"id": "w"}, graph_of("8"))
    reports.keep_output(node("4"), {"text": ["eight"]})
    ends(history, "s", "w", CACHED, graph=graph_of("4"))
    assert said(history, reports, "w") == said(history, reports, "anew") == [("4", {"text": ["four"]})]


def test_the_error_that_ended_the_last_run_of_a_workflow_in_our_node_is_known(history, reports):
    error = {"node_id": "4", "node_type": "QSchedCheck", "exception_type": "a.b.C", "exception_message": "why", "x": 1}
    ends(history, "p", "w", ("execution_start", {}), ("execution_error", error))
    ends(history, "q", "another", ("execution_success", {}))
    assert reports.last_error("w") == {key: value for key, value in error.items() if key != "x"}
    assert reports.last_error("another") == {}
    assert reports.last_error("unknown") is None
    assert reports.last_error(None) is None


@pytest.mark.parametrize(
    ("later", "passed"),
    [
        ([("execution_success", {})], True),
        ([("execution_error", {"node_type": "KSampler", "node_id": "5", "executed": ["4"]})], True),
        ([("execution_error", {"node_type": "KSampler", "node_id": "5", "executed": ["3"]})], False),
        ([("execution_cached", {"nodes": ["4"]}), ("execution_interrupted", {"executed": []})], True),
        ([("execution_interrupted", {"executed": ["3"]})], False),
    ],
)
def test_an_error_is_known_until_a_later_run_got_past_its_node(history, reports, later, passed):
    error = {"node_id": "4", "node_type": "QSchedCheck", "exception_type": "C", "exception_message": "why"}
    ends(history, "p", "w", ("execution_error", error))
    ends(history, "q", "w", *later)
    assert reports.last_error("w") == ({} if passed else error)


def test_a_run_that_goes_on_is_not_told_what_ended_the_one_before(history, reports):
    """The page took the answer for news, and showed the old failure on a node that the run had got past."""
    error = {"node_id": "4", "node_type": "QSchedCheck", "exception_type": "C", "exception_message": "why"}
    ends(history, "p", "w", ("execution_error", error))
    starts(history, "q", {"id": "w"})
    state = history.answer("w")
    assert (state["error"], state["running"], state["queue"]) == (None, True, 1)
    history.queue.clear()
    state = history.answer("w")
    assert (state["error"], state["running"], state["queue"]) == (error, False, 0)
