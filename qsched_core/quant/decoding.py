"""Packed bytes to a weight in a run's own type, in as few passes as plain torch allows.

``packing.unpack`` is the readable truth, and this is compared with it. A GPU takes longer to launch a kernel than to
read the scales of a layer, so a row's codes are split in one pass, and their scale and offset are applied in another.
A code that lies higher in its byte is not shifted down: its scale is divided by as much, a power of two.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from . import fused
from .formats import Format
from .packing import LARGEST_STEP, SMALLEST_STEP, STEPS, grouping, in_steps, sixteen_bits, unpack

_SIXTEENS = (torch.float16, torch.bfloat16)

_GAINS = (1.0, 0.5, 0.25)
"""``rotation.input_gain`` of no rotation, of one over 16 columns, and over 64."""

_HIGH = 16
"""What a code in a byte's upper nibble is multiplied by."""

_NIBBLES = (15, 240)
"""Bits of the row's first half, and of its second."""

_NIBBLES_AND_UPPER = ((15, 240, 0, 0), (15, 240, 0, 0), (3, 12, 48, 192))
"""Of six bits: a third of a row's bytes holds the lower nibbles of two quarters of the columns, so does the next, and
the last holds the upper two bits of all four."""

_UPPER_FACTORS = ((16.0, 4.0), (16.0, 4.0))
"""What brings upper bits, as they lie, to 16 times their worth in the first half of the columns, 256 in the second."""

_constants: dict[tuple, Tensor] = {}
"""By device, and what it is: made before a call, see ``prepare``."""


def decode(
    packed: Tensor,
    columns: int,
    form: Format,
    dtype: torch.dtype,
    gain: float = 1.0,
    in_little_memory: bool = False,
) -> Tensor:
    """uint8 (N, ``row_bytes``) -> float weight (N, K) times ``gain``, a power of two. ``in_little_memory``: four bits
    take one operation more, and a third of a byte for each weight beside it, in place of a whole one."""
    groups, padded = grouping(columns, form)
    halves = 1 if form.storage_bits == 8 else 2
    one_group_in_two_halves = groups > 1 and groups % halves
    short = dtype in _SIXTEENS and not torch.compiler.is_compiling()
    if short and (weight := fused.decode(packed, columns, form, dtype, gain)) is not None:
        return weight[:, :columns]
    if not short or one_group_in_two_halves:
        weight = unpack(packed, columns, form, dtype)
        return weight if gain == 1 else weight * gain
    # First the scales: what they are looked up by is gone when the large ones are made.
    scale, offset = _scale_and_offset(packed, groups, padded, form, gain)
    if in_little_memory and form.storage_bits == 4:
        out, room, parts = _weight_and_room(packed.shape[0], padded, dtype, packed.device)
    else:
        out, room, parts = torch.empty(packed.shape[0], padded, dtype=dtype, device=packed.device), None, (slice(None),)
    codes = _codes(packed, padded, form, out, room)
    target = out.view(*scale.shape[:1], halves, scale.shape[2], -1)
    grouped = codes.unflatten(1, target.shape[1:])
    for part in parts:
        if offset is None:
            torch.mul(grouped[part], scale[part].unsqueeze(-1), out=target[part])
        else:
            torch.addcmul(offset[part].unsqueeze(-1), grouped[part], scale[part].unsqueeze(-1), out=target[part])
    return out[:, :columns]


def _weight_and_room(
    rows: int, padded: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, tuple[slice, slice]]:
    """(weight (N, padded K) of a 16-bit type, room for its codes (N, padded K), the two ranges of rows to be scaled one
    after the other). The room begins inside the weight and ends a third of its codes behind it: the first range ends
    where the codes begin, and what is left of them when the second is written lies behind the weight."""
    behind = -(-rows // 3)
    memory = torch.empty(2 * rows + behind, padded, dtype=torch.uint8, device=device)
    weight = memory[: 2 * rows].flatten().view(dtype).view(rows, padded)
    first = (rows + behind) // 2
    return weight, memory[rows + behind :], (slice(first), slice(first, None))


def _codes(packed: Tensor, padded: int, form: Format, out: Tensor, room: Tensor | None) -> Tensor:
    """(N, padded K) of the stored codes, those of the second half times ``_HIGH`` where two lie in a byte. ``out`` is
    what the weight will be written to: six bits are put together there. ``room``: where four bits are to lie."""
    if form.storage_bits == 8:
        data = packed[:, :padded]
        return data.view(torch.int8) if form.symmetric else data
    if form.storage_bits == 4:
        there = None if room is None else room.unflatten(1, (2, -1))
        return torch.bitwise_and(packed[:, None, : padded // 2], _masks(packed.device, _NIBBLES), out=there).flatten(1)
    thirds = packed[:, : padded // 4 * 3].unflatten(1, (3, 1, -1))
    parts = torch.bitwise_and(thirds, _masks(packed.device, _NIBBLES_AND_UPPER))
    lower, upper = parts[:, :2, :2].transpose(1, 2), parts[:, 2].unflatten(1, (2, 2))
    torch.addcmul(lower, upper, _upper_factors(out.device, out.dtype), out=out.view(-1, 2, 2, padded // 4))
    return out


def prepare(device: torch.device) -> None:
    """Make what ``decode`` keeps for a device: outside of a block whose allocations a host replays."""
    for gain in _GAINS:
        _table(device, gain)
        for bits in (4, 6, 8):
            for symmetric in (True, False):
                _factors(device, bits, symmetric, gain)
    for masks in (_NIBBLES, _NIBBLES_AND_UPPER):
        _masks(device, masks)
    for dtype in _SIXTEENS:
        _upper_factors(device, dtype)
    _stride(device)
    _halves(device)
    fused.prepare(device)


def _scale_and_offset(
    packed: Tensor, groups: int, padded: int, form: Format, gain: float
) -> tuple[Tensor, Tensor | None]:
    """float32 (N, halves, groups / halves) each: a weight is what ``_codes`` gives times the scale, plus the offset. A
    row of one group has it in both halves."""
    start, device = padded * form.storage_bits // 8, packed.device
    halves = 1 if form.storage_bits == 8 else min(groups, 2)
    if in_steps(form):
        steps, row = packed[:, start : start + groups], sixteen_bits(packed[:, start + groups :], torch.int16)
        index = torch.addcmul(steps, row, _stride(device)).unflatten(1, (halves, -1))
        pairs = _table(device, gain)[_halves(device), index].view(torch.float32).unflatten(-1, (-1, 2))
        return pairs[..., 0], pairs[..., 1]
    floats = sixteen_bits(packed[:, start:], torch.float16)
    kinds = 1 if form.symmetric else 2
    # (N, kinds, halves, groups / halves): a symmetric format has no minimums, and its scale gives both.
    values = floats.unflatten(1, (kinds, halves, -1)) * _factors(device, form.storage_bits, form.symmetric, gain)
    return values[:, 0], values[:, 1] if values.shape[1] == 2 else None


def _keep(key: tuple, make) -> Tensor:
    """It may be asked for again where gradients are."""
    if key not in _constants:
        with torch.inference_mode(False):
            _constants[key] = make().to(key[0])
    return _constants[key]


def _masks(device: torch.device, masks: tuple) -> Tensor:
    return _keep((device, masks), lambda: torch.tensor(masks, dtype=torch.uint8).unsqueeze(-1))


def _upper_factors(device: torch.device, dtype: torch.dtype) -> Tensor:
    return _keep((device, _UPPER_FACTORS, dtype), lambda: torch.tensor(_UPPER_FACTORS, dtype=dtype).unsqueeze(-1))


def _factors(device: torch.device, bits: int, symmetric: bool, gain: float) -> Tensor:
    """(kinds, halves, 1): what the stored numbers are multiplied by, to be scales and offsets."""

    def make() -> Tensor:
        scale = torch.tensor([1.0] if bits == 8 else [1.0, 1 / _HIGH]) * gain
        if symmetric and bits == 8:  # stored with their sign
            return scale.view(1, 1, 1)
        # Others have half of their range added.
        offset = torch.full_like(scale, gain * (-(2.0 ** (bits - 1)) if symmetric else 1.0))
        return torch.stack([scale, offset]).unsqueeze(-1)

    return _keep((device, "factors", bits, symmetric, gain), make)


def _table(device: torch.device, gain: float) -> Tensor:
    """int64 (2, numbers) of two float32, the scale and the offset, at 256 * row + byte; the second for ``_HIGH`` codes.
    Rows below 0 are at its end: an index from the end finds them."""

    def make() -> Tensor:
        rows = torch.tensor([*range(LARGEST_STEP + 1), *range(SMALLEST_STEP, 0)])
        byte = torch.arange(256)
        size = torch.exp2((rows[:, None] - (byte & 127)).float() / STEPS) * gain
        scale = torch.where(byte > 127, -size, size).flatten()
        pairs = torch.stack([torch.stack([scale / part, -8 * scale], dim=1) for part in (1, _HIGH)])
        return pairs.view(torch.int64).squeeze(-1)

    return _keep((device, "table", gain), make)


def _stride(device: torch.device) -> Tensor:
    """256 as int64: with bytes and int16 alone the index would be computed in int16."""
    return _keep((device, "stride"), partial(torch.tensor, [256]))


def _halves(device: torch.device) -> Tensor:
    """(2, 1): which of the two rows of ``_table``."""
    return _keep((device, "halves"), partial(torch.tensor, [[0], [1]]))
