"""Quantise the layers of any module, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import QuantizationError
from .backends import AUTO, Backend, Way, default_backends, ways
from .formats import Format
from .packed import is_packed, packed_weight, stored_bytes
from .plan import Plan
from .report import FLOAT_BYTES, LayerReport, QuantReport, module_bytes
from .select import candidates, reason_to_keep, shared_names

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Job:
    """What is asked for: ``ways`` to pack a layer, best first; ``notes`` say why other backends are not among them.
    ``keep`` are names of layers that a host must find as they are. Layers are packed on ``device``."""

    ways: Sequence[Way]
    notes: Sequence[str] = ()
    recipe: str = "compact"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    keep: Mapping[str, str] | None = None
    plan: Plan | None = None
    device: torch.device = CPU

    @classmethod
    def of(
        cls,
        format: str,
        group_size: int | None = None,
        symmetric: bool = True,
        backend: str = AUTO,
        recipe: str = "compact",
        device: torch.device = CPU,
        backends: Mapping[str, Backend] | None = None,
        **more,
    ) -> Job:
        """The job in a user's words.

        Raises:
            QuantizationError: unknown format or backend, one that cannot do it here, or patterns that are one text.
        """
        for patterns in (more.get("include", ()), more.get("exclude", ())):
            if isinstance(patterns, str):
                raise QuantizationError("include and exclude are lists of patterns.", 'write ["*.ff.*"], not "*.ff.*"')
        found, notes = ways(backends or default_backends(), backend, format, group_size, symmetric, recipe, device)
        return cls(found, notes, recipe, device=device, **more)


def quantized_layers(
    module: nn.Module, job: Job, weight_of: Callable[[str, Tensor], Tensor] = lambda name, weight: weight
) -> Iterator[tuple[nn.Module | None, LayerReport]]:
    """For each layer of the recipe its packed twin (None: it is kept) and its report. ``module`` is only read.

    ``weight_of(name, parameter)`` gives the float value of a parameter, for hosts that patch weights in place.

    Raises:
        QuantizationError: the module is quantised already, or an unknown recipe.
    """
    if any(is_packed(child) for child in module.modules()):
        raise QuantizationError("this model is quantised already.", "plug in the model as it was loaded")
    # Names, not layers: whoever walks the modules holds them all, and floats that were replaced must go at once.
    for name in [name for name, _ in candidates(module, job.recipe)]:
        layer = module.get_submodule(name)
        before = layer.weight.numel() * FLOAT_BYTES
        kept = LayerReport(name, tuple(layer.weight.shape), "", before, before, 0.0)
        reason = reason_to_keep(module, name, layer, job.include, job.exclude) or (job.keep or {}).get(name, "")
        way, note = (None, reason) if reason else _way_for(job, name, layer)
        if way is None:
            yield None, replace(kept, reason=note)
            continue
        weight = weight_of(f"{name}.weight", layer.weight).detach()
        bias = None if layer.bias is None else weight_of(f"{name}.bias", layer.bias).detach().clone()
        twin, device, trouble = _packed(way, layer, weight, bias, job.device)
        if job.plan is not None and name in job.plan.first_tokens and hasattr(twin, "keep_first_token"):
            twin.keep_first_token(job.plan.first_tokens[name], weight, bias)
        error = (packed_weight(twin) - weight.to(device).float()).norm() / weight.float().norm().clamp(min=1e-30).to(
            device
        )
        yield (
            twin.to(CPU if layer.weight.is_meta else layer.weight.device),
            replace(
                kept,
                bytes_after=stored_bytes(twin.weight),
                error=error.item(),
                format=str(way.form),
                backend=way.backend.name,
                kernel=way.backend.kernel(layer, way.form, job.device),
                note="; ".join(text for text in (note, trouble) if text),
            ),
        )


def quantize(
    module: nn.Module,
    format: str = "w4a8",
    *,
    backend: str = AUTO,
    recipe: str = "compact",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    group_size: int | None = None,
    symmetric: bool = True,
    plan: Plan | None = None,
    device: torch.device | None = None,
) -> QuantReport:
    """Replace layers of ``module`` in place by packed ones, streaming: one float layer at a time. A layer that stands
    in several places is packed once for all of them.

    ``recipe`` "compact" takes Linear layers and convolutions, "stock" Linear layers alone, in a format that ComfyUI's
    own loaders read unless another ``backend`` is named. ``group_size`` None is the backend's own. Layers are packed
    on ``device`` (None: the CPU) and put back where they were.

    Raises:
        QuantizationError: unknown format, backend or recipe, a module quantised already, or no layer to quantise.
    """
    job = Job.of(
        format, group_size, symmetric, backend, recipe, device or CPU, include=include, exclude=exclude, plan=plan
    )
    before = module_bytes(module)
    reports, names = [], shared_names(module)
    with torch.no_grad():
        for twin, report in quantized_layers(module, job):
            reports.append(report)
            for name in names[report.name] if twin is not None else ():
                parent, _, leaf = name.rpartition(".")
                setattr(module.get_submodule(parent), leaf, twin)
    report = QuantReport(tuple(reports), before, module_bytes(module), tuple(job.notes))
    require_some(report)
    return report


def require_some(report: QuantReport) -> None:
    """Raises QuantizationError naming the most common reason when not one layer was quantised."""
    if report.quantized:
        return
    reasons = [layer.reason for layer in report.layers]
    why = max(set(reasons), key=reasons.count) if reasons else "it has no layer of the kind"
    raise QuantizationError(f"nothing to quantise: {why}.", "plug in the FP16 model, or set include patterns")


def _way_for(job: Job, name: str, layer: nn.Module) -> tuple[Way | None, str]:
    """(the first way that takes this layer, why those before it did not); or (None, why it is kept)."""
    planned: Format | None = None
    if job.plan is not None and name in job.plan.forms:
        planned = job.plan.forms[name]
        if planned is None:
            return None, "the plan keeps it"
    refusals = []
    for way in job.ways:
        form = planned or way.form
        reason = (way.backend.missing(form, job.device) if planned else "") or way.backend.refusal(layer, form)
        if not reason:
            return Way(way.backend, form), "; ".join(refusals)
        refusals.append(reason)
    return None, refusals[-1]


def _packed(
    way: Way, layer: nn.Module, weight: Tensor, bias: Tensor | None, device: torch.device
) -> tuple[nn.Module, torch.device, str]:
    """(twin, where it was packed, what went wrong on the way there)."""
    try:
        return way.backend.twin(layer, weight.to(device), bias, way.form), device, ""
    except torch.OutOfMemoryError:
        if device.type == "cpu":
            raise
    twin = way.backend.twin(layer, weight.to(CPU), bias, way.form)
    return twin, CPU, f"packed on the CPU, {device.type} was out of memory"
