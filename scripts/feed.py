"""Live news of a running prompt, over the host's websocket.

Optional: with the package `websocket-client` the percentage and the text of the running node arrive as they change;
without it only the passing of time is reported.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

try:
    import websocket
except ImportError:
    websocket = None

# The kinds of the host's binary messages begin with the pictures; this one is a node's progress text.
TEXT_EVENT = 3


@dataclass(frozen=True)
class Progress:
    """One piece of news. `node` is None when there is nothing new but the time."""

    node: str | None = None
    fraction: float | None = None
    text: str | None = None


OnProgress = Callable[[Progress], None]


class Clock:
    """The feed that has no news: it only lets time pass."""

    def listen(self, seconds: float, on_progress: OnProgress) -> None:
        """Wait `seconds`, then report that time has passed."""
        time.sleep(seconds)
        on_progress(Progress())

    def close(self) -> None:
        """Nothing is held open."""


class Feed:
    """The news of one client's prompts. Raises ConnectionError when the connection fails or is lost."""

    def __init__(self, url: str, client_id: str) -> None:
        try:
            # No proxies: the server is on this machine, whatever the environment says about the rest of the world.
            self._socket = websocket.create_connection(f"{url}?clientId={client_id}", timeout=30, http_no_proxy=["*"])
        except websocket.WebSocketException as error:
            raise ConnectionError(str(error)) from error

    def listen(self, seconds: float, on_progress: OnProgress) -> None:
        """Report what arrives within `seconds`, and then that time has passed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            news = decode(self._receive(left))
            if news is not None:
                on_progress(news)
        on_progress(Progress())

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _receive(self, seconds: float) -> str | bytes:
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv()
        except websocket.WebSocketTimeoutException:
            return ""
        except websocket.WebSocketException as error:
            raise ConnectionError(str(error)) from error


def open_feed(url: str, client_id: str) -> Feed | Clock:
    """The best feed that this interpreter can have."""
    return Clock() if websocket is None else Feed(url, client_id)


def decode(message: str | bytes) -> Progress | None:
    """The news in a websocket message; None for messages about anything else."""
    if isinstance(message, bytes):
        return _decode_binary(message)
    if not message:
        return None
    event = json.loads(message)
    return _decode_state(event["data"]["nodes"]) if event.get("type") == "progress_state" else None


def _decode_binary(message: bytes) -> Progress | None:
    """`kind, length of the node id` as big-endian 32-bit integers, the node id, the text."""
    if len(message) < 8:
        return None
    kind, length = struct.unpack_from(">II", message)
    if kind != TEXT_EVENT:
        return None
    node, text = message[8 : 8 + length], message[8 + length :]
    return Progress(node=node.decode("utf-8", "replace"), text=text.decode("utf-8", "replace"))


def _decode_state(nodes: dict[str, dict]) -> Progress | None:
    running = [(node, state) for node, state in nodes.items() if state.get("state") == "running"]
    if not running:
        return None
    node, state = running[-1]
    return Progress(node=node, fraction=state["value"] / state["max"] if state.get("max") else None)
