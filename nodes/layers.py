"""Our packed layers under the host's weight protocol."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..qsched_core.quant import QuantizedConv2d, QuantizedLinear, QuantoConv2d, QuantoLinear


class _HostWeight:
    """The host's weight protocol over packed bytes, so that LoRA, offload and partial loading work.

    ``convert_weight`` and ``set_weight`` are what the host calls around a LoRA: packed -> float -> packed again.
    ``comfy_cast_weights`` lets it leave the packed weight on the CPU; ``weight_function`` then holds the patches.
    """

    comfy_cast_weights = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight_function: list[Callable[[Tensor], Tensor]] = []
        self.bias_function: list[Callable[[Tensor], Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.weight_function:
            return super().forward(x)
        weight = self.dequantized(x.dtype, x.device)
        for function in self.weight_function:
            weight = function(weight)
        return self.apply_weight(x, weight)

    def convert_weight(self, weight: Tensor, inplace: bool = False, **kwargs) -> Tensor:
        # The host may have cast the bytes to a float type on the way; 0 … 255 are exact in all of them.
        return self.unpacked(weight.to(torch.uint8))

    def set_weight(self, weight: Tensor, inplace_update=False, seed=None, return_weight=False, **kwargs):
        packed = self.packed(weight)
        if return_weight:
            return packed
        if inplace_update:
            self.weight.data.copy_(packed)
        else:
            self.weight = nn.Parameter(packed, requires_grad=False)
        return None


class HostLinear(_HostWeight, QuantizedLinear):
    """A packed Linear of the host."""


class HostConv2d(_HostWeight, QuantizedConv2d):
    """A packed Conv2d of the host."""


class HostQuantoLinear(_HostWeight, QuantoLinear):
    """A Linear of the host with weights rounded by quanto."""


class HostQuantoConv2d(_HostWeight, QuantoConv2d):
    """A Conv2d of the host with weights rounded by quanto."""


TWINS = {nn.Linear: HostLinear, nn.Conv2d: HostConv2d}
QUANTO_TWINS = {nn.Linear: HostQuantoLinear, nn.Conv2d: HostQuantoConv2d}
