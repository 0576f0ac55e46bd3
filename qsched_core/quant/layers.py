"""Layers that keep their weight packed, in plain torch: they run wherever torch runs."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .formats import Format
from .packing import pack, unpack


class QuantizedLayer(nn.Module):
    """A layer whose float weight, ``shape`` (N, …), lies in memory as ``weight`` uint8 (N, row bytes).

    All but the output channel is one row: an output's scales are its own, and its groups run along what is summed.
    """

    def __init__(self, packed: Tensor, bias: Tensor | None, shape: tuple[int, ...], form: Format):
        super().__init__()
        self.shape, self.format = tuple(shape), form
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    def like(cls, layer: nn.Module, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLayer:
        """The twin of a float ``layer``, with these values."""
        raise NotImplementedError

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with a float weight in place of its own; activations are rounded all the same."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_weight(x, self.dequantized(x.dtype, x.device))

    def dequantized(self, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """The weight that the codes stand for, in its own shape."""
        return self.unpacked(self.weight.to(device or self.weight.device), dtype)

    def unpacked(self, packed: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The float weight of bytes packed like ours."""
        return unpack(packed, prod(self.shape[1:]), self.format, dtype).reshape(self.shape)


class QuantizedLinear(QuantizedLayer):
    """``y = x·Wᵀ + b`` with W as packed integers and x rounded to integers per token.

    The products are summed in x's dtype: codes are exact in every float type the host uses, so this is the
    integer product, without needing a kernel for it.
    """

    def __init__(self, packed: Tensor, bias: Tensor | None, in_features: int, form: Format):
        super().__init__(packed, bias, (packed.shape[0], in_features), form)
        self.in_features, self.out_features = in_features, packed.shape[0]

    @classmethod
    def from_float(cls, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLinear:
        return cls(pack(weight, form), bias, weight.shape[1], form)

    @classmethod
    def like(cls, layer: nn.Linear, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLinear:
        return cls.from_float(weight, bias, form)

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x)
        if self.format.activation_bits == 16:
            return F.linear(x, weight, bias)
        codes, scale = quantize_tokens(x, self.format.activation_bits)
        # Codes near 1 in place of codes up to 127, still exact: float16 would overflow where a float layer does not.
        out = F.linear(codes / 64, weight) * (scale * 64)
        return out if bias is None else out + bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.format}"


class QuantizedConv2d(QuantizedLayer):
    """A convolution with packed weights (N, C/groups, kh, kw). Activations stay in floating point: a convolution has
    no tokens, and one scale for a whole picture would round its dark corners away."""

    def __init__(
        self,
        packed: Tensor,
        bias: Tensor | None,
        shape: tuple[int, ...],
        form: Format,
        *,
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] | str = (0, 0),
        dilation: tuple[int, ...] = (1, 1),
        groups: int = 1,
    ):
        super().__init__(packed, bias, shape, form)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    @classmethod
    def like(cls, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedConv2d:
        return cls(
            pack(weight.flatten(1), form), bias, weight.shape, form,
            stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups,
        )  # fmt: skip

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"{self.shape}, stride={self.stride}, padding={self.padding}, {self.format}"


def quantize_tokens(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes in x's dtype, scale (…, 1)): symmetric, dynamic, one scale per token (row of the last axis)."""
    top = 2 ** (bits - 1) - 1
    scale = x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny * 128) / top
    return (x / scale).round().clamp(-top, top), scale
