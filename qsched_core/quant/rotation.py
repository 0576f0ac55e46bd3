"""Hadamard rotations: what is loud in one column is shared by all of a group, and rounds with them.

Both factors of x·W^T are rotated, so that the product stays what it was (QuaRot, arXiv 2404.00456).
"""

from __future__ import annotations

import torch
from torch import Tensor

SIZES = (64, 16)
"""Columns that a rotation mixes. More gain little, and cost more beside the product itself."""


def rotation_of(columns: int) -> int:
    """The size for so many columns, 0 where none divides them."""
    return next((size for size in SIZES if columns % size == 0), 0)


_SCALED = "float16, divided by input_gain"

_HEADROOM = 2
"""How far a rotated float16 input stays below what an orthonormal rotation makes of it."""

_matrices: dict[tuple[int, torch.dtype | str, torch.device], Tensor] = {}


def rotate(values: Tensor, size: int) -> Tensor:
    """The last axis (K,) in groups of ``size`` times a Hadamard matrix of +-1/size: no value grows, whatever its type
    holds. Once more gives the values back, divided by ``size``. ``size`` 0 leaves them."""
    if size == 0:
        return values
    return (values.unflatten(-1, (-1, size)) @ _hadamard(size, values.dtype, values.device)).flatten(-2)


def rotate_weight(weight: Tensor, size: int) -> Tensor:
    """What a rotated input is multiplied with in place of ``weight`` (N, K); ``rotate`` gives the weight back."""
    return rotate(weight, size) * max(1, size)


def rotate_input(x: Tensor, size: int) -> Tensor:
    """``rotate``, of float16 divided by ``input_gain``: its smallest numbers are 6e-8 apart, and a rotation by
    1/size makes small inputs 8 times smaller. What overflows then is 32 000 in every column of a group, with just the
    signs of a column of the matrix; other types have the room."""
    if size == 0:
        return x
    kind = _SCALED if x.dtype == torch.float16 else x.dtype
    return (x.unflatten(-1, (-1, size)) @ _hadamard(size, kind, x.device)).flatten(-2)


def input_gain(size: int, dtype: torch.dtype) -> float:
    """What a product of ``rotate_input`` and ``rotate_weight`` is multiplied by, a power of two."""
    return _HEADROOM / size**0.5 if size and dtype == torch.float16 else 1.0


def prepare(device: torch.device) -> None:
    """Make the matrices of a device: outside of a block whose allocations a host replays, or a compiler traces."""
    if device.type != "meta":
        for size in SIZES:
            for dtype in (torch.float32, torch.bfloat16, torch.float16, _SCALED):
                _hadamard(size, dtype, device)


def _hadamard(size: int, dtype: torch.dtype | str, device: torch.device) -> Tensor:
    """Symmetric, and no column of equal signs: a mean would all fall into that one."""
    result = _matrices.get((size, dtype, device))
    if result is not None:
        return result
    with torch.inference_mode(False):  # it is kept, and may be asked for again where gradients are
        four = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 4
        matrix = four
        while len(matrix) < size:
            matrix = torch.kron(matrix, four)
        scaled = dtype == _SCALED
        if scaled:
            matrix = matrix / input_gain(size, torch.float16)
        result = _matrices[size, dtype, device] = matrix.to(device, torch.float16 if scaled else dtype)
        return result
