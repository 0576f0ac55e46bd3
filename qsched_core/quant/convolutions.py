"""Convolutions that keep their weight packed, over pictures and over time."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoding import decode
from .formats import Format
from .layers import QuantizedLayer

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
"""The float layers that are packed as convolutions."""

OPTIONS = ("stride", "padding", "dilation", "groups")
"""What a convolution has beside its weight and bias."""

_CONVOLVE = {4: F.conv2d, 5: F.conv3d}
"""By the axes of the weight."""


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options) -> Tensor:
    """torch's convolution with a weight (N, C/groups, …) of two or three axes of places."""
    return _CONVOLVE[weight.ndim](x, weight, bias, **options)


def options_of(layer: nn.Module) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in OPTIONS}


def has_own_call(layer: nn.Module) -> bool:
    """Whether a convolution's class is more than torch's or a host's plain one: those of videos pad by themselves, and
    remember the frames before. What their weight meets is not what they are called with."""
    return isinstance(layer, CONVOLUTIONS) and type(layer).__name__ not in ("Conv2d", "Conv3d")


class QuantizedConvolution(QuantizedLayer):
    """A convolution with packed weights (N, C/groups, …). Activations stay in floating point: a convolution has no
    tokens, and one scale for a whole picture would round its dark corners away."""

    def __init__(
        self,
        packed: Tensor,
        bias: Tensor | None,
        shape: tuple[int, ...],
        form: Format,
        *,
        stride: tuple[int, ...] | None = None,
        padding: tuple[int, ...] | str | None = None,
        dilation: tuple[int, ...] | None = None,
        groups: int = 1,
    ):
        super().__init__(packed, bias, shape, form)
        axes = len(shape) - 2
        self.stride, self.dilation, self.groups = stride or (1,) * axes, dilation or (1,) * axes, groups
        self.padding = (0,) * axes if padding is None else padding
        # What other packs read of a convolution: of torch's own class, with the same meaning.
        self.out_channels, self.in_channels, self.kernel_size = shape[0], shape[1] * groups, tuple(shape[2:])
        self.padding_mode, self.transposed, self.output_padding = "zeros", False, (0,) * axes

    @classmethod
    def like(cls, layer: nn.Module, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedConvolution:
        return cls.of_bytes(layer, cls.pack(weight.flatten(1), form), bias, weight.shape, form)

    @classmethod
    def of_bytes(
        cls, layer: nn.Module, packed: Tensor, bias: Tensor | None, shape: tuple[int, ...], form: Format
    ) -> QuantizedConvolution:
        """The twin of a float ``layer`` whose weight of this ``shape`` is packed already."""
        return cls(packed, bias, shape, form, **options_of(layer))

    def product(self, inputs: Tensor) -> Tensor:
        packed = self.weight.to(inputs.device)
        columns = prod(self.shape[1:])
        # A large output takes the memory that the weight's codes had, and has no use for less of it.
        small_output = 2 * inputs[:, 0].numel() < columns
        weight = decode(packed, columns, self.format, inputs.dtype, in_little_memory=small_output)
        return self.convolved(inputs, weight.reshape(self.shape), self.bias)

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.input_scale is not None:
            weight = weight * self._input_scale_like(weight)
        return self.convolved(self.transformed(x), weight, self.bias)

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The float convolution with these values."""
        return convolve(x, weight, None if bias is None else bias.to(x), **options_of(self))

    def extra_repr(self) -> str:
        return f"{self.shape}, stride={self.stride}, padding={self.padding}, {self.format}"

    def _input_scale_like(self, values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return super()._input_scale_like(values, dtype).view(-1, *[1] * (len(self.shape) - 2))


class QuantizedConv2d(QuantizedConvolution):
    """A packed convolution over pictures: weights (N, C/groups, kh, kw)."""


class QuantizedConv3d(QuantizedConvolution, nn.Conv3d):
    """A packed convolution over time or space: weights (N, C/groups, kt, kh, kw).

    Networks of videos have their own classes of it, which pad in front alone, or remember frames of the call before;
    and they ask for their class by name. So a twin is of that class too, and ours stands in it where torch's stood:
    its forward is kept, and what it calls above itself is the packed convolution.
    """

    @classmethod
    def of_bytes(
        cls, layer: nn.Module, packed: Tensor, bias: Tensor | None, shape: tuple[int, ...], form: Format
    ) -> QuantizedConvolution:
        twin = super().of_bytes(layer, packed, bias, shape, form)
        if has_own_call(layer):
            twin.__class__ = _class_over(type(layer), cls)
            own = {name: value for name, value in vars(layer).items() if name not in vars(twin)}
            twin.__dict__.update(own)
        return twin

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, None if bias is None else bias.to(x))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None, *args, **kwargs) -> Tensor:
        if weight is self.weight:  # a class of videos that calls torch's forward past ours
            weight, bias = self.float_values(input)
        return super()._conv_forward(input, weight, bias, *args, **kwargs)

    def float_values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(weight, bias) as floats, of the type and on the device of an input."""
        return self.dequantized(x.dtype, x.device), None if self.bias is None else self.bias.to(x)


@cache
def _class_over(kind: type[nn.Module], packed: type[QuantizedConv3d]) -> type[QuantizedConv3d]:
    """``kind`` with ``packed`` between it and the plain convolution that it is made of."""
    return type(f"Packed{kind.__name__}", (kind, packed), {})
