"""What a packed weight is, whoever packed it: our bytes, or a tensor class of a library."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .layers import QuantizedLayer


def is_packed(module: nn.Module) -> bool:
    """Whether the module's weight is quantised, by us or in a tensor class of its own."""
    weight = module._parameters.get("weight")
    return isinstance(module, QuantizedLayer) or (weight is not None and type(weight.data) is not Tensor)


def packed_weight(module: nn.Module) -> Tensor:
    """The float32 weight that a packed layer stands for."""
    if isinstance(module, QuantizedLayer):
        return module.dequantized()
    return module.weight.data.dequantize().float()


def stored_bytes(tensor: Tensor) -> int:
    """Bytes in memory; of a tensor class, those of everything inside it."""
    tensor = tensor.data if isinstance(tensor, nn.Parameter) else tensor
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return sum(stored_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


def floats_as_half(tensor: Tensor) -> int:
    """``stored_bytes`` with plain floats counted as FP16, whatever a CPU holds them in, and those of 8 bits as such."""
    plain = type(tensor.data) is Tensor and tensor.is_floating_point() and tensor.element_size() > 1
    return 2 * tensor.numel() if plain else stored_bytes(tensor)
