"""Rows of small pictures with their names, as one picture for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_PICTURE_SIDE, _GAP, _LABEL_HEIGHT = 256, 6, 22
"""Pixels."""

_PAPER, _INK = (250, 250, 250), (30, 30, 30)
"""Colours of the sheet and of its writing."""


def gallery(rows: Sequence[tuple[str, Tensor]]) -> Tensor:
    """(name, pictures (B, H, W, 3)) per row -> one picture (1, H', W', 3) in [0, 1], as wide as the shortest row."""
    count = min(len(pictures) for _, pictures in rows)
    sheet = Image.new(
        "RGB",
        (_GAP + count * (_PICTURE_SIDE + _GAP), len(rows) * (_PICTURE_SIDE + _LABEL_HEIGHT + _GAP) + _GAP),
        _PAPER,
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for row, (name, pictures) in enumerate(rows):
        top = _GAP + row * (_PICTURE_SIDE + _LABEL_HEIGHT + _GAP)
        draw.text((_GAP, top), name, fill=_INK, font=font)
        for column in range(count):
            sheet.paste(_thumbnail(pictures[column]), (_GAP + column * (_PICTURE_SIDE + _GAP), top + _LABEL_HEIGHT))
    return picture_tensor(sheet)


def picture_tensor(image: Image.Image) -> Tensor:
    """(1, H, W, 3) in [0, 1]: a picture as the host's IMAGE."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).astype(np.float32) / 255).unsqueeze(0)


def _thumbnail(picture: Tensor) -> Image.Image:
    image = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy())
    scale = _PICTURE_SIDE / max(image.size)
    # Whole pixels, all of one size, when enlarging: damage must neither be smoothed away nor be added.
    scale = math.floor(scale) if scale > 1 else scale
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
