"""The layout of packed weights in plain Python, formats and widths to try it on, and errors to measure it by."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qsched_core.quant import Format
from qsched_core.quant.packing import pack, unpack

BITS = (3, 4, 6, 8)
GROUPS = (0, 8, 16, 32, 128)
# Whole groups, odd, not a multiple of a group, smaller than a group, a single column.
WIDTHS = (128, 127, 100, 33, 5, 1)
FORMS = [
    pytest.param(Format("f", bits, 8, group), id=f"w{bits}-{f'g{group}' if group else 'channel'}")
    for bits in BITS
    for group in GROUPS
]
ASYMMETRIC = [pytest.param(replace(item.values[0], symmetric=False), id=f"{item.id}-minimum") for item in FORMS]


def weights(rows: int, columns: int, scale: float = 0.02, seed: int = 0) -> Tensor:
    """Heavy-tailed, as trained layers are: that is where clipping matters."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, columns, generator=generator)
    return scale * normal * (1 + 3 * (torch.rand(rows, columns, generator=generator) > 0.98))


def slow_unpack(packed: Tensor, columns: int, form: Format) -> tuple[Tensor, Tensor]:
    """(weight, scale of every element), read from the bytes in plain Python as the module's docstring says."""
    values, scales = [], []
    size, groups = grouping(columns, form)
    for row in packed.tolist():
        split = len(row) - tail_bytes(groups, form)
        data, tail = bytes(row[:split]), bytes(row[split:])
        if form.weight_bits == 8:
            codes = list(struct.unpack(f"{len(data)}{'b' if form.symmetric else 'B'}", data))
        else:
            nibbles, upper = data[: groups * size // 2], data[groups * size // 2 :]
            codes = [byte & 15 for byte in nibbles] + [byte >> 4 for byte in nibbles]
            if form.weight_bits == 6:
                tops = [byte >> shift & 3 for shift in (0, 2, 4, 6) for byte in upper]
                codes = [code + 16 * top for code, top in zip(codes, tops, strict=True)]
            middle = {3: 8, 4: 8, 6: 32}[form.weight_bits] if form.symmetric else 0
            codes = [code - middle for code in codes]
        assert len(codes) == groups * size
        minimum = [0.0] * groups
        if in_steps(form):
            *steps, number = struct.unpack(f"<{groups}Bh", tail)
            scale = [(-1) ** (step >> 7) * 2 ** ((number - step % 128) / 12) for step in steps]
        elif form.symmetric:
            scale = struct.unpack(f"<{groups}e", tail)
        else:
            numbers = struct.unpack(f"<{2 * groups}e", tail)
            scale, minimum = numbers[:groups], numbers[groups:]
        values.append([codes[i] * scale[i // size] + minimum[i // size] for i in range(columns)])
        scales.append([scale[i // size] for i in range(columns)])
    return torch.tensor(values, dtype=torch.float64), torch.tensor(scales, dtype=torch.float64)


def grouping(columns: int, form: Format) -> tuple[int, int]:
    """(columns of a group, groups of a row)."""
    whole = 4 if form.weight_bits == 6 else 2
    size = form.group_size or -(-columns // whole) * whole
    return size, -(-columns // size)


def in_steps(form: Format) -> bool:
    """Whether scales are bytes, steps below that of their row."""
    return form.symmetric and form.weight_bits in (3, 4) and form.group_size > 0


def tail_bytes(groups: int, form: Format) -> int:
    """Bytes of a row after its codes."""
    return groups + 2 if in_steps(form) else 2 * groups if form.symmetric else 4 * groups


def grouped(weight: Tensor, form: Format) -> Tensor:
    """(N, K) -> (N, groups, columns of a group), with zeros up to whole groups."""
    size, groups = grouping(weight.shape[1], form)
    return torch.nn.functional.pad(weight, (0, size * groups - weight.shape[1])).view(len(weight), groups, size)


def signed_scales(groups: Tensor, bits: int) -> Tensor:
    """What gives the largest weight of each group (…, size) the code -2^(bits-1): (…, 1)."""
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    return torch.where(high > -low, -high, -low) / 2 ** (bits - 1)


def squared_errors(groups: Tensor, scale: Tensor, least: int, top: int) -> Tensor:
    """Of each group (…, size) with a scale (…, 1) and codes from ``least`` to ``top``."""
    return ((groups / scale).round().clamp(least, top) * scale - groups).square().sum(-1)


def relative_error(weight: Tensor, form: Format) -> float:
    return ((unpack(pack(weight, form), weight.shape[1], form) - weight).norm() / weight.norm()).item()
