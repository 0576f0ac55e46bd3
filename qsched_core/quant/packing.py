"""Weights as bytes: one row of codes and scales per output channel, in a single uint8 tensor.

Codes and scales travel together, so that a host which moves, backs up and restores "the weight" cannot leave
the scales behind. Row layout: codes (two per byte for 4 bits: low nibble first half of the row, high nibble
second half), then one float16 scale per group. Columns are padded with zero codes to whole groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .formats import Format

_SHRINK = torch.linspace(1.0, 0.75, 6)
"""Candidate clipping factors for a group's absolute maximum: a little clipping rounds the many better than it hurts
the one. More candidates than six change the error of trained layers by less than 1 %."""

_AT_ONCE = 2**18
"""Weights packed at once: the temporaries of a whole layer would neither fit a cache nor be welcome in memory."""

_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-24, 65504.0
"""What float16 holds: a scale of 0 or infinity would make NaN of a whole group."""


def row_bytes(columns: int, form: Format) -> int:
    """Bytes per output channel."""
    groups, padded = _grouping(columns, form)
    return padded * form.storage_bits // 8 + 2 * groups


def pack(weight: Tensor, form: Format) -> Tensor:
    """Float weight (N, K) → uint8 (N, ``row_bytes``). Deterministic; rounds to nearest."""
    rows = max(1, _AT_ONCE // weight.shape[1])
    return torch.cat([_pack_rows(part, form) for part in weight.split(rows)])


def _pack_rows(weight: Tensor, form: Format) -> Tensor:
    rows, columns = weight.shape
    groups, padded = _grouping(columns, form)
    grouped = torch.nn.functional.pad(weight.float(), (0, padded - columns)).view(rows, groups, -1)
    scales = _best_scales(grouped, form)
    top = 2 ** (form.weight_bits - 1) - 1
    codes = (grouped / scales.float().unsqueeze(-1)).round().clamp(-top, top).view(rows, padded).to(torch.int8)
    return torch.cat([_codes_to_bytes(codes, form), scales.contiguous().view(torch.uint8).view(rows, -1)], dim=1)


def unpack(packed: Tensor, columns: int, form: Format, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (N, ``row_bytes``) → float weight (N, K)."""
    rows = packed.shape[0]
    groups, padded = _grouping(columns, form)
    split = padded * form.storage_bits // 8
    # clone, not contiguous: of a single row that is a view, which may start at an odd byte.
    scales = packed[:, split:].clone(memory_format=torch.contiguous_format).view(torch.float16).view(rows, groups, 1)
    out = torch.empty(rows, padded, dtype=dtype, device=packed.device)
    if form.storage_bits == 8:
        out.copy_(packed[:, :split].view(torch.int8))
    else:
        out[:, : padded // 2].copy_(packed[:, :split] & 15)
        out[:, padded // 2 :].copy_(packed[:, :split] >> 4)
        out.sub_(8)
    out.view(rows, groups, -1).mul_(scales.to(dtype))
    return out[:, :columns]


def _grouping(columns: int, form: Format) -> tuple[int, int]:
    """Groups per row, and columns after padding (even, so that two codes fill a byte)."""
    size = form.group_size or columns + columns % 2
    groups = -(-columns // size)
    return groups, groups * size


def _best_scales(grouped: Tensor, form: Format) -> Tensor:
    """float16 scales (N, groups): of a few clipping factors, the one with the least squared error."""
    top = 2 ** (form.weight_bits - 1) - 1
    largest = grouped.abs().amax(-1)
    best = torch.full_like(largest, float("inf"))
    chosen = torch.full_like(largest, _LARGEST_SCALE, dtype=torch.float16)
    for shrink in _SHRINK.tolist():
        scales = (largest * shrink / top).clamp(_SMALLEST_SCALE, _LARGEST_SCALE).half()
        wide = scales.float().unsqueeze(-1)
        error = ((grouped / wide).round().clamp(-top, top) * wide - grouped).square().sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        chosen = torch.where(better, scales, chosen)
    return chosen


def _codes_to_bytes(codes: Tensor, form: Format) -> Tensor:
    if form.storage_bits == 8:
        return codes.view(torch.uint8)
    low, high = (codes + 8).to(torch.uint8).chunk(2, dim=1)
    return low | (high << 4)
