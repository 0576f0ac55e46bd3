"""The blind vote on a real server: who may know what and when, and votes that nothing can lose."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from scripts.client import HttpFailure, PromptFailed

pytestmark = pytest.mark.usefixtures("one_thread")

RED, BLUE = 0xFF0000, 0x0000FF
"""Pictures made with the preset are red in all graphs here."""


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def pictures(count: int, color: int, side: int = 16) -> dict:
    return node("EmptyImage", width=side, height=side, batch_size=count, color=color)


def arena(count: int = 8, ballot: int = 1, **changes) -> dict:
    """A ballot on ``count`` pairs, a preset made by hand, and the report."""
    return {
        "m": node("QSchedDemoModel"),
        "g": node("BasicScheduler", model=["m", 0], scheduler="simple", steps=4, denoise=1.0),
        "p": node(
            "QSchedCoefficients",
            sigmas=["g", 0],
            strength=1.0,
            form="ramp",
            **{f"form.{name}_{end}": 1.0 for name in ("c_x", "c_eps") for end in ("first", "last")},
        ),
        "without": pictures(count, BLUE),
        "with": pictures(count, RED),
        "a": node(
            "QSchedArena",
            **{"without": ["without", 0], "with_preset": ["with", 0], "preset": ["p", 0], "ballot": ballot, **changes},
        ),
        "text": node("PreviewAny", source=["a", 1]),
    }


@pytest.fixture
def client(server):
    return server.client


def run(client, graph: dict) -> tuple[str, str]:
    """(Key, report)"""
    outputs = client.run(graph, timeout=120)
    return outputs["a"]["qsched_arena"][0], outputs["text"]["text"][0]


def state(client, key: str) -> dict:
    return client.get(f"/qsched/arena?key={key}")


def vote(client, key, pair, choice) -> dict:
    return client.post("/qsched/arena/vote", {"key": key, "pair": pair, "choice": choice})


def colour(client, name: str) -> str:
    content = client.view(name, "qsched_arena", "temp")
    red, _, blue = Image.open(io.BytesIO(content)).convert("RGB").getpixel((3, 3))
    return "red" if red > blue else "blue"


def side_of(client, vote_state: dict, pair: int, side_colour: str = "red") -> str:
    return ("left", "right")[[colour(client, name) for name in vote_state["pictures"][pair]].index(side_colour)]


def refused(status: int, call, *arguments) -> str:
    with pytest.raises(HttpFailure) as caught:
        call(*arguments)
    assert caught.value.status == status
    return json.loads(caught.value.body)["error"]


# --- a vote from the first pair to the preset


def test_a_vote_ends_in_the_report_and_in_the_preset(client, server, pack):
    graph = arena(8, ballot=10, keep_in_preset=True)
    graph["save"] = node("QSchedSavePreset", preset=["a", 0], name="voted", author="", license="", notes="")
    key, report = run(client, graph)
    assert report.startswith("0 of 8 pairs are voted on.")
    vote_state = state(client, key)
    for pair in range(7):
        vote_state = vote(client, key, pair, side_of(client, vote_state, pair))
    vote_state = vote(client, key, 7, "skip")
    assert vote_state["votes"][7] == "skip"
    assert "result" not in vote_state
    again, report = run(client, graph)
    assert again == key
    assert "better with the preset. The preset won 7 of 7 decided votes, 100.0 % [59.0 %, 100.0 %]; 1 skipped" in report
    assert "For the preset: pair 1, 2, 3, 4, 5, 6, 7\nSkipped: pair 8" in report
    result = state(client, key)["result"]
    assert (result["wins"], result["losses"], result["skips"], result["verdict"]) == (7, 0, 1, "better")
    load = pack("qsched_core").load_preset
    folder = server.folder("models") / "qsched_presets"
    assert "votes" not in load(folder / "voted.safetensors").record
    assert load(folder / "voted (2).safetensors").record["votes"] == result
    card = pack("nodes.library.card").describe_preset(load(folder / "voted (2).safetensors"))
    assert "Blind vote: better with the preset. The preset won 7 of 7" in card


def test_the_preset_is_left_alone_unless_it_is_wished(client, server, pack):
    graph = arena(6, ballot=11)
    graph["save"] = node("QSchedSavePreset", preset=["a", 0], name="unvoted", author="", license="", notes="")
    key, _ = run(client, graph)
    vote(client, key, 0, "left")
    vote(client, key, 0, "close")
    assert "Closed after 1 of 6 pairs." in run(client, graph)[1]
    for path in (server.folder("models") / "qsched_presets").glob("unvoted*"):
        assert "votes" not in pack("qsched_core").load_preset(path).record


def test_without_votes_nothing_runs_twice(client):
    graph = arena(3, ballot=12)
    run(client, graph)
    entry = client.wait(client.submit(graph))
    cached = next(details["nodes"] for event, details in entry["status"]["messages"] if event == "execution_cached")
    assert "a" in cached


def test_without_a_preset_the_vote_works_and_a_node_that_needs_one_does_not_run(client, server, pack):
    graph = arena(2, ballot=13)
    del graph["a"]["inputs"]["preset"]
    assert run(client, graph)[1].startswith("0 of 2")
    graph["save"] = node("QSchedSavePreset", preset=["a", 0], name="none", author="", license="", notes="")
    assert "save" not in client.run(graph)
    # The host tells it to the page alone, as an error of that node.
    assert pack("nodes.arena").NO_PRESET.message.endswith("no preset to hand on. Fix: plug one into it")


# --- blindness


def test_before_the_end_nothing_tells_the_sides(client):
    key, _ = run(client, arena(100, ballot=20))
    vote_state = state(client, key)
    assert set(vote_state) == {"key", "pairs", "votes", "last", "closed", "pictures", "texts"}
    names = [name for pair in vote_state["pictures"] for name in pair]
    assert len(set(names)) == 200
    colours = {name: colour(client, name) for name in names}
    left = sum(colours[left] == "red" for left, _ in vote_state["pictures"])
    # A fair coin 100 times: five standard deviations are 25.
    assert 25 < left < 75
    assert {len(name) for name in names} == {36}
    # Neither sorting by name nor by date finds them: five standard deviations again.
    assert 25 < sum(colours[name] == "red" for name in sorted(names)[:100]) < 75
    voted = vote(client, key, 0, "left")
    assert set(voted) == set(vote_state)
    assert voted["pictures"] == vote_state["pictures"]


def test_the_left_file_is_always_the_older_one_and_holds_pixels_only(client, server):
    key, _ = run(client, arena(20, ballot=21))
    folder = server.folder("temp") / "qsched_arena"
    for left, right in state(client, key)["pictures"]:
        assert (folder / left).stat().st_mtime_ns <= (folder / right).stat().st_mtime_ns
        for name in (left, right):
            assert Image.open(io.BytesIO((folder / name).read_bytes())).info == {}


def test_the_result_and_the_sides_come_with_the_close_and_then_nothing_can_be_changed(client):
    key, _ = run(client, arena(4, ballot=22))
    vote_state = state(client, key)
    truth = [side_of(client, vote_state, pair) for pair in range(4)]
    vote(client, key, 0, truth[0])
    vote(client, key, 1, "left" if truth[1] == "right" else "right")
    closed = vote(client, key, 0, "close")
    assert closed["sides"] == truth
    assert (closed["result"]["wins"], closed["result"]["losses"]) == (1, 1)
    for choice in ("left", "undo", "close"):
        assert "closed" in refused(409, vote, client, key, 1, choice)


# --- what goes wrong


def test_undo_takes_back_the_last_vote_only(client):
    key, _ = run(client, arena(3, ballot=30))
    vote(client, key, 0, "left")
    vote(client, key, 1, "skip")
    refused(409, vote, client, key, 0, "undo")
    vote_state = vote(client, key, 1, "undo")
    assert (vote_state["votes"], vote_state["last"]) == (["left", None, None], 0)


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        (404, {"key": "0" * 64}),
        (404, {"key": "../../secret"}),
        (400, {"key": 5}),
        (400, {"key": None}),
        (400, {"pair": 3}),
        (400, {"pair": -1}),
        (400, {"pair": True}),
        (400, {"pair": "0"}),
        (400, {"pair": 1.5}),
        (400, {"choice": "both"}),
        (400, {"choice": ["left"]}),
        (400, {"choice": "x" * 5000}),
    ],
)
def test_a_vote_that_is_none_is_refused_and_changes_nothing(client, status, changed):
    key, _ = run(client, arena(3, ballot=31))
    assert refused(status, client.post, "/qsched/arena/vote", {"key": key, "pair": 0, "choice": "left", **changed})
    assert state(client, key)["votes"] == [None] * 3


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 900, b"\xff\xfe", b'{"key": NaN}'])
def test_a_body_that_is_no_vote_is_refused(client, body):
    assert "no vote" in refused(400, lambda: client.read("/qsched/arena/vote", data=body))


@pytest.mark.parametrize("key", ["", "0" * 64, "..%2F..%2Fcomfy.settings", "%00", "x" * 4000])
def test_an_unknown_key_is_answered_in_words(client, key):
    assert "no such vote" in refused(404, client.get, f"/qsched/arena?key={key}")


def test_two_tabs_cannot_both_vote_on_a_pair(client):
    key, _ = run(client, arena(1, ballot=32))

    def cast(choice):
        try:
            return vote(client, key, 0, choice)["votes"]
        except HttpFailure as failure:
            return failure.status

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(cast, ["left", "right"] * 8))
    assert answers.count(409) == 15


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"with": pictures(5, RED)}, "8 pictures without and 5 with the preset. Fix: make both from the same prompts"),
        ({"with": pictures(8, RED, 24)}, "pair 1 has pictures of 16 x 16 and 24 x 24."),
        ({"with": pictures(8, BLUE)}, "the pictures of every pair are equal."),
        ({"with": pictures(201, RED), "without": pictures(201, BLUE)}, "201 pairs cannot be voted on. Fix: plug in 1"),
    ],
    ids=["counts", "sizes", "equal", "many"],
)
def test_pictures_that_make_no_pairs_are_refused_with_a_way_out(client, changes, reason):
    with pytest.raises(PromptFailed) as caught:
        client.run(arena() | changes)
    text = caught.value.exception_message
    assert reason in " ".join(text.split())
    assert "Fix: " in text
    assert len(text.splitlines()[0]) <= 90


# --- the node's parts


@pytest.fixture(scope="module")
def pairs_of(pack):
    return pack("nodes.voting.pairs")


@pytest.fixture(scope="module")
def ballots(pack):
    return pack("nodes.voting.ballots")


def test_lists_of_batches_of_many_sizes_make_pairs(pairs_of):
    sizes = [(2, 8, 8, 3), (1, 4, 12, 3)]
    pairs = pairs_of.read_pairs([torch.zeros(size) for size in sizes], [torch.ones(size) for size in sizes])
    assert [tuple(one.shape) for one, _ in pairs] == [(8, 8, 3), (8, 8, 3), (4, 12, 3)]


@pytest.mark.parametrize("bad", [None, torch.zeros(8, 8, 3), torch.zeros(1, 8, 8, 2), torch.zeros(1, 0, 8, 3)])
def test_what_is_no_picture_is_refused(pairs_of, pack, bad):
    with pytest.raises(pack("qsched_core").VoteError, match="with_preset holds something that is no picture"):
        pairs_of.read_pairs([torch.zeros(1, 8, 8, 3)], [bad])


@pytest.mark.parametrize(("count", "fits"), [(0, False), (1, True), (200, True), (201, False)])
def test_a_vote_is_on_one_to_two_hundred_pairs(pairs_of, pack, refused, count, fits):
    batch = torch.zeros(1, 1, 1, 3).expand(count, -1, -1, -1)
    if fits:
        assert len(pairs_of.read_pairs([batch], [batch])) == count
    else:
        with refused(pack("qsched_core").VoteError, f"{count} pairs cannot be voted on.", "1 to 200", pairs=count):
            pairs_of.read_pairs([batch], [batch])


def test_pictures_go_where_no_folder_is_yet_and_again(pairs_of, ballots, monkeypatch, tmp_path):
    """Left and right as the ballot has it; numbers of pictures and sides agree."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "no" / "folder"))
    pairs = [(torch.zeros(2, 3, 3), torch.ones(2, 3, 3))] * 2
    ballot = ballots.Ballot(("left", "right"))
    for _ in range(2):
        files = pairs_of.write_pairs(pairs, ballot, None)
        assert [[Image.open(path).getpixel((0, 0))[0] for path in pair] for pair in files] == [[255, 0], [0, 255]]
    assert len(list((tmp_path / "no" / "folder" / pairs_of.SUBFOLDER).iterdir())) == 8


def test_equal_pairs_are_not_asked_and_every_pixel_makes_another_vote(pairs_of):
    one, other = torch.zeros(3, 8, 8, 3), torch.zeros(3, 8, 8, 3)
    other[1:, 0, 0] = 1.0
    other[2, 1, 1] = float("nan")  # black, as the page would show it

    def key(first, second, ballot=1):
        return pairs_of.ballot_key(pairs_of.read_pairs([first], [second]), ballot)

    first, first_pairs = key(one, other)
    assert first_pairs == [1, 2]
    changed = other.clone()
    changed[2, 7, 7] = 0.5
    assert len({first, key(other, one)[0], key(one, other, 2)[0], key(one, changed)[0]}) == 4


def test_texts_are_spread_cut_and_counted(pairs_of, pack):
    assert pairs_of.texts_of([], 2) == ["", ""]
    assert pairs_of.texts_of(["a\n cat"], 2) == ["a cat", "a cat"]
    assert pairs_of.texts_of(["a", "b" * 999], 2) == ["a", "b" * 300]
    with pytest.raises(pack("qsched_core").VoteError, match="texts and pairs differ in number: 3 and 2"):
        pairs_of.texts_of(["a"] * 3, 2)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"sides": ["up"], "votes": [], "closed": false}',
        '{"sides": ["left"], "votes": [[0, "left"], [0, "left"]], "closed": false}',
        '{"sides": ["left"], "votes": [[7, "left"]], "closed": false}',
        '{"sides": ["left"], "votes": 5, "closed": false}',
        '{"sides": [], "votes": [], "closed": true}',
    ],
)
def test_a_damaged_file_of_votes_begins_anew_and_breaks_nothing(ballots, tmp_path, content):
    (tmp_path / f"{'a' * 64}.json").write_text(content)
    ballot = ballots.Ballots(lambda: tmp_path).open("a" * 64, 1)
    assert (ballot.votes, ballot.closed) == ((), False)


@pytest.mark.parametrize("choice", ["right", "close"])
def test_a_later_server_finds_a_vote_as_it_was_left(ballots, tmp_path, choice):
    store = ballots.Ballots(lambda: tmp_path)
    store.open("c" * 64, 2)
    store.show("c" * 64, ballots.Shown([]))
    store.act("c" * 64, 1, "left")
    store.act("c" * 64, 0, choice)
    ballot = store.open("c" * 64, 2)
    assert ballot.closed == (choice == "close")
    assert ballots.Ballots(lambda: tmp_path).open("c" * 64, 2) == ballot


def test_only_the_youngest_pictures_are_kept_and_their_votes_always(ballots, tmp_path):
    store = ballots.Ballots(lambda: tmp_path / "votes")
    keys = [f"{number:064x}" for number in range(ballots.MAX_PICTURE_SETS + 1)]
    for key in keys:
        files = tuple(tmp_path / f"{key} {side}.png" for side in "ab")
        for path in files:
            path.touch()
        store.open(key, 1)
        store.show(key, ballots.Shown([files]))
        store.act(key, 0, "left")
    assert not list(tmp_path.glob(f"{keys[0]}*"))
    assert store.view(keys[0])["votes"] == ["left"]
    assert store.view(keys[0])["pictures"] == []
    assert len(list(tmp_path.glob("*.png"))) == 2 * ballots.MAX_PICTURE_SETS
    assert not list((tmp_path / "votes").glob("*.tmp"))


def test_a_vote_that_cannot_be_written_is_not_counted(ballots, pack, tmp_path):
    (tmp_path / "votes").write_text("a file where the folder should be")
    store = ballots.Ballots(lambda: tmp_path / "votes")
    store.open("b" * 64, 1)
    store.show("b" * 64, ballots.Shown([]))
    with pytest.raises(pack("qsched_core").VoteError, match="cannot be saved"):
        store.act("b" * 64, 0, "left")
    assert store.view("b" * 64)["votes"] == [None]
