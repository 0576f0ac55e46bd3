"""Quantise the layers of any module, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ..choices import AUTO, BEST, FAST, MAX_RANK, QUALITIES
from ..coefficients import MAX_STEPS
from ..errors import QuantizationError
from .backends import Backend, Way, default_backends, ways
from .convolutions import has_own_call
from .correction import add_to_biases, mean_correction
from .fitting import Fit, fitted_twin
from .formats import Format, resolve_format
from .inspection import floats_as_half, is_packed, packed_weight, stored_bytes
from .layers import NORM_SHIFT, norm_shift
from .observation import Observation
from .plan import Plan
from .report import LayerReport, QuantReport, module_bytes
from .select import (
    EXCLUDED,
    NOT_INCLUDED,
    OUTSIDE_BLOCKS,
    candidates,
    is_skip_projection,
    reason_to_keep,
    shared_names,
    unmatched,
)
from .sources import weight_bits

CPU = torch.device("cpu")

BEST_RANK = 16
"""Of quality "best". At width 1280 a tenth of the 4-bit bytes."""

HAS_BITS = "it has already"
"""What the reason of a layer begins with that would gain nothing."""

OWN_CALL = "its class has a call of its own"

ONE_ROW = "sees one row per picture: float activations"
SKIP_PROJECTION = "carries a sum past a block: 8 bits"


@dataclass(frozen=True)
class Job:
    """What is asked for: ``ways`` to pack a layer, best first; ``notes`` say why other backends are not among them.
    ``keep`` are names of layers that a host must find as they are. Layers are packed on ``device``. ``observation``
    tells which layers lie at the network's edges, which see one row per picture, and what rounding is fitted to, and
    with it a part of ``rank`` of each Linear layer is kept in float16;
    ``quality`` None: the best that there is an observation for. ``last_steps`` None: 1 where a way has 4-bit
    activations, else 0. ``check()`` is called often while a layer is fitted, and may raise to cancel."""

    ways: Sequence[Way]
    notes: Sequence[str] = ()
    recipe: str = "compact"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    keep: Mapping[str, str] | None = None
    plan: Plan | None = None
    device: torch.device = CPU
    observation: Observation | None = None
    quality: str | None = None
    rank: int = 0
    last_steps: int | None = None
    check: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def fits(self) -> bool:
        return self.observation is not None and self.quality != FAST

    @property
    def wide_steps(self) -> int:
        """How many of a picture's last steps run with 8-bit activations."""
        if self.last_steps is not None:
            return self.last_steps
        return int(any(way.form.activation_bits == 4 for way in self.ways))

    @property
    def tag(self) -> tuple:
        """What rounds a layer in one way and no other."""
        forms = tuple((way.backend.name, str(way.form)) for way in self.ways)
        planned = () if self.plan is None else tuple((name, str(form)) for name, form in self.plan.forms.items())
        return forms, planned, self.rank, str(self.device)

    @cached_property
    def edges(self) -> Mapping[str, str] | None:
        return None if self.observation is None else self.observation.edges()

    def notes_on(self, module: nn.Module) -> list[str]:
        """``notes``, and the patterns that match none of the module's layers. To be asked before layers are packed."""
        idle = unmatched(module, dict.fromkeys((*self.include, *self.exclude)))
        return [*self.notes, *([f"These patterns match no layer: {', '.join(idle)}."] if idle else [])]

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
        if more.get("quality") == BEST and not more.get("rank"):
            more["rank"] = BEST_RANK
        if not 0 <= more.get("rank", 0) <= MAX_RANK:
            raise QuantizationError(f"rank {more['rank']}.", f"use 0 (none) to {MAX_RANK}")
        last_steps = more.get("last_steps")
        if last_steps is not None and not 0 <= last_steps <= MAX_STEPS:
            raise QuantizationError(f"last_steps {last_steps}.", f"use 0 (none) to {MAX_STEPS}")
        quality = more.get("quality")
        if quality not in (None, *QUALITIES):
            raise QuantizationError(f"quality {quality!r} is unknown.", f"use one of {', '.join(QUALITIES)}")
        if more.get("rank") and quality != BEST and (more.get("observation") is None or quality == FAST):
            fix = "give what qs.observe saw, and not quality fast, or use rank 0"
            raise QuantizationError("a rank needs an observation.", fix)
        if quality not in (None, FAST) and more.get("observation") is None:
            fix = "observe its layers first (Observe Layers does it), or use fast"
            raise QuantizationError(f"quality {quality} needs an observation.", fix)
        options, notes = ways(backends or default_backends(), backend, format, group_size, symmetric, recipe, device)
        return cls(options, notes, recipe, device=device, **more)


def quantized_layers(
    module: nn.Module,
    job: Job,
    weight_of: Callable[[str, Tensor], Tensor] = lambda name, weight: weight,
    is_source: Callable[[nn.Module], bool] = lambda layer: False,
) -> Iterator[tuple[nn.Module | None, LayerReport]]:
    """For each layer of the recipe its packed twin (None: it is kept) and its report. ``module`` is only read.

    ``weight_of(name, parameter)`` gives the float value of a parameter, for hosts that patch weights in place, and of
    layers that others have packed where ``is_source`` says that it can read them. Those with as few bits as they would
    get are kept. What was fitted before somebody stopped asking for more waits in the job's observation: the next such
    call goes on from there.

    Raises:
        QuantizationError: the module is quantised already, or an unknown recipe.
    """
    if any(is_packed(child) and not is_source(child) for child in module.modules()):
        raise QuantizationError("this model is quantised already.", "plug in the model as it was loaded")
    if job.observation is not None:
        job.observation.check(module, weight_of)
    # Names, not layers: whoever walks the modules holds them all, and floats that were replaced must go at once.
    names = [name for name, _ in candidates(module, job.recipe)]
    reasons = {name: reason_to_keep(module, name, module.get_submodule(name), job.include, job.exclude, job.edges)
               for name in names}  # fmt: skip
    # Told before the first layer is packed: afterwards the one beside it may be packed already.
    projections = {name for name in names if _is_sensitive_projection(job, module, name)}
    for name in names:
        layer = module.get_submodule(name)
        before = floats_as_half(layer.weight)
        report = LayerReport(name, tuple(layer.weight.shape), "", before, before, 0.0)
        reason = reasons[name] or (job.keep or {}).get(name, "")
        way, note = (None, reason) if reason else _way_for(job, name, layer, name in projections)
        if way is not None and (bits := weight_bits(layer.weight)) <= way.form.storage_bits:
            way, note = None, f"{HAS_BITS} {bits} bits"
        if way is None:
            yield None, replace(report, reason=note)
            continue
        weight = weight_of(f"{name}.weight", layer.weight).detach()
        bias = None if layer.bias is None else weight_of(f"{name}.bias", layer.bias).detach().clone()
        twin, device, trouble, fit = _packed(job, way, name, layer, weight, bias)
        if job.plan is not None and name in job.plan.first_tokens and hasattr(twin, "keep_first_token"):
            twin.keep_first_token(job.plan.first_tokens[name], weight, bias)
        there = weight.to(device).float()
        ours = packed_weight(twin)
        error = (ours - there).norm() / there.norm().clamp(min=1e-30)
        if hasattr(twin, NORM_SHIFT):
            twin.norm_shift = norm_shift(there, ours)
        yield (
            twin.to(CPU if layer.weight.is_meta else layer.weight.device),
            replace(
                report,
                bytes_after=stored_bytes(twin.weight) + _branch_bytes(twin),
                error=error.item(),
                format=str(way.form),
                backend=way.backend.name,
                kernel=way.backend.kernel(layer, way.form, job.device),
                note="; ".join(text for text in (note, trouble) if text),
                fit=fit,
            ),
        )
    if job.observation is not None:
        job.observation.unfinished.clear()


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
    observation: Observation | None = None,
    quality: str | None = None,
    rank: int = 0,
    last_steps: int | None = None,
    device: torch.device | None = None,
) -> QuantReport:
    """Replace layers of ``module`` in place by packed ones, streaming: one float layer at a time. A layer that stands
    in several places is packed once for all of them.

    ``recipe`` "compact" takes Linear layers and convolutions, "stock" Linear layers alone, in a format that ComfyUI's
    own loaders read unless another ``backend`` is named. ``group_size`` None is the backend's own. Layers are packed
    on ``device`` (None: the CPU) and put back where they were.

    With an ``observation`` (``qs.observe``) each layer is rounded as its inputs want it, unless ``quality`` is "fast";
    layers at the network's edges are kept, or get 8 bits when ``include`` names them, and layers that see one row per
    picture round no activations. Convolutions that carry a U-Net's skip connections past a block get 8 bits, unless
    ``include`` or a plan names them. A ``rank`` (8 to 64) keeps that much of each Linear layer beside it in float16,
    where our own layers are packed: nearer for 4-bit activations, and larger.

    ``last_steps`` of a picture run with 8-bit activations, from the same weights (None: 1 for formats with 4-bit
    activations, else 0). The report has the number; whoever samples brings it to the layers:
    ``qs.sample(…, precision=report.precision(sigmas))``, or ``with qs.least_activation_bits(8)`` around a step's call.

    Raises:
        QuantizationError: unknown format, backend, recipe or quality, a module quantised already, an observation of
            another module, or no layer to quantise.
    """
    job = Job.of(
        format, group_size, symmetric, backend, recipe, device or CPU, include=include, exclude=exclude, plan=plan,
        observation=observation, quality=quality, rank=rank, last_steps=last_steps,
    )  # fmt: skip
    before = module_bytes(module)
    reports, names, notes = [], shared_names(module), job.notes_on(module)
    with torch.no_grad():
        for twin, report in quantized_layers(module, job):
            reports.append(report)
            for name in names[report.name] if twin is not None else ():
                parent, _, leaf = name.rpartition(".")
                setattr(module.get_submodule(parent), leaf, twin)
        correction = None
        if job.fits:
            done = [report.name for report in reports if not report.reason]
            correction = mean_correction(module, done, observation.calls)
            add_to_biases(module, correction.values)
    size = module_bytes(module)
    report = QuantReport(tuple(reports), before, size, tuple(notes), last_steps=job.wide_steps,
                         correction=correction)  # fmt: skip
    require_some(report, job)
    return report


def require_some(report: QuantReport, job: Job) -> None:
    """Raises QuantizationError naming the most common reason when not one layer was quantised."""
    if report.quantized:
        return
    reasons = [layer.reason for layer in report.layers]
    why = max(set(reasons), key=reasons.count) if reasons else "it has no layer of the kind"
    if why == EXCLUDED:
        raise QuantizationError(
            "nothing to quantise: exclude leaves no layer that can be packed.", "exclude fewer layers"
        )
    if why == NOT_INCLUDED:
        raise QuantizationError(
            "nothing to quantise: include names no layer that can be packed.",
            "write include patterns that match its layers' names, such as "
            + max(report.layers, key=lambda layer: layer.bytes_before).name,
        )
    fix = "plug in the FP16 model, or set include patterns"
    if why == OUTSIDE_BLOCKS and job.observation is None:
        # A network of flat names, as exported graphs have them: only what its layers see tells its edges.
        fix = "plug in Observe Layers (in Python: observation=), or set include patterns"
    if len(why) > 60:  # a kernel's own words; the first line of an error is short
        raise QuantizationError("nothing to quantise, no layer can be packed.", f"{fix}. Most layers: {why}")
    raise QuantizationError(f"nothing to quantise: {why}.", fix)


def _way_for(job: Job, name: str, layer: nn.Module, is_projection: bool) -> tuple[Way | None, str]:
    """(the first way that takes this layer, why those before it did not); or (None, why it is kept).
    ``is_projection``: it carries a sum past a block."""
    plan_form: Format | None = None
    if job.plan is not None and name in job.plan.forms:
        plan_form = job.plan.forms[name]
        if plan_form is None:
            return None, "the plan keeps it"
    refusals = []
    for way, form in _attempts(job, name, is_projection, plan_form):
        reason = way.backend.missing(form, job.device) if form != way.form else ""
        reason = reason or way.backend.refusal(layer, form, job.device)
        if not reason:
            one_row = job.observation is not None and job.observation.one_row(name)
            notes = refusals if not (one_row and form.activation_bits == 16) else [ONE_ROW]
            if is_projection and way.form.weight_bits < form.weight_bits:
                notes = [*notes, SKIP_PROJECTION]
            return Way(way.backend, form), "; ".join(dict.fromkeys(notes))
        refusals.append(reason)
    return None, refusals[-1]


def _attempts(job: Job, name: str, is_projection: bool, plan_form: Format | None) -> Iterator[tuple[Way, Format]]:
    """What is tried for a layer: the format that fits its place, then the one asked for, then the last resort."""
    free = [(way, plan_form or way.form) for way in job.ways if not way.fixed]
    yield from ((way, _form_at(job, name, is_projection, form)) for way, form in free)
    yield from free
    yield from ((way, way.form) for way in job.ways if way.fixed)


def _form_at(job: Job, name: str, is_projection: bool, form: Format) -> Format:
    """The format of a layer of which more is known: 8 bits where it carries a sum past a block, and where an
    observation finds it at the network's edges; float activations where it sees one row per picture, which costs
    nothing."""
    at_edge = job.observation is not None and name in job.edges
    if form.weight_bits < 8 and (at_edge or is_projection):
        form = resolve_format("w8a16" if form.activation_bits == 16 else "w8a8")
    if job.observation is not None and job.observation.one_row(name) and form.activation_bits < 16:
        form = replace(form, name=f"w{form.weight_bits}a16", activation_bits=16)
    return form


def _is_sensitive_projection(job: Job, module: nn.Module, name: str) -> bool:
    """Whether a layer is one of those that bring a U-Net's skip connections to another number of channels, and neither
    the user nor a study has said what it gets."""
    has_word = bool(job.include) or (job.plan is not None and name in job.plan.forms)
    return not has_word and is_skip_projection(module, name)


def _packed(
    job: Job, way: Way, name: str, layer: nn.Module, weight: Tensor, bias: Tensor | None
) -> tuple[nn.Module, torch.device, str, Fit | None]:
    """(twin, where it was packed, what went wrong on the way there, what fitting it gave)."""
    try:
        twin, fit = _rounded(job, way, name, layer, weight.to(job.device), bias)
        return twin, job.device, "", fit
    except torch.OutOfMemoryError:
        if job.device.type == "cpu":
            raise
    twin, fit = _rounded(job, way, name, layer, weight.to(CPU), bias)
    return twin, CPU, f"packed on the CPU, {job.device.type} was out of memory", fit


def _branch_bytes(twin: nn.Module) -> int:
    part = getattr(twin, "low_rank", None)
    return 0 if part is None else sum(stored_bytes(value) for value in part.parameters())


def _rounded(
    job: Job, way: Way, name: str, layer: nn.Module, weight: Tensor, bias: Tensor | None
) -> tuple[nn.Module, Fit | None]:
    if not job.fits:
        return way.backend.twin(layer, weight, bias, way.form), None
    inputs = job.observation.layers.get(name)
    if inputs is None:
        note = OWN_CALL if has_own_call(layer) else "never reached"
        return way.backend.twin(layer, weight, bias, way.form), Fit(note=note)
    done, key = job.observation.unfinished.of(job.tag), (name, *map(_mark, (weight, bias)))
    if key not in done:
        rows = job.observation.rows_to_fit(name)
        done[key] = fitted_twin(
            way, layer, weight, bias, rows, inputs.judged, inputs.usage.largest, job.rank, job.check
        )
    return done[key]


def _mark(values: Tensor | None) -> float | None:
    """A number that another merge of a weight does not have."""
    return None if values is None else torch.linalg.vector_norm(values, dtype=torch.float32).item()
