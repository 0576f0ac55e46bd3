"""A Linear layer that keeps its weight packed, in plain torch: it runs wherever torch runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .formats import Format
from .packing import pack, unpack


class QuantizedLinear(nn.Module):
    """``y = x·Wᵀ + b`` with W as packed integers (``weight`` uint8) and x rounded to integers per token.

    The products are summed in x's dtype: codes are exact in every float type the host uses, so this is the
    integer product, without needing a kernel for it.
    """

    def __init__(self, packed: Tensor, bias: Tensor | None, in_features: int, form: Format):
        super().__init__()
        self.in_features, self.out_features, self.format = in_features, packed.shape[0], form
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    def from_float(cls, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLinear:
        return cls(pack(weight, form), bias, weight.shape[1], form)

    def dequantized(self, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """The weight (N, K) that the codes stand for."""
        return unpack(self.weight.to(device or self.weight.device), self.in_features, self.format, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_weight(x, self.dequantized(x.dtype, x.device))

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with a float weight (N, K) in place of its own; activations are rounded all the same."""
        bias = None if self.bias is None else self.bias.to(x)
        if self.format.activation_bits == 16:
            return F.linear(x, weight, bias)
        codes, scale = quantize_tokens(x, self.format.activation_bits)
        # Codes near 1 in place of codes up to 127, still exact: float16 would overflow where a float layer does not.
        out = F.linear(codes / 64, weight) * (scale * 64)
        return out if bias is None else out + bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.format}"


def quantize_tokens(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes in x's dtype, scale (…, 1)): symmetric, dynamic, one scale per token (row of the last axis)."""
    top = 2 ** (bits - 1) - 1
    scale = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny * 128) / top
    return (x / scale).round().clamp(-top, top), scale
