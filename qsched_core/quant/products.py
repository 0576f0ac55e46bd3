"""The int8 matrix product, where torch has one that is right."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .trial import failed_in_run

_LEAST_ROWS = 17
"""CUDA's product takes no fewer rows, and inner and outer sizes in eights."""


def int8_product(x_codes: Tensor, w_codes: Tensor) -> Tensor | None:
    """int8 (M, K) · int8 (N, K)^T -> int32 (M, N); None where torch has no such product for the device or the shape."""
    rows, inner = x_codes.shape
    if 0 in (rows, inner, w_codes.shape[0]) or not usable(x_codes.device):
        return None
    cpu = x_codes.device.type == "cpu"
    if not cpu and (inner % 8 or w_codes.shape[0] % 8):
        return None
    try:
        if cpu:
            return torch._int_mm(x_codes, w_codes.t())
        if rows < _LEAST_ROWS:
            x_codes = F.pad(x_codes, (0, 0, 0, _LEAST_ROWS - rows))
        return torch._int_mm(x_codes.contiguous(), w_codes.contiguous().t())[:rows]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _failed.add(x_codes.device)
        failed_in_run(f"torch's int8 product on {x_codes.device.type}", error)
        return None


def usable(device: torch.device) -> bool:
    """Whether torch has the product on the device, it is right, and it has not thrown in a run."""
    return device not in _failed and _is_right(device)


def prepare(device: torch.device) -> None:
    """Try the product where it would be used."""
    if pays(device):
        _is_right(device)


_failed: set[torch.device] = set()
"""Where it passed its trial and threw at a larger shape."""


def pays(device: torch.device) -> bool:
    """Whether the product is faster than unpacking and a float product. On a CPU without int8 instructions it takes
    20 to 40 times as long (AVX2, torch 2.11), and torch does not say what a CPU has."""
    return device.type != "cpu"


@cache
def _is_right(device: torch.device) -> bool:
    """Whether a small product can be computed and is the one that floats give."""
    # Codes of every size, without drawing from a generator that somebody has seeded.
    x = (torch.arange(32 * 32) * 37 % 255 - 127).view(32, 32)
    w = (torch.arange(32 * 32) * 101 % 255 - 127).view(32, 32)
    try:
        result = torch._int_mm(x.to(device, torch.int8), w.to(device, torch.int8).t()).cpu()
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(result.double(), x.double() @ w.double().T)
