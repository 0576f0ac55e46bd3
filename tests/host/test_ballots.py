"""The blind vote without a server: the node, what a ballot takes and refuses, and what it tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ballots(pack):
    return pack("nodes.voting.ballots")


def test_the_node_shows_pairs_once_and_hands_the_preset_on_with_the_result(pack, ballots, tmp_path, monkeypatch):
    import folder_paths

    core, store, arena_node = pack("qsched_core"), ballots.ballots, pack("nodes.arena").QSchedArena
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    page = SimpleNamespace(unique_id="6", extra_pnginfo={"workflow": {"id": "a page"}})
    monkeypatch.setattr(arena_node, "hidden", page, raising=False)
    preset = core.Preset(core.Coefficients.identity(2), (1.0, 0.5, 0.0))
    black, white = torch.zeros(1, 8, 8, 3), torch.ones(2, 8, 8, 3)
    inputs = {"without": [black] * 3, "with_preset": [black, white], "preset": [preset], "keep_in_preset": [True]}
    inputs["texts"] = ["one", "two", "three"]
    assert store.stamp() == 0
    node_output = arena_node.execute(**inputs)
    ((key,),) = node_output.ui.values()
    rest = "\n1 more pairs are equal to the last pixel and were not asked."
    assert node_output.args == (preset, f"0 of 2 pairs are voted on. Vote on the node, then run it again.{rest}")
    assert store.noted("a page") == [{"node": "6", "key": key}]
    view = store.view(key)
    files = {file.name: file for file in (tmp_path / "temp" / "qsched_arena").iterdir()}
    assert sorted(files) == sorted(name for pair in view["pictures"] for name in pair)
    assert view["texts"] == ["two", "three"]
    for pair, names in enumerate(view["pictures"]):
        lights = [Image.open(files[name]).getpixel((0, 0))[0] for name in names]
        assert sorted(lights) == [0, 255]
        store.act(key, pair, ("left", "right")[lights.index(255)])
    assert store.stamp() > 0
    assert arena_node.fingerprint_inputs() == store.stamp()
    voted, text = arena_node.execute(**{**inputs, "texts": ["of all"]}).args
    assert text.endswith(f"For the preset: pair 1, 2{rest}")
    assert voted.record["votes"]["wins"] == 2
    view = store.view(key)
    assert (view["closed"], view["texts"], len(list((tmp_path / "temp" / "qsched_arena").iterdir()))) == (
        True, ["of all"] * 2, 4,
    )  # fmt: skip
    assert arena_node.execute(**{**inputs, "keep_in_preset": [False]}).args[0] is preset
    assert arena_node.execute(inputs["without"], inputs["with_preset"]).args[0] is pack("nodes.arena").NO_PRESET


def test_a_ballot_counts_for_and_against_the_preset_and_tells_only_when_it_is_closed(ballots, pack):
    report, ballot = pack("nodes.arena").report, ballots.Ballot(("left", "right", "left"))
    for pair, choice in ((1, "right"), (0, "right"), (2, "skip")):
        ballot = ballot.act(pair, choice)
    view = {"pairs": 3, "votes": ["right", "right", "skip"], "last": 2, "closed": False}
    assert ballot.view() == view
    assert report(ballot, 0) == "3 of 3 pairs are voted on. Vote on the node, then run it again."
    shut = ballot.act(0, "close")
    result = {"sides": ["left", "right", "left"], "result": shut.count().record()}
    assert shut.view() == {**view, "closed": True, **result}
    assert (shut.count().wins, shut.count().losses, shut.count().skips) == (1, 1, 1)
    first, *lines = report(shut, 2).splitlines()
    assert first == str(shut.count())
    assert lines == [
        "For the preset: pair 2", "Against it: pair 1", "Skipped: pair 3",
        "2 more pairs are equal to the last pixel and were not asked.",
    ]  # fmt: skip
    early = ballots.Ballot(("left", "right")).act(0, "left").act(0, "close")
    assert report(early, 0).splitlines()[1:] == ["For the preset: pair 1", "Closed after 1 of 2 pairs."]


@pytest.mark.parametrize(
    ("pair", "choice", "text", "status"),
    [
        (2, "left", "there is no pair 2. Fix: 2 pairs count from 0", 400),
        (-1, "left", "there is no pair -1. Fix: 2 pairs count from 0", 400),
        (1, "both", "a vote is left, right or skip. Fix: choose one of them", 400),
        (0, "left", "pair 1 has a vote. Fix: another tab was faster; undo it there", 409),
        (1, "undo", "there is no such vote to take back. Fix: reload the page", 409),
    ],
)
def test_what_a_ballot_does_not_take_it_refuses_with_a_way_out(ballots, pack, pair, choice, text, status):
    ballot = ballots.Ballot(("left", "right")).act(0, "skip")
    with pytest.raises(pack("qsched_core").VoteError) as caught:
        ballot.act(pair, choice)
    assert (str(caught.value), caught.value.fields) == (f"Q-Sched: {text}", {"status": status})
    with pytest.raises(pack("qsched_core").VoteError, match="this vote is closed.") as caught:
        ballot.act(0, "close").act(pair, choice)
    assert caught.value.fields == {"status": 409}
    assert ballot.act(1, "left").votes == ((0, "skip"), (1, "left")), "the last pair is one"
