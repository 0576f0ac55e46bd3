"""What one evaluation of a network costs, in bits multiplied with bits."""

from __future__ import annotations

from torch import nn

from .convolutions import QuantizedConvolution
from .formats import FORMATS
from .label import format_of
from .layers import QuantizedLayer
from .sources import weight_bits

FLOAT_BITS = 16
"""Floats count as FP16 or BF16, whatever a CPU holds them in."""


def bit_cost(network: nn.Module, least_bits: int = 0) -> float:
    """Weight bits times activation bits relative to 16-bit floats, the mean over all weights of layers: in (0, 1].

    W8A8 is 1/4, W4A8 1/8, W4A4 1/16. Each weight counts alike, which is right for a network that sees all its tokens in
    every layer. ``least_bits`` of activations are those of a step, see ``least_activation_bits``.
    """
    cost = count = 0.0
    for module in network.modules():
        weight = module._parameters.get("weight")
        if weight is None or (weight.ndim < 2 and not isinstance(module, QuantizedLayer)):
            continue
        weights, bits, activations = _bits_of(module, weight, least_bits)
        cost, count = cost + weights * bits * activations, count + weights
    return cost / count / FLOAT_BITS**2 if count else 1.0


def _bits_of(module: nn.Module, weight: nn.Parameter, least: int) -> tuple[int, int, int]:
    """(how many weights, the bits of one, the bits of activations)"""
    if isinstance(module, QuantizedLayer):
        shape, count = module.shape, 1
        for side in shape:
            count *= side
        wide = FLOAT_BITS if isinstance(module, QuantizedConvolution) else max(least, module.activation_bits)
        return count, module.format.weight_bits, wide
    form = FORMATS.get(format_of(module))
    if form is not None:
        return weight.numel(), form.weight_bits, max(least, form.activation_bits)
    return weight.numel(), min(FLOAT_BITS, weight_bits(weight)), FLOAT_BITS
