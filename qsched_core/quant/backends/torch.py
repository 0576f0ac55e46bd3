"""Our own packing in plain torch: every device, every host, every format. The readable reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..formats import Format
from ..layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear, multiplies_integers, rounded_tokens
from ..packing import grid_of, recoded
from ..rounding import Fitting
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

    def fitting(self, layer: nn.Module, twin: QuantizedLayer, weight: Tensor, form: Format) -> Fitting:
        columns, groups = weight[0].numel(), getattr(layer, "groups", 1)
        bits = 16 if isinstance(layer, nn.Conv2d) else form.activation_bits

        def inputs(rows: Tensor) -> Tensor:
            rows = twin.transformed(rows)
            return rows[None] if rows.ndim == 2 else rows.unflatten(1, (groups, -1)).flatten(2).transpose(0, 1)

        def write(codes: Tensor) -> Callable[[], None]:
            before = twin.weight.data
            twin.weight.data = recoded(before, codes, form)
            return lambda: setattr(twin.weight, "data", before)

        return Fitting(
            twin.packable(weight.to(twin.weight.device)).view(groups, -1, columns),
            inputs,
            partial(rounded_tokens, bits=bits),
            [grid_of(part, columns, form) for part in twin.weight.data.chunk(groups)],
            write,
            channel=weight[0, 0].numel(),
        )

    def _kind(self, layer: nn.Module) -> type[QuantizedLayer] | None:
        return next((twin for kind, twin in self.twins.items() if isinstance(layer, kind)), None)
