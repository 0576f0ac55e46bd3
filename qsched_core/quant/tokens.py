"""Activations as integers: symmetric codes times one scale per token (row of the last axis).

``quantize_tokens`` is the readable truth. In 16 bits there is a way with fewer passes: float16 has no fractions between
1024 and 2048, so that what is stored there is rounded; the next pass takes ``_NO_FRACTIONS`` off and scales it back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import fused

_SIXTEENS = (torch.float16, torch.bfloat16)

_NO_FRACTIONS = 1536.0
"""In the middle of those: as float16 it has zeros where the sum with a code of 8 bits has that code."""

_LEAST_SCALE = torch.finfo(torch.float32).tiny * 2.0**24
"""Keeps a token of zeros from a division by zero."""

_middles: dict[torch.device, Tensor] = {}


def rounded_tokens(x: Tensor, bits: int, in_place: bool = False) -> Tensor:
    """Tokens as so many bits hold them, 16: ``x``. ``in_place``: nobody else reads ``x``, and its memory takes the
    result where no gradient needs it: beside a wide layer's unpacked weight, a copy of its inputs is a fifth more."""
    if bits == 16:
        return x
    if x.requires_grad or torch.compiler.is_compiling():
        scale = token_scale(x, bits)
        return ((x / scale).round() * scale).to(x.dtype)
    tokens = fused.rounded(x, bits, _LEAST_SCALE, in_place)
    if tokens is not None:
        return tokens
    out = x if in_place else torch.empty_like(x)
    if x.dtype not in _SIXTEENS:
        scale = token_scale(x, bits)
        return torch.div(x, scale, out=out).round_().mul_(scale)
    # -1536 times the scale: it is what is divided by, and what the codes are scaled with and moved back by.
    negative_scale = _from_largest(_largest(x), -_NO_FRACTIONS, bits)
    there = x.view(torch.float16) if in_place else _float16_like(x)
    codes = torch.addcdiv(_middle(x.device), x, negative_scale, value=-_NO_FRACTIONS, out=there)
    return torch.addcmul(negative_scale, codes, negative_scale, value=-1 / _NO_FRACTIONS, out=out)


def token_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 codes (R, K), each token's largest magnitude (R, 1), 127 times its scale) of tokens x (…, K).

    The codes of a token of zeros are arbitrary.
    """
    largest = _largest(x)
    codes = torch.addcdiv(_middle(x.device), x, largest, value=127, out=_float16_like(x))
    lower_bytes = codes.view(torch.int8).unflatten(-1, (-1, 2))[..., 0]
    return lower_bytes.reshape(-1, x.shape[-1]).contiguous(), largest.reshape(-1, 1)


def token_scale(x: Tensor, bits: int) -> Tensor:
    """(..., 1), at least float32: float16 holds no scale of a token below 0.008 well. Codes reach 2^(bits-1) - 1."""
    return _from_largest(_largest(x), 1.0, bits)


def quantize_tokens(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes in x's dtype, scale (..., 1)) of ``rounded_tokens``."""
    scale = token_scale(x, bits)
    return (x / scale).round().to(x.dtype), scale


def prepare(device: torch.device) -> None:
    """Make what is kept for a device: outside of a block whose allocations a host replays."""
    _middle(device)


def _largest(x: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.device.type == "cpu":  # where the norm goes value by value, ten to twenty times as long as these two
        return x.abs().amax(-1, keepdim=True).to(wide)
    return torch.linalg.vector_norm(x, float("inf"), dim=-1, keepdim=True, dtype=wide)


def _from_largest(largest: Tensor, factor: float, bits: int) -> Tensor:
    """``factor`` times the scale. One kernel for that and for what keeps a token of zeros from a division by zero."""
    least = factor * (_LEAST_SCALE if largest.dtype == torch.float32 else torch.finfo(largest.dtype).tiny * 2.0**24)
    return torch.rsub(largest, least, alpha=-factor / (2 ** (bits - 1) - 1))


def _float16_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.float16, device=x.device)


def _middle(device: torch.device) -> Tensor:
    if device not in _middles:
        with torch.inference_mode(False):  # it may be asked for again where gradients are
            _middles[device] = torch.tensor([_NO_FRACTIONS], device=device)
    return _middles[device]
