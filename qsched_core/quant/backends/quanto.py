"""Weights rounded by optimum-quanto, an optional package, kept in our bytes: its unpacking is compiled at first use.

Its activations have static scales, which diffusion's changing steps do not fit, so it rounds weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..convolutions import QuantizedConv2d, QuantizedConv3d
from ..formats import Format, resolve_format
from ..layers import QuantizedLayer, QuantizedLinear
from ..packing import LARGEST_SCALE, SMALLEST_SCALE
from .torch import TorchBackend

GROUP = 64
"""Divides what Stable Diffusion's layers sum over (320, 640, 1280), and takes with its minimums what symmetric groups
of 32 do. quanto's own 128 does not fit 320."""


def pack(weight: Tensor, form: Format) -> Tensor:
    """Float weight (N, K) -> uint8 in the layout of ``packing.unpack``. Scales and codes are quanto's: 4 bits between
    the least and the largest weight of a group, 8 bits up to the absolute maximum of an output channel.

    Codes are chosen for the scales as float16 holds them. Without a group that divides K, or with one output channel,
    quanto packs nothing: see ``QuantoBackend.refusal``.
    """
    from optimum.quanto import tensor
    from optimum.quanto.tensor.packed import pack_weights

    quantize, rows = torch.ops.quanto, weight.shape[0]
    wide = weight.float()
    if form.weight_bits == 8:
        scale = _held(tensor.AbsmaxOptimizer()(wide, tensor.qint8, 0), SMALLEST_SCALE)
        codes = quantize.quantize_symmetric(wide, torch.int8, 0, scale).view(torch.uint8)
        return torch.cat([codes, _bytes(scale, rows)], dim=1)
    group = form.group_size or None
    scale, shift = tensor.MaxOptimizer()(wide, tensor.qint4, 0, group)
    scale, shift = _held(scale, SMALLEST_SCALE), _held(shift, -LARGEST_SCALE)
    codes = quantize.quantize_affine(wide, 4, 0, group, scale, shift).view(rows, -1)
    # Its nibbles pair the halves of the first axis, ours the halves of a row.
    return torch.cat([pack_weights(codes.t(), 4).t(), _bytes(scale, rows), _bytes(-shift, rows)], dim=1)


def _import_quanto() -> None:
    import optimum.quanto  # noqa: F401


def _held(values: Tensor, least: float) -> Tensor:
    return values.clamp(least, LARGEST_SCALE).half().float()


def _bytes(values: Tensor, rows: int) -> Tensor:
    return values.half().view(rows, -1).view(torch.uint8)


class QuantoLayer:
    """Mixed into our packed layers: a new weight is rounded as quanto does it. Reading one does not need quanto."""

    pack = staticmethod(pack)
    rotates = False


class QuantoLinear(QuantoLayer, QuantizedLinear):
    """A Linear with weights rounded by quanto."""


class QuantoConv2d(QuantoLayer, QuantizedConv2d):
    """A convolution with weights rounded by quanto."""


class QuantoConv3d(QuantoLayer, QuantizedConv3d):
    """A convolution over time with weights rounded by quanto."""


TWINS: Mapping[type[nn.Module], type[QuantizedLayer]] = {
    nn.Linear: QuantoLinear,
    nn.Conv2d: QuantoConv2d,
    nn.Conv3d: QuantoConv3d,
}


class QuantoBackend(TorchBackend):
    """``twins`` maps float layers to those of our packed classes that have ``QuantoLayer`` in them.

    Computes as the torch backend does: quanto's kernels are compiled on the user's machine, for layouts of their own.
    """

    name = "quanto"

    def __init__(self, twins: Mapping[type[nn.Module], type[QuantizedLayer]] = TWINS):
        super().__init__(twins)

    def form(self, format: str, group_size: int | None = None, symmetric: bool = True) -> Format:
        form = resolve_format(format, group_size, symmetric)
        if form.weight_bits != 4:
            return form
        # "symmetric" is what everybody gets who does not choose; quanto's 4 bits are not, and the report says so.
        return replace(form, group_size=GROUP if group_size is None else group_size, symmetric=False)

    def missing(self, form: Format, device: torch.device) -> str:
        if form.activation_bits != 16:
            return "activation scales are static, use w4a16 or w8a16"
        if form.weight_bits not in (4, 8):
            return "it has 4 and 8 bits"
        if form.weight_bits == 8 and form.group_size:
            return "its 8 bits have one scale per channel"
        if form.symmetric != (form.weight_bits == 8):
            return f"its {form.weight_bits} bits are {'asymmetric' if form.symmetric else 'symmetric'}"
        try:
            _import_quanto()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "optimum":
                return "it is not installed, pip install optimum-quanto"
            return f"it cannot be imported ({error})"
        except Exception as error:  # noqa: BLE001 - a broken install must not break the others
            return f"it cannot be imported ({error})"
        return ""

    def refusal(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        if self._kind(layer) is None:
            return f"quanto packs no {type(layer).__name__}"
        rows, columns = layer.weight.shape[0], layer.weight[0].numel()
        if rows == 1:
            return "quanto packs no single output channel"
        if form.group_size and columns % form.group_size:
            return f"{columns} inputs are no multiple of the group, {form.group_size}"
        return self.trial(form, device)
