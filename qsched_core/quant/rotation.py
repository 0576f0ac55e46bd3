"""Hadamard rotations: what is loud in one column is shared by all of a group, and rounds with them.

Both factors of x·W^T are rotated, so that the product stays what it was (QuaRot, arXiv 2404.00456).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

SIZES = (64, 16)
"""Columns that a rotation mixes. More gain little, and cost more beside the product itself."""


def rotation_of(columns: int) -> int:
    """The size for so many columns, 0 where none divides them."""
    return next((size for size in SIZES if columns % size == 0), 0)


def rotate(values: Tensor, size: int) -> Tensor:
    """The last axis (K,) in groups of ``size`` times a Hadamard matrix of ±1/size: no value grows, whatever its type
    holds. Once more gives the values back, divided by ``size``. ``size`` 0 leaves them."""
    if size == 0:
        return values
    return (values.unflatten(-1, (-1, size)) @ _hadamard(size, values.dtype, values.device)).flatten(-2)


def rotate_weight(weight: Tensor, size: int) -> Tensor:
    """What a rotated input is multiplied with in place of ``weight`` (N, K); ``rotate`` gives the weight back."""
    return rotate(weight, size) * max(1, size)


@cache
def _hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Symmetric, and no column of equal signs: a mean would all fall into that one."""
    with torch.inference_mode(False):  # it is kept, and may be asked for again where gradients are
        four = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 4
        matrix = four
        while len(matrix) < size:
            matrix = torch.kron(matrix, four)
        return matrix.to(device, dtype)
