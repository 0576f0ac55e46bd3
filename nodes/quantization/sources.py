"""MODELs that others quantised, as sources: read back one layer at a time, or refused with the way that works."""

from __future__ import annotations

import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ...qsched_core import QuantizationError
from ...qsched_core.quant import is_packed
from .layers import PatchedAtOutput

_OTHER_WAY = (
    "leave this node out: Q-Sched Sampler, Apply Q-Sched and JAQ Calibrate work over this model as it is; or load its "
    "BF16, fp8 or int8 file and quantise that"
)

_HOLDS_FLOAT8 = torch.bfloat16
"""Every number of both 8-bit floats is one of its own, and of float16's too."""

_SMOOTHING = "pre_quant_scale"
"""The host's layers multiply their input by it (ModelOpt's AWQ), so it belongs to the columns of the weight."""


def require_readable(network: nn.Module) -> None:
    """Weights as floats, in the host's own quantised tensors, or as bare 8-bit floats can be read.

    Raises:
        QuantizationError: it was quantised here already, or by a pack whose weights only that pack can read.
    """
    for name, module in network.named_modules():
        if isinstance(module, PatchedAtOutput):
            raise QuantizationError(
                "this model is quantised already.", "plug in the model as it was loaded", layer=name
            )
        if pack := _foreign_pack(module):
            raise QuantizationError(f"this model is one of {pack}.", _OTHER_WAY, layer=name)
        weight = module._parameters.get("weight")
        if weight is None or is_source(module) or (type(weight.data) is Tensor and weight.is_floating_point()):
            continue
        if type(weight.data) is not Tensor or weight.dtype.itemsize == 1:
            kind = f"{type(weight.data).__name__} of {weight.dtype}"
            raise QuantizationError(
                "this model is quantised already.", f"{_OTHER_WAY} ({name} holds {kind})", layer=name
            )


def _foreign_pack(module: nn.Module) -> str:
    """The pack whose own layers these are, told by what its layers have and no others do."""
    values = {**module._parameters, **module._buffers}
    weight = values.get("weight")
    if hasattr(weight, "tensor_type") and hasattr(weight, "tensor_shape"):
        return "ComfyUI-GGUF, and its weights are its own"
    if "qweight" in values and ("wscales" in values or "wtscale" in values):
        return "nunchaku, and its weights are its own"
    return ""


def is_source(layer: nn.Module) -> bool:
    """Whether somebody else packed this layer, in a tensor class of the host's that can be read back."""
    weight = layer._parameters.get("weight")
    return isinstance(weight, QuantizedTensor) and is_packed(layer) and not isinstance(layer, PatchedAtOutput)


def float_value(layer: nn.Module, leaf: str, value: Tensor) -> Tensor:
    """A parameter of a layer as floats: ``value`` is what lies in memory of it, as it was loaded.

    A rotated one is turned back. That costs no precision, though ours may be the same rotation: both are orthogonal.
    """
    value = value.data if isinstance(value, nn.Parameter) else value
    if isinstance(value, QuantizedTensor):
        value = value.dequantize()
    elif value.is_floating_point() and value.element_size() == 1:
        value = value.to(_HOLDS_FLOAT8)
    scale = getattr(layer, _SMOOTHING, None) if leaf == "weight" else None
    return value if scale is None else value.float() * scale.to(value.device, torch.float32)


def copied(value: Tensor, device: torch.device) -> Tensor:
    """Its own bytes on the device. The host's tensors answer ``to(copy=True)`` with the memory that they have."""
    return value.detach().clone().to(device) if type(value.data) is not Tensor else value.to(device, copy=True)
