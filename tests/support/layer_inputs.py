"""Inputs as layers see them, and what their weights are packed in."""

from __future__ import annotations

import torch
from torch import Tensor

from qsched_core.quant import resolve_format

PACKINGS = [
    resolve_format(name, group, symmetric)
    for name in ("w3a8", "w4a8", "w6a8", "w8a8")
    for group in (0, 32)
    for symmetric in (True, False)
]
"""Bits, groups and kinds of scales that layers are packed with."""


def correlated(rows: int, columns: int, seed: int = 0) -> Tensor:
    """(rows, columns): the columns know of each other, and a few are loud."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=torch.Generator().manual_seed(7)) / columns**0.5 + torch.eye(
        columns
    )
    x = torch.randn(rows, columns, generator=generator) @ mixing
    x[:, :3] *= 5
    return x + 0.5
