"""Layers that somebody else packed, as sources of a packing: what they are, and how many bits their weights have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .inspection import stored_bytes
from .layers import QuantizedLayer


def is_layer(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether the module is of these kinds. A host's Linear over packed weights is no ``nn.Linear`` for Python, but it
    has the two widths of one, and a weight of that shape."""
    if isinstance(module, QuantizedLayer):  # a packed convolution over time is one for Python too
        return False
    return isinstance(module, kinds) or (nn.Linear in kinds and _is_linear(module))


def _is_linear(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    if weight is None:
        return False
    return tuple(weight.shape) == (getattr(module, "out_features", None), getattr(module, "in_features", None))


def weight_bits(weight: Tensor) -> int:
    """Bits of one weight, scales not counted. Of a tensor class the codes are what takes most bytes in it."""
    weight = weight.data if isinstance(weight, nn.Parameter) else weight
    if not is_traceable_wrapper_subclass(weight):
        return 8 * weight.element_size()
    names, _ = weight.__tensor_flatten__()
    return round(8 * max(stored_bytes(getattr(weight, name)) for name in names) / weight.numel())


def float_values(weight: Tensor) -> Tensor:
    """The float32 values of a plain weight, or of a tensor class that can be read."""
    weight = weight.data if isinstance(weight, nn.Parameter) else weight
    return (weight.dequantize() if is_traceable_wrapper_subclass(weight) else weight).float()
