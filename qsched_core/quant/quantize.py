"""Quantise the layers of any module, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import QuantizationError
from .formats import Format, resolve_format
from .layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from .report import FLOAT_BYTES, LayerReport, QuantReport, module_bytes
from .select import candidates, reason_to_keep

BACKENDS = ("auto", "torch")
TWINS: Mapping[type[nn.Module], type[QuantizedLayer]] = {nn.Linear: QuantizedLinear, nn.Conv2d: QuantizedConv2d}


def quantized_layers(
    module: nn.Module,
    form: Format,
    *,
    recipe: str = "compact",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    twins: Mapping[type[nn.Module], type[QuantizedLayer]] = TWINS,
    weight_of: Callable[[str, Tensor], Tensor] = lambda name, weight: weight,
) -> Iterator[tuple[QuantizedLayer | None, LayerReport]]:
    """For each layer of the recipe its packed twin (None: it is kept) and its report. ``module`` is only read.

    ``weight_of(name, parameter)`` gives the float value of a parameter, for hosts that patch weights in place.

    Raises:
        QuantizationError: the module is quantised already, an unknown recipe, or patterns that are one text.
    """
    if isinstance(include, str) or isinstance(exclude, str):
        raise QuantizationError("include and exclude are lists of patterns.", 'write ["*.ff.*"], not "*.ff.*"')
    if any(isinstance(child, QuantizedLayer) for child in module.modules()):
        raise QuantizationError("this model is quantised already.", "plug in the model as it was loaded")
    # Names, not layers: whoever walks the modules holds them all, and floats that were replaced must go at once.
    for name in [name for name, _ in candidates(module, recipe)]:
        layer = module.get_submodule(name)
        reason = reason_to_keep(module, name, layer, include, exclude)
        before = layer.weight.numel() * FLOAT_BYTES
        shape = tuple(layer.weight.shape)
        if reason:
            yield None, LayerReport(name, shape, reason, before, before, 0.0)
            continue
        weight = weight_of(f"{name}.weight", layer.weight).detach()
        bias = None if layer.bias is None else weight_of(f"{name}.bias", layer.bias).detach().clone()
        kind = next(twin for float_kind, twin in twins.items() if isinstance(layer, float_kind))
        twin = kind.like(layer, weight, bias, form)
        error = (twin.dequantized() - weight.float()).norm() / weight.float().norm().clamp(min=1e-30)
        yield twin, LayerReport(name, shape, "", before, twin.weight.numel(), error.item())


def quantize(
    module: nn.Module,
    format: str = "w4a8",
    *,
    backend: str = "auto",
    recipe: str = "compact",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    group_size: int | None = None,
) -> QuantReport:
    """Replace layers of ``module`` in place by packed ones, streaming: one float layer at a time.

    ``recipe`` "compact" takes Linear layers and convolutions, "stock" Linear layers alone.

    Raises:
        QuantizationError: unknown format, backend or recipe, a module quantised already, or no layer to quantise.
    """
    form = resolve_format(format, group_size)
    if backend not in BACKENDS:
        raise QuantizationError(f"backend {backend!r} is unknown.", f"use one of {', '.join(BACKENDS)}")
    before = module_bytes(module)
    reports = []
    with torch.no_grad():
        for twin, report in quantized_layers(module, form, recipe=recipe, include=include, exclude=exclude):
            reports.append(report)
            if twin is not None:
                parent, _, leaf = report.name.rpartition(".")
                setattr(module.get_submodule(parent), leaf, twin)
    report = QuantReport(str(form), "torch", tuple(reports), before, module_bytes(module))
    require_some(report)
    return report


def require_some(report: QuantReport) -> None:
    """Raises QuantizationError naming the most common reason when not one layer was quantised."""
    if report.quantized:
        return
    reasons = [layer.reason for layer in report.layers]
    why = max(set(reasons), key=reasons.count) if reasons else "it has no layer of the kind"
    raise QuantizationError(f"nothing to quantise: {why}.", "plug in the FP16 model, or set include patterns")
