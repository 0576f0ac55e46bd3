"""Pairs of pictures for the page's slider: small ones while a study runs, whole ones with its result."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from comfy_api.latest import ui
from torch import Tensor

from ..host.progress import to_pil

LIVE_SIDE = 768
"""Pixels: what a node shows at full zoom. A pair of them takes about 100 kB of an event."""

LIVE_QUALITY = 85
COLUMNS = 2


class LivePairs:
    """What the stock sampler and the candidate of the moment make of the same prompts, as the page takes it."""

    def __init__(self) -> None:
        self._before: dict[tuple, str] = {}

    def __call__(self, study: str, indices: Sequence[int], pictures: Tensor) -> dict:
        """``pictures`` (B, H, W, 3) of the prompts ``indices`` -> {"before", "after"}, two data URIs."""
        sheet, place = _data_uri(_sheet(pictures)), (study, tuple(indices))
        # The first to be sampled in every group is the identity.
        return {"before": self._before.setdefault(place, sheet), "after": sheet}


def picture_rows(cls, rows: Sequence[tuple[str, Tensor]], texts: Sequence[str]) -> dict:
    """(name, pictures (B, H, W, 3)) per row, and their prompts -> what the page's slider shows, as the host's files."""
    files = [{"name": name, "files": ui.PreviewImage(pictures, cls=cls).as_dict()["images"]} for name, pictures in rows]
    return {"rows": files, "texts": list(texts)}


def _sheet(pictures: Tensor) -> Tensor:
    """The first pictures, (H', W', 3): one row or two, with no gap."""
    tiles = pictures[: COLUMNS if len(pictures) < COLUMNS**2 else COLUMNS**2]
    return torch.cat([torch.cat(list(tiles[i : i + COLUMNS]), dim=1) for i in range(0, len(tiles), COLUMNS)])


def _data_uri(picture: Tensor) -> str:
    image, data = to_pil(picture), io.BytesIO()
    image.thumbnail((LIVE_SIDE, LIVE_SIDE))
    image.save(data, "JPEG", quality=LIVE_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
