"""Our own packing in plain torch: every device, every host, every format. The readable reference."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..formats import Format
from ..layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear, multiplies_integers
from .base import Backend

TWINS: Mapping[type[nn.Module], type[QuantizedLayer]] = {nn.Linear: QuantizedLinear, nn.Conv2d: QuantizedConv2d}


class TorchBackend(Backend):
    """``twins`` maps float layers to the packed classes that stand in for them."""

    name = "torch"

    def __init__(self, twins: Mapping[type[nn.Module], type[QuantizedLayer]] = TWINS):
        self.twins = twins

    def missing(self, form: Format, device: torch.device) -> str:
        return ""

    def refusal(self, layer: nn.Module, form: Format) -> str:
        return "" if self._kind(layer) else f"torch packs no {type(layer).__name__}"

    def kernel(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        integers = isinstance(layer, nn.Linear) and multiplies_integers(form, device)
        return "torch's int8 product" if integers else "unpacks, float product"

    def fast(self, form: Format, device: torch.device) -> bool:
        return False

    def twin(self, layer: nn.Module, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLayer:
        return self._kind(layer).like(layer, weight, bias, form)

    def _kind(self, layer: nn.Module) -> type[QuantizedLayer] | None:
        return next((twin for kind, twin in self.twins.items() if isinstance(layer, kind)), None)
