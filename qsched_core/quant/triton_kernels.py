"""One pass from packed bytes to a weight, and one over tokens, for machines that have Triton: only ``fused`` imports
this."""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = 1024
"""Bytes of codes that a program unpacks."""


@triton.jit(do_not_specialize=["stride", "half", "groups", "gain"])
def unpack_kernel(
    packed, out, stride, half, groups, gain, GROUP: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr
):
    """A row's codes in one block: ``half`` bytes of them, then a byte for each group, then the row's own number."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < half
    start = packed + row * stride
    codes = tl.load(start + column, mask=inside, other=0).to(tl.int32)
    low = tl.load(start + half + groups).to(tl.int32)
    high = tl.load(start + half + groups + 1).to(tl.int32)
    largest = (((high << 8) | low) ^ 0x8000) - 0x8000  # of 16 bits, with a sign
    for part in tl.static_range(2):
        place = column + part * half
        step = tl.load(start + half + place // GROUP, mask=inside, other=0).to(tl.int32)
        size = tl.exp2((largest - (step & 127)).to(tl.float32) / STEPS) * gain
        code = ((codes >> (4 * part)) & 15) - 8
        weight = code.to(tl.float32) * tl.where(step > 127, -size, size)
        tl.store(out + row * (2 * half) + place, weight.to(out.dtype.element_ty), mask=inside)


def unpack(packed, out, groups: int, group: int, steps: int, gain: float) -> None:
    """uint8 (N, row bytes) into ``out`` (N, padded K), contiguous. ``steps`` of a scale are a factor of two."""
    rows, half = out.shape[0], out.shape[1] // 2
    grid = (rows, triton.cdiv(half, BLOCK))
    unpack_kernel[grid](packed, out, packed.stride(0), half, groups, float(gain), group, steps, BLOCK)


@triton.jit(do_not_specialize=["columns", "least"])
def round_kernel(x, out, columns, least, TOP: tl.constexpr, NO_FRACTIONS: tl.constexpr, BLOCK: tl.constexpr):
    """A token: a scale for its largest, and its values as whole numbers of it. float32 has no fractions above 2^23."""
    start = tl.program_id(0).to(tl.int64) * columns
    column = tl.arange(0, BLOCK)
    inside = column < columns
    token = tl.load(x + start + column, mask=inside, other=0).to(tl.float32)
    scale = tl.max(tl.abs(token), axis=0) / TOP + least
    code = (token / scale + NO_FRACTIONS) - NO_FRACTIONS
    tl.store(out + start + column, (code * scale).to(out.dtype.element_ty), mask=inside)


def round_tokens(x, out, top: int, least: float) -> None:
    """Tokens x (..., K) into ``out``, both contiguous: codes up to ``top`` times a scale, at least ``least``."""
    columns = x.shape[-1]
    block = triton.next_power_of_2(columns)
    warps = min(16, max(4, block // 1024))
    round_kernel[(x.numel() // columns,)](x, out, columns, least, top, 1.5 * 2**23, block, num_warps=warps)
