"""Our own packing in plain torch: every device, every host, every format. The readable reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import Linear

from ..convolutions import CONVOLUTIONS, QuantizedConv2d, QuantizedConv3d
from ..formats import Format
from ..layers import QuantizedLayer, QuantizedLinear, multiplies_integers, prepare
from ..packing import grid_of, recoded
from ..rounding import Fitting
from ..sources import is_layer
from ..tokens import rounded_tokens
from ..trial import ROWS, numbers, relative_error, trial
from .base import Backend

TWINS: Mapping[type[nn.Module], type[QuantizedLayer]] = {
    nn.Linear: QuantizedLinear,
    nn.Conv2d: QuantizedConv2d,
    nn.Conv3d: QuantizedConv3d,
}


class TorchBackend(Backend):
    """``twins`` maps float layers to the packed classes that stand in for them. ``dtype`` is what they will compute in,
    None: what is usual on the device."""

    name = "torch"

    def __init__(self, twins: Mapping[type[nn.Module], type[QuantizedLayer]] = TWINS, dtype: torch.dtype | None = None):
        self.twins, self.dtype = twins, dtype

    def missing(self, form: Format, device: torch.device) -> str:
        return ""

    def refusal(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        if self._kind(layer) is None:
            return f"torch packs no {type(layer).__name__}"
        return self.trial(form, device)

    def trial(self, form: Format, device: torch.device) -> str:
        if device.type == "meta":  # torch only plans there, nothing is computed
            return ""
        prepare(device)
        dtype = self.dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        key = (self.name, str(form), dtype, str(device))
        return trial(key, lambda: _try(self.twins[nn.Linear], form, device, dtype))

    def kernel(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        integers = not isinstance(layer, CONVOLUTIONS) and multiplies_integers(form, device)
        return "torch's int8 product" if integers else "unpacks, float product"

    def fast(self, form: Format, device: torch.device) -> bool:
        return False

    def twin(self, layer: nn.Module, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLayer:
        return self._kind(layer).like(layer, weight, bias, form)

    def fitting(self, layer: nn.Module, twin: QuantizedLayer, weight: Tensor, form: Format) -> Fitting:
        columns, groups = weight[0].numel(), getattr(layer, "groups", 1)
        bits = 16 if isinstance(layer, CONVOLUTIONS) else form.activation_bits

        def inputs(rows: Tensor) -> Tensor:
            rows = twin.transformed(rows.float())  # of float16 it differs by a factor, for which the product makes up
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
        return next((twin for kind, twin in self.twins.items() if is_layer(layer, (kind,))), None)


def _try(kind: type[QuantizedLayer], form: Format, device: torch.device, dtype: torch.dtype) -> str:
    """Pack a small Linear and multiply with it on the device; "" or how it differs from the same bytes on the CPU."""
    columns = max(64, form.group_size)
    weight, bias = numbers(48, columns, seed=1), numbers(1, 48, seed=3)[0]
    layer = Linear(columns, 48, device="meta")  # only its shape is used
    twin = kind.like(layer, weight.to(device), bias.to(device), form)
    slow = kind.like(layer, weight, bias, form)
    slow.weight.data = twin.weight.detach().cpu()
    least = torch.finfo(dtype).eps
    for rows in ROWS:
        x = numbers(rows, columns, seed=2).to(dtype)
        product = twin(x.to(device))
        # A token's codes may differ by one where a value lies between two: up to 1/127 of it, or 1/7.
        bits = min(form.activation_bits, 12)
        if relative_error(product, slow(x.float())) > 2.0 ** (1 - bits) + 8 * least:
            return f"its product of {rows} rows is not that of the CPU"
    if relative_error(twin.dequantized(), weight) > 2.0 ** (1 - form.weight_bits):
        return "its packed weight is not the one that was packed"
    return ""
