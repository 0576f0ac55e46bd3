"""A plan of the steps' precision as a person writes it and reads it, and the MODELs that it can be for."""

from __future__ import annotations

from ...qsched_core import Precision, SamplingError
from ...qsched_core.precision import read_steps
from ...qsched_core.quant import bit_cost
from ...qsched_core.quant.report import size_text
from ...qsched_core.schedule import check_schedule
from ..host.model_info import fingerprint, first_difference, quantization
from .ksampler import Recipe

_SOURCE_FIX = "plug in models made of one checkpoint"


def own_plan(plan) -> Precision:
    """A plan that another copy of the pack may have made, as this one's."""
    return Precision(plan.activation_bits, plan.sigmas, plan.models)


def check_one_source(models) -> None:
    """Raises SamplingError for MODELs of which one cannot go on where another has begun."""
    first = models[0]
    for number, other in enumerate(models[1:], start=2):
        difference = first_difference(first, other)
        what = "" if difference is None else difference.what
        if what == "family":
            raise SamplingError(f"model {number} is a {difference.there}, model 1 a {difference.here}.", _SOURCE_FIX)
        if what == "latent":
            raise SamplingError(
                f"model {number} makes latents {difference.there}, model 1 {difference.here}.", _SOURCE_FIX
            )
        if what:
            raise SamplingError(
                f"model {number} samples in another way than model 1: {what} {difference.there}, {difference.here}.",
                "put the same ModelSampling node behind both",
            )
        if other.load_device != first.load_device:
            raise SamplingError(f"model {number} lies on {other.load_device}.", f"load it on {first.load_device} too")


def written_plan(text: str, models, scheduler: str, sigmas) -> Precision:
    """The plan that a person wrote, on the schedule of so many steps.

    Raises:
        QuantizationError: what is no plan.
        SamplingError: a schedule of another number of steps, or none.
    """
    steps = read_steps(text, len(models))
    if sigmas is None:
        run = Recipe(len(steps), 1.0, "euler", scheduler).falling_sigmas(models[0])
    else:
        run = tuple(float(sigma) for sigma in sigmas.flatten().tolist())
        check_schedule(run, "the SIGMAS input", strict=True)
    if len(run) != len(steps) + 1:
        what = f"plan and schedule differ in steps: {len(steps)} and {len(run) - 1}."
        raise SamplingError(what, "write a model for each step of the schedule")
    numbers, bits = zip(*steps, strict=True)
    return Precision(bits, run, numbers)


def schedule_text(models, plan: Precision) -> str:
    """A plan for a person: each step, its cost, and what the models weigh."""
    networks = [model.model.diffusion_model for model in models]
    names, numbers, costs = [quantization(model) for model in models], numbers_of(plan), []
    lines = [f"{len(plan)} steps: {plan.text()}."]
    for step, (number, bits) in enumerate(zip(numbers, plan.activation_bits, strict=True)):
        costs.append(bit_cost(networks[number], bits))
        above, below = plan.sigmas[step : step + 2]
        wide = "" if bits == 4 else f", activations of {bits} bits or more"
        lines.append(f"Step {step + 1}, sigma {above:.4g} to {below:.4g}: model {number + 1}, {names[number]}{wide}.")
    lines.append(f"Bit operations of the mean step: {sum(costs) / len(costs):.3f} of 16-bit floats.")
    for number, (model, name) in enumerate(zip(models, names, strict=True), start=1):
        lines.append(f"Model {number}: {name}, {size_text(model.model_size())}.")
    if len(set(numbers)) > 1:
        both = sum(models[number].model_size() for number in set(numbers))
        lines.append(f"{size_text(both)} hold all that the plan uses; with less memory free, models change in a run.")
    lines += _remarks(models, networks, plan)
    return "\n".join(lines)


def numbers_of(plan: Precision) -> tuple[int, ...]:
    """The model of each step, from 0."""
    return plan.models or (0,) * len(plan)


def _remarks(models, networks, plan: Precision) -> list[str]:
    """What a person may not expect of the plan."""
    lines = []
    numbers = numbers_of(plan)
    unused = [n + 1 for n in range(len(models)) if n not in numbers]
    if unused:
        lines.append(f"No step uses model {', '.join(map(str, unused))}.")
    for number, network in enumerate(networks):
        wide = {bits for owner, bits in zip(numbers, plan.activation_bits, strict=True) if owner == number and bits > 4}
        if wide and bit_cost(network, max(wide)) == bit_cost(network):
            lines.append(f"Model {number + 1} has no activations that finer steps could change.")
    others = [n for n, model in enumerate(models[1:], 2) if fingerprint(model) != fingerprint(models[0])]
    if others:
        lines.append(f"Model {', '.join(map(str, others))} has other weights than model 1, not only another precision.")
    return lines
