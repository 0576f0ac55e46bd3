"""A bar and a line of text on a running node, and the user's wish to stop."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
from PIL import Image

from .server import page_server


class NodeProgress:
    """Progress of one node. Every update is also a place where a cancel takes effect."""

    def __init__(self, unique_id: str | None, total: int = 1):
        self.unique_id, self.total = unique_id, max(1, total)
        self._bar = comfy.utils.ProgressBar(self.total, node_id=unique_id)

    def update(self, done: int, text: str = "", total: int | None = None, picture=None) -> None:
        """``total`` where it is known better now; ``picture`` (H, W, 3) in [0, 1] is shown on the node."""
        self.total = max(1, total or self.total)
        comfy.model_management.throw_exception_if_processing_interrupted()
        preview = None if picture is None else ("JPEG", to_pil(picture), None)
        self._bar.update_absolute(done, self.total, preview)
        if text:
            say(self.unique_id, text)


def layer_progress(node) -> Callable[[int, int], None]:
    """``on_layer(done, total)`` for a node that goes through a network layer by layer."""
    progress = NodeProgress(node_id(node))
    return lambda done, total: progress.update(done, f"layer {done} of {total}", total)


def node_id(node) -> str | None:
    """The id of the node that is running, None where a script calls it."""
    return None if node.hidden is None else node.hidden.unique_id


def node_kind(cls) -> str:
    """A node's id in the host's list. The host runs a clone of the class, with a name of its own."""
    return getattr(cls.SCHEMA, "node_id", cls.__name__)


def inert(text: str) -> str:
    """A text for the host's previews, which take it for HTML or Markdown: a stranger's picture in it would be loaded
    from his server. Without "<" there are no elements, and LoRA tags stay to be read."""
    return text.replace("<", "\u2039").replace("![", "! [")


def say(unique_id: str | None, text: str) -> None:
    """A line under the node, where there is a server to show it."""
    server = page_server()
    if server is not None and unique_id is not None:
        server.send_progress_text(inert(text), unique_id)


def tell(unique_id: str | None, event: str, data: dict) -> None:
    """An event for our own front end, where there is a server to carry it."""
    server = page_server()
    if server is not None and unique_id is not None:
        server.send_sync(event, {"node": unique_id, **data}, server.client_id)


def to_pil(picture) -> Image.Image:
    """(H, W, 3) in [0, 1] -> an 8-bit picture."""
    return Image.fromarray((picture.detach().cpu().clamp(0, 1) * 255).round().byte().numpy())
