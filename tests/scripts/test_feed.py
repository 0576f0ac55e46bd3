"""Reading the host's websocket messages."""

import json
import struct

import pytest

from scripts import feed
from scripts.feed import Clock, Progress, decode, open_feed


def text_message(node: str, text: str) -> bytes:
    return struct.pack(">II", feed.TEXT_EVENT, len(node.encode())) + node.encode() + text.encode()


def state_message(**nodes) -> str:
    return json.dumps({"type": "progress_state", "data": {"prompt_id": "p", "nodes": nodes}})


def test_text_of_a_node():
    assert decode(text_message("12:3", "trial 3/20 ·")) == Progress(node="12:3", text="trial 3/20 ·")


def test_progress_of_the_running_node():
    done, busy = {"state": "finished", "value": 1, "max": 1}, {"state": "running", "value": 3, "max": 12}
    assert decode(state_message(a=done, b=busy)) == Progress(node="b", fraction=0.25)


def test_progress_without_a_known_end():
    assert decode(state_message(a={"state": "running", "value": 0, "max": 0})) == Progress(node="a", fraction=None)


@pytest.mark.parametrize(
    "message",
    [
        "",
        json.dumps({"type": "status", "data": {}}),
        state_message(a={"state": "finished", "value": 1, "max": 1}),
        struct.pack(">II", 1, 2) + b"a preview",
        b"\x00",
    ],
    ids=["nothing", "another event", "nothing running", "a picture", "too short"],
)
def test_anything_else_is_no_news(message):
    assert decode(message) is None


def test_without_the_websocket_package_only_time_passes(monkeypatch):
    monkeypatch.setattr(feed, "websocket", None)
    heard = []
    clock = open_feed("ws://127.0.0.1:9/ws", "me")
    clock.listen(0.001, heard.append)
    assert isinstance(clock, Clock)
    assert heard == [Progress()]
