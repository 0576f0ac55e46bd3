"""Pairs of pictures for the page's slider: small ones while a study runs, whole ones with its result."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from comfy_api.latest import ui
from torch import Tensor

from ..host.progress import to_pil

LIVE_SIDE = 768
"""Pixels: what a node shows at full zoom. A pair of them takes about 100 kB of an event."""

LIVE_QUALITY = 85
"""Of the JPEG: what it does to a picture is not seen beside what quantising does."""


class LivePairs:
    """What the stock sampler and the candidate of the moment make of the same prompt, as the page takes it.

    One picture: of several side by side, the divider in the middle would lie on the seam of two.
    """

    def __init__(self) -> None:
        self._before: dict[tuple, str] = {}

    def __call__(self, study: str, indices: Sequence[int], pictures: Tensor) -> dict:
        """``pictures`` (B, H, W, 3) of the prompts ``indices`` -> {"before", "after"}, two data URIs of the first."""
        picture, place = _data_uri(pictures[0]), (study, indices[0])
        # The first to be sampled of every prompt is the identity's.
        return {"before": self._before.setdefault(place, picture), "after": picture}


def picture_rows(cls, rows: Sequence[tuple[str, Tensor]], texts: Sequence[str]) -> dict:
    """(name, pictures (B, H, W, 3)) per row, and their prompts -> what the page's slider shows, as the host's files."""
    files = [{"name": name, "files": ui.PreviewImage(pictures, cls=cls).as_dict()["images"]} for name, pictures in rows]
    return {"rows": files, "texts": list(texts)}


def _data_uri(picture: Tensor) -> str:
    image, data = to_pil(picture), io.BytesIO()
    image.thumbnail((LIVE_SIDE, LIVE_SIDE))
    image.save(data, "JPEG", quality=LIVE_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
