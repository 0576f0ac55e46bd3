"""Packed bytes to a weight in a run's own type, in as few passes as plain torch allows.

``packing.unpack`` is the readable truth, and this is compared with it. A GPU takes longer to launch a kernel than to
read the scales of a layer, so those come from a table, and a code's offset and its scale are applied in one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .formats import Format
from .packing import LARGEST_STEP, SMALLEST_STEP, STEPS, grouping, in_steps, scales, unpack

_SIXTEENS = (torch.float16, torch.bfloat16)

_tables: dict[tuple[torch.device, float], Tensor] = {}
_strides: dict[torch.device, Tensor] = {}


def decode(packed: Tensor, columns: int, form: Format, dtype: torch.dtype, gain: float = 1.0) -> Tensor:
    """uint8 (N, ``row_bytes``) -> float weight (N, K) times ``gain``, a power of two."""
    if dtype not in _SIXTEENS or torch.compiler.is_compiling():
        weight = unpack(packed, columns, form, dtype)
        return weight if gain == 1 else weight * gain
    groups, padded = grouping(columns, form)
    out = torch.empty(packed.shape[0], padded, dtype=dtype, device=packed.device)
    scale, offset = _scale_and_offset(packed, columns, form, gain)
    if form.storage_bits == 8:
        data = packed[:, :padded]
        codes = data.view(torch.int8) if form.symmetric else data
    else:
        nibbles, codes = packed[:, : padded // 2], out
        torch.bitwise_and(nibbles, 15, out=out[:, : padded // 2])
        torch.bitwise_right_shift(nibbles, 4, out=out[:, padded // 2 :])
        if form.storage_bits == 6:
            _add_upper(packed[:, padded // 2 : padded // 4 * 3], out)
    grouped, target = codes.unflatten(1, (groups, -1)), out.unflatten(1, (groups, -1))
    if offset is None:
        torch.mul(grouped, scale.unsqueeze(-1), out=target)
    else:
        torch.addcmul(offset.unsqueeze(-1), grouped, scale.unsqueeze(-1), out=target)
    return out[:, :columns]


def _add_upper(upper: Tensor, out: Tensor) -> None:
    """The two upper bits of six, four to a byte (N, K/4): of a quarter of the columns each."""
    for place, quarter in enumerate(out.chunk(4, dim=1)):
        bits = upper if place == 0 else upper >> (2 * place)
        quarter.add_(bits if place == 3 else bits & 3, alpha=16)


def prepare(device: torch.device) -> None:
    """Make what ``decode`` keeps for a device: outside of a block whose allocations a host replays."""
    if device.type != "meta":
        for gain in (1.0, 0.5, 0.25):
            _table(device, gain)
        _stride(device)


def _scale_and_offset(packed: Tensor, columns: int, form: Format, gain: float) -> tuple[Tensor, Tensor | None]:
    """float32 (N, groups) each: a weight is its stored code times the scale, plus the offset."""
    groups, padded = grouping(columns, form)
    if in_steps(form):
        start = padded // 2
        steps = packed[:, start : start + groups]
        index = torch.addcmul(steps, _rows(packed[:, start + groups :]), _stride(packed.device))
        pairs = torch.take(_table(packed.device, gain), index).view(torch.float32).view(-1, groups, 2)
        return pairs[..., 0], pairs[..., 1]
    values = scales(packed, columns, form).float()
    if gain != 1:
        values.mul_(gain)
    if not form.symmetric:
        return values[:, :groups], values[:, groups:]
    # Codes of whole bytes are stored with their sign, those of fewer bits with half of their range added.
    return values, None if form.storage_bits == 8 else values * -(2.0 ** (form.storage_bits - 1))


def _rows(data: Tensor) -> Tensor:
    """The int16 of each row, from bytes (N, 2) that may start at an odd address."""
    if data.storage_offset() % 2 or data.stride(0) % 2:
        data = data.clone(memory_format=torch.contiguous_format)
    return data.view(torch.int16)


def _table(device: torch.device, gain: float) -> Tensor:
    """int64 of two float32, the scale and -8 times it, at 256 * row + byte. Rows below 0 are at its end: an index from
    the end finds them."""
    found = _tables.get((device, gain))
    if found is None:
        with torch.inference_mode(False):
            rows = torch.tensor([*range(LARGEST_STEP + 1), *range(SMALLEST_STEP, 0)])
            byte = torch.arange(256)
            size = torch.exp2((rows[:, None] - (byte & 127)).float() / STEPS) * gain
            scale = torch.where(byte > 127, -size, size).flatten()
            pairs = torch.stack([scale, -8 * scale], dim=1).contiguous()
            found = _tables[device, gain] = pairs.view(torch.int64).flatten().to(device)
    return found


def _stride(device: torch.device) -> Tensor:
    """256 as int64: with bytes and int16 alone the index would be computed in int16."""
    if device not in _strides:
        with torch.inference_mode(False):
            _strides[device] = torch.tensor([256], device=device)
    return _strides[device]
