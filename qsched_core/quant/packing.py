"""Weights as bytes: one row of codes and scales per output channel, in a single uint8 tensor.

Codes and scales travel together, so that a host which moves, backs up and restores "the weight" cannot leave
the scales behind. Row layout:

- codes. 8 bits: one per byte. 4 bits: two per byte, low nibble first half of the row, high nibble second half.
  6 bits: their lower four bits like that, then a plane of their upper two, four per byte: the lowest two bits of the
  bytes are the first quarter of the row, and so on. Symmetric codes of 4 and 6 bits have 8 and 32 added.
- symmetric formats of 3 and 4 bits in groups: one byte per group, then one int16 for the row. A scale is ±2^(e/12)
  with e the row's number less the byte's lower seven bits; its highest bit is the sign.
- other formats: one float16 scale per group.
- asymmetric formats: one float16 minimum per group. Their weight is code · scale + minimum, with codes from 0.

Two's complement has one code more below zero than above. A symmetric scale has the sign that gives it to the largest
weight of its group: 16 levels in place of 15 are a tenth less error at 4 bits.

Columns are padded to whole groups: with zeros, or, where a minimum would be drawn to them, with the last column.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .formats import Format
from .rounding import IntegerGrid

_SHRINK = torch.linspace(1.0, 0.75, 6)
"""Candidate clipping factors for a group's absolute maximum: a little clipping rounds the many better than it hurts
the one. More candidates than six change the error of trained layers by less than 1 %."""

STEPS = 12
"""Steps of a scale per factor of two: 6 % apart, finer gains nothing, and a byte spans a factor of 1500 in a row."""

_CLIP_STEPS = 7
"""Steps tried for a group, from the one that holds its largest weight downwards, to 0.71 of that."""

_AT_ONCE = {"cpu": 2**18}
_AT_ONCE_ELSEWHERE = 2**22
"""Weights packed at once: the temporaries of a whole layer would neither fit a CPU's cache nor be welcome in memory.
A GPU has no such cache and pays for each launch: sixteen times as many take 170 MB."""

SMALLEST_SCALE, LARGEST_SCALE = 2.0**-24, 65504.0
"""What float16 holds: a scale of 0 or infinity would make NaN of a whole group."""

LARGEST_STEP = 191
"""The last below ``LARGEST_SCALE``: the next is 65536."""

SMALLEST_STEP = 1 - 24 * STEPS - _CLIP_STEPS
"""The last that is tried from the step of ``SMALLEST_SCALE`` downwards."""

_FINEST = 2.0**-10
"""The least scale of an asymmetric group, relative to its minimum: that is how finely float16 holds the minimum. A
finer scale would gain nothing, and code 0 would not be the smallest weight, so that packing again found another."""


def row_bytes(columns: int, form: Format) -> int:
    """Bytes per output channel."""
    groups, padded = grouping(columns, form)
    scales = groups + 2 if in_steps(form) else (2 if form.symmetric else 4) * groups
    return padded * form.storage_bits // 8 + scales


def pack(weight: Tensor, form: Format) -> Tensor:
    """Float weight (N, K) -> uint8 (N, ``row_bytes``). Deterministic; rounds to nearest."""
    rows = max(1, _AT_ONCE.get(weight.device.type, _AT_ONCE_ELSEWHERE) // weight.shape[1])
    pack_rows = _pack_symmetric if form.symmetric else _pack_asymmetric
    return torch.cat([pack_rows(part, form) for part in weight.split(rows)])


def unpack(packed: Tensor, columns: int, form: Format, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (N, ``row_bytes``) -> float weight (N, K)."""
    rows = packed.shape[0]
    groups, padded = grouping(columns, form)
    values = scales(packed, columns, form)
    # In a shorter type the large product would lose what the sum with the minimum leaves of a small weight.
    out = torch.empty(rows, padded, dtype=dtype if form.symmetric else torch.float32, device=packed.device)
    _read_codes(packed, form, out)
    grouped = out.view(rows, groups, -1)
    grouped.mul_(values[:, :groups, None].to(out.dtype))
    if not form.symmetric:
        grouped.add_(values[:, groups:, None])
    return out[:, :columns].to(dtype)


def codes(packed: Tensor, columns: int, form: Format) -> Tensor:
    """The integers in uint8 (N, ``row_bytes``): (N, K), int8 from -2^(bits-1); asymmetric uint8 from 0."""
    dtype = torch.int8 if form.symmetric else torch.uint8
    out = torch.empty(packed.shape[0], grouping(columns, form)[1], dtype=dtype, device=packed.device)
    _read_codes(packed, form, out)
    return out[:, :columns]


def recoded(packed: Tensor, codes: Tensor, form: Format) -> Tensor:
    """``packed`` with other ``codes`` (N, K), numbers as ``codes()`` gives them; scales and padding stay."""
    columns = codes.shape[1]
    whole = torch.empty(packed.shape[0], grouping(columns, form)[1], dtype=torch.int16, device=packed.device)
    _read_codes(packed, form, whole)
    whole[:, :columns] = codes.to(torch.int16)
    if form.symmetric and form.storage_bits < 8:
        whole += 2 ** (form.storage_bits - 1)
    code_bytes = _code_bytes((whole & 255).to(torch.uint8), form)
    return torch.cat([code_bytes, packed[:, code_bytes.shape[1] :]], dim=1)


def grid_of(packed: Tensor, columns: int, form: Format) -> IntegerGrid:
    """The values that weights in uint8 (N, ``row_bytes``) may take with the scales that they have."""
    groups, padded = grouping(columns, form)
    values = scales(packed, columns, form).float()
    minimums = None if form.symmetric else values[:, groups:]
    low = -(2 ** (form.weight_bits - 1)) if form.symmetric else 0
    return IntegerGrid(values[:, :groups], minimums, padded // groups, low, low + 2**form.weight_bits - 1)


def scales(packed: Tensor, columns: int, form: Format) -> Tensor:
    """The scales in uint8 (N, ``row_bytes``), float: (N, groups); asymmetric (N, 2·groups), the minimums last."""
    groups, padded = grouping(columns, form)
    start = padded * form.storage_bits // 8
    if not in_steps(form):
        return sixteen_bits(packed[:, start:], torch.float16)
    row = sixteen_bits(packed[:, start + groups :], torch.int16)
    steps = packed[:, start : start + groups].to(torch.int16)
    sizes = torch.exp2((row - (steps & 127)).float() / STEPS)
    return torch.where(steps > 127, -sizes, sizes)


def sixteen_bits(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of 16 bits, from bytes (N, …) that may start at an odd address: a view where it is even, and
    where no compiler traces: to it an address is no number."""
    if torch.compiler.is_compiling() or data.storage_offset() % 2 or data.stride(0) % 2:
        # clone, not contiguous: of a single row that is a view.
        data = data.clone(memory_format=torch.contiguous_format)
    return data.view(dtype)


def sound_scales(packed: Tensor, columns: int, form: Format) -> bool:
    """Whether every scale and minimum in uint8 (N, ``row_bytes``) is a number that packing could have written: a file's
    may be NaN, infinite, or a step so high that a layer's output is."""
    groups, padded = grouping(columns, form)
    start = padded * form.storage_bits // 8
    if in_steps(form):
        rows = packed[:, start + groups :].clone(memory_format=torch.contiguous_format).view(torch.int16)
        return bool(((rows >= SMALLEST_STEP) & (rows <= LARGEST_STEP)).all())
    return bool(packed[:, start:].clone(memory_format=torch.contiguous_format).view(torch.float16).isfinite().all())


def in_steps(form: Format) -> bool:
    """Whether a group's scale is one byte, relative to its row. Few bits round more coarsely than the steps do."""
    return form.symmetric and form.weight_bits <= 4 and form.group_size > 0


def grouping(columns: int, form: Format) -> tuple[int, int]:
    """Groups per row, and columns after padding (so that codes fill whole bytes)."""
    size = form.group_size or columns + -columns % (4 if form.storage_bits == 6 else 2)
    groups = -(-columns // size)
    return groups, groups * size


def _pack_symmetric(weight: Tensor, form: Format) -> Tensor:
    rows, columns = weight.shape
    groups, padded = grouping(columns, form)
    grouped = F.pad(weight.float(), (0, padded - columns)).view(rows, groups, -1)
    least, top = -(2 ** (form.weight_bits - 1)), 2 ** (form.weight_bits - 1) - 1
    scales, scale_bytes = (_scales_in_steps if in_steps(form) else _half_scales)(grouped, least, top)
    codes = (grouped / scales.unsqueeze(-1)).round().clamp(least, top).view(rows, padded).to(torch.int8)
    if form.storage_bits < 8:
        codes += 2 ** (form.storage_bits - 1)
    return torch.cat([_code_bytes(codes.view(torch.uint8), form), scale_bytes], dim=1)


def _half_scales(grouped: Tensor, least: int, top: int) -> tuple[Tensor, Tensor]:
    """(float32 scales (N, groups), their bytes): of a few clipping factors, the one with the least squared error."""
    largest, sign = _largest(grouped)
    candidates = [
        (largest * shrink / -least).clamp(SMALLEST_SCALE, LARGEST_SCALE).half() for shrink in _SHRINK.tolist()
    ]
    best, _ = _best(grouped, [sign * scales.float() for scales in candidates], least, top)
    return best, _float_bytes(best.half())


def _scales_in_steps(grouped: Tensor, least: int, top: int) -> tuple[Tensor, Tensor]:
    """As ``_half_scales``, on the grid of ``STEPS``. The first step tried holds the largest weight with the code
    ``least``, or is one above it by a rounding: packing again finds what was packed."""
    largest, sign = _largest(grouped)
    exact_steps = (largest / -least).clamp(SMALLEST_SCALE, LARGEST_SCALE).log2().mul_(STEPS)
    first = exact_steps.ceil().clamp(max=LARGEST_STEP)
    _, offset = _best(grouped, [sign * torch.exp2((first - i) / STEPS) for i in range(_CLIP_STEPS)], least, top)
    steps = first - offset
    row = steps.amax(-1, keepdim=True)
    below = (row - steps).clamp(max=127)
    step_bytes = below.to(torch.uint8) | torch.where(sign < 0, 128, 0).to(torch.uint8)
    return sign * torch.exp2((row - below) / STEPS), torch.cat([step_bytes, _float_bytes(row.to(torch.int16))], dim=1)


def _largest(grouped: Tensor) -> tuple[Tensor, Tensor]:
    """(a group's largest magnitude, the sign of a scale that makes its code negative)."""
    low, high = grouped.amin(-1), grouped.amax(-1)
    return torch.maximum(-low, high), torch.where(high > -low, -1.0, 1.0)


def _best(grouped: Tensor, candidates: list[Tensor], least: int, top: int) -> tuple[Tensor, Tensor]:
    """Of the scales (N, groups) tried, (the one with the least squared error, which one it was)."""
    best = torch.full_like(candidates[0], float("inf"))
    best_scales, which = candidates[0], torch.zeros_like(candidates[0])
    for index, scales in enumerate(candidates):
        wide = scales.unsqueeze(-1)
        error = ((grouped / wide).round().clamp(least, top) * wide - grouped).square().sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        best_scales, which = torch.where(better, scales, best_scales), torch.where(better, float(index), which)
    return best_scales, which


def _pack_asymmetric(weight: Tensor, form: Format) -> Tensor:
    rows, columns = weight.shape
    groups, padded = grouping(columns, form)
    grouped = F.pad(weight.float(), (0, padded - columns), mode="replicate").view(rows, groups, -1)
    scales, minimums = _best_ranges(grouped, form, columns)
    codes = _codes_above(grouped, scales, minimums, form).view(rows, padded).to(torch.uint8)
    return torch.cat([_code_bytes(codes, form), _float_bytes(scales), _float_bytes(minimums)], dim=1)


def _best_ranges(grouped: Tensor, form: Format, columns: int) -> tuple[Tensor, Tensor]:
    """float16 (scales, minimums), (N, groups) each: the range of a group, clipped on both sides by a few factors."""
    top = 2**form.weight_bits - 1
    low, high = grouped.amin(-1), grouped.amax(-1)
    rest = grouped.shape[1] * grouped.shape[2] - columns
    best = torch.full_like(low, float("inf"))
    best_range = torch.full_like(low, LARGEST_SCALE, dtype=torch.float16), _to_half(low)
    for shrink in _SHRINK.tolist():
        margin = (high - low) * ((1 - shrink) / 2)
        # Rounded first, and the scale fitted to what it became: code 0 is then a weight of the group.
        minimums = _to_half(low + margin)
        base = minimums.float()
        steps = torch.maximum((high - margin - base) / top, base.abs() * _FINEST)
        scales = steps.clamp(SMALLEST_SCALE, LARGEST_SCALE).half()
        values = _codes_above(grouped, scales, minimums, form) * scales.float().unsqueeze(-1) + base.unsqueeze(-1)
        errors = (values - grouped).square()
        if rest:
            errors[:, -1, -rest:] = 0  # padding is excluded from the error
        error = errors.sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        best_range = torch.where(better, scales, best_range[0]), torch.where(better, minimums, best_range[1])
    return best_range


def _to_half(values: Tensor) -> Tensor:
    return values.clamp(-LARGEST_SCALE, LARGEST_SCALE).half()


def _codes_above(grouped: Tensor, scales: Tensor, minimums: Tensor, form: Format) -> Tensor:
    above = grouped - minimums.float().unsqueeze(-1)
    return (above / scales.float().unsqueeze(-1)).round().clamp(0, 2**form.weight_bits - 1)


def _code_bytes(codes: Tensor, form: Format) -> Tensor:
    """uint8 codes (N, padded K) -> their bytes."""
    if form.storage_bits == 8:
        return codes
    if form.storage_bits == 4:
        low, high = codes.chunk(2, dim=1)
        return low | (high << 4)
    low, high = (codes & 15).chunk(2, dim=1)
    first, second, third, fourth = (codes >> 4).chunk(4, dim=1)
    return torch.cat([low | (high << 4), first | (second << 2) | (third << 4) | (fourth << 6)], dim=1)


def _float_bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.uint8).view(values.shape[0], -1)


def _read_codes(packed: Tensor, form: Format, out: Tensor) -> None:
    """Write the codes into ``out`` (N, padded K), of any type that holds them."""
    padded = out.shape[1]
    if form.storage_bits == 8:
        data = packed[:, :padded]
        out.copy_(data.view(torch.int8) if form.symmetric else data)
        return
    nibbles = packed[:, : padded // 2]
    out[:, : padded // 2].copy_(nibbles & 15)
    out[:, padded // 2 :].copy_(nibbles >> 4)
    if form.storage_bits == 6:
        upper = packed[:, padded // 2 : padded // 4 * 3]
        for place, quarter in enumerate(out.chunk(4, dim=1)):
            quarter.add_(((upper >> (2 * place)) & 3) << 4)
    if form.symmetric:
        out.sub_(2 ** (form.storage_bits - 1))
