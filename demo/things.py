"""The things of the demo's pictures: flat drawings under the MIT licence, kept as one sheet beside the weights.

``python -m demo.drawings`` makes the sheet; reading it needs Pillow alone.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .files import DRAWINGS, DRAWINGS_LIST
from .sheet import corner

THINGS: tuple[str, ...] = tuple(json.loads(DRAWINGS_LIST.read_text(encoding="utf-8"))["things"])
"""The word of each drawing, in the order of the sheet."""


@cache
def drawings(width: int) -> Tensor:
    """(things, 4, width, width) in [0, 1]: colours times coverage, then coverage.

    Raises:
        FileNotFoundError: the sheet is not part of this installation.
    """
    if not DRAWINGS.exists():
        raise FileNotFoundError(f"Q-Sched: {DRAWINGS.name} is missing. Fix: install the pack again, with demo/weights")
    with Image.open(DRAWINGS) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGBA"))).movedim(-1, 0).float() / 255
    out = torch.empty(len(THINGS), 4, width, width)
    for index in range(len(THINGS)):
        x, y = corner(index, width)
        cell = pixels[:, y : y + width, x : x + width]
        out[index] = torch.cat([cell[:3] * cell[3:], cell[3:]])
    return out
