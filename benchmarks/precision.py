"""What precision per step brings back: ``python -m benchmarks.precision [flow | noise | galaxies 32 | terrain ...]``.

A step of sampling may get each of three precisions, the second one mostly from the first one's weights. *Step
Sensitivity* measures them one step at a time, as the node does, and recommends a plan within a budget. For each budget
three plans of it are judged on prompts and noises that chose nothing: the best single precision of at most the plan's
cost, the recommended plan, and the worst placement, the plan of the largest predicted distance at as much cost.

*recovered* is the share of the narrowest precision's loss that a plan brings back (1: the best precision everywhere),
*of the rest* the share of what the best single precision still loses that the recommended plan brings back, with a 95 %
interval over held-out prompts (a bootstrap of the ratio). Losses are squared distances to the best precision's
pictures; of the toys also JAQ's. The goal: never below the best single precision, and half of the rest on two of four.

Nets: both toys, and strangers' (see ``benchmarks.strangers`` for what they need). Some minutes each on one core.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

import qsched_core as qs
from calibration import Evaluation
from calibration.indices import prompt_of
from calibration.metrics.reference import DISTANCE
from calibration.split import Split
from calibration.step_plan import StepOption
from calibration.step_study import Generate, Plan, StepResult, StepStudy
from qsched_core.quant import bit_cost, module_bytes

from .record import earlier, record

DRAWS = 2000
"""Of the bootstrap."""

Forms = tuple[tuple[str, int], ...]
"""(format, least bits of activations) of the precisions, the narrowest first."""

BY_ACTIVATIONS: Forms = (("w4a4", 4), ("w4a4", 8), ("w8a8", 4))
BY_WEIGHTS: Forms = (("w3a8", 4), ("w4a8", 4), ("w8a8", 4))
"""For a net of convolutions, whose activations stay floats."""


class Switch(nn.Module):
    """The network of each step in turn, with its activation bits: these samplers evaluate once a step."""

    def __init__(self, networks: Sequence[nn.Module], bits: Sequence[int]):
        super().__init__()
        self.networks, self.bits, self.count = nn.ModuleList(networks), tuple(bits), 0

    def forward(self, *args, **kwargs):
        step = self.count % len(self.networks)
        self.count += 1
        with qs.least_activation_bits(self.bits[step]):
            return self.networks[step](*args, **kwargs)


@dataclass(frozen=True)
class Subject:
    """A net to be studied: its packed ``networks`` by format, and how one made of several generates pictures."""

    networks: dict[str, nn.Module]
    forms: Forms
    steps: int
    prompts: int
    pictures_of: Callable[[nn.Module], Callable]
    score: Callable | None = None

    def options(self) -> list[StepOption]:
        names = list(self.networks)
        return [
            StepOption(f"{form}+a{bits}" if bits > 4 else form, names.index(form), bits,
                       bit_cost(self.networks[form], bits), module_bytes(self.networks[form]))
            for form, bits in self.forms
        ]  # fmt: skip

    def generate(self) -> Generate:
        def generate(plan: Plan, indices: Sequence[int]) -> torch.Tensor:
            choices_of_steps = [self.forms[choice] for choice in plan]
            switch = Switch(
                [self.networks[form] for form, _ in choices_of_steps], [bits for _, bits in choices_of_steps]
            )
            return self.pictures_of(switch)(qs.Coefficients.identity(len(plan)), indices)

        return generate

    def study(self) -> StepStudy:
        """A third of the prompts choose, the others judge, with another noise."""
        third = self.prompts // 3
        parts = Split(tuple(range(third)), tuple(range(self.prompts + third, 2 * self.prompts)), noises=1)
        return StepStudy(self.generate(), self.options(), self.steps, parts, self.prompts, self.score)


def toy(kind: str, captions: int) -> Subject:
    from . import toys

    full, texts = toys.load(kind), toys.captions(captions, 5)
    observation = full.observed([text for text in toys.captions(16, 909) if text not in texts])
    networks = {form: full.quantized(form, observation=observation).network for form in dict(BY_ACTIVATIONS)}

    def pictures_of(switch: nn.Module) -> Callable:
        return replace(full, network=switch, precision=None).generator(texts)

    return Subject(networks, BY_ACTIVATIONS, len(full.sigmas) - 1, captions, pictures_of, toys.scored(texts)[0])


def stranger(make: Callable, forms: Forms, prompts: int) -> Subject:
    full = make()
    networks = {form: full.quantized(form).network for form in dict(forms)}

    def pictures_of(switch: nn.Module) -> Callable:
        return replace(full, network=switch).generator(prompts, 31)

    return Subject(networks, forms, len(full.sigmas) - 1, prompts, pictures_of)


def subjects() -> dict[str, Callable[[], Subject]]:
    def galaxies() -> Subject:
        from .strangers.models import galaxy

        return stranger(lambda: galaxy(32), BY_ACTIVATIONS, 72)

    def terrain() -> Subject:
        from .strangers.models import terrain

        return stranger(terrain, BY_WEIGHTS, 24)

    toys = {kind: lambda kind=kind: toy(kind, 72) for kind in ("flow", "noise")}
    return {**toys, "galaxies 32": galaxies, "terrain": terrain}


def budgets_of(costs: Sequence[float]) -> list[float]:
    """Below, at and above the middle precision's cost: a quarter, a half and all of the way to it, and half of the rest
    of the way to the best one's."""
    low, middle, high = sorted(costs)
    return [low + (middle - low) / 4, (low + middle) / 2, middle, (middle + high) / 2]


def worst(result: StepResult, cost: float) -> Plan:
    """The plan of the largest summed distance with a mean cost of at most ``cost``, and at least nine tenths of it."""
    steps, options = result.distances.shape
    plans = [
        plan for plan in itertools.product(range(options), repeat=steps)
        if 0.9 * cost <= result.mean_cost(plan) <= cost * (1 + 1e-9)
    ]  # fmt: skip
    return max(plans, key=lambda plan: sum(result.distances[step, choice] for step, choice in enumerate(plan)))


def losses(row: Evaluation, whole: Evaluation, metric: str, prompts: int) -> np.ndarray:
    """(P,) what each prompt's pictures lose."""
    values = row.scores[metric] ** 2 if metric == DISTANCE else whole.scores[metric] - row.scores[metric]
    owners = np.array([prompt_of(index, prompts) for index in row.indices])
    return np.array([values[owners == owner].mean() for owner in np.unique(owners)])


def share(loss: np.ndarray, remaining: np.ndarray) -> list[float] | None:
    """[share of ``loss`` that is not ``remaining`` any more, low, high]; None where nothing was lost for certain."""
    draws = np.random.default_rng(0).integers(len(loss), size=(DRAWS, len(loss)))
    before, after = loss[draws].mean(1), remaining[draws].mean(1)
    if np.quantile(before, 0.025) <= 0:
        return None
    low, high = np.quantile(1 - after / before, (0.025, 0.975))
    return [round(float(value), 4) for value in (1 - remaining.mean() / loss.mean(), low, high)]


def row_of(study: StepStudy, budget: float) -> dict:
    """What three plans within a budget bring back, on the prompts that judge."""
    result, held_out = study.run(budget), study.parts.held_out
    whole, narrow = (study.measured(study.uniform(option), held_out) for option in (study.best, 0))
    cost = result.mean_cost(result.plan)
    plans = {"uniform": result.uniform, "planned": result.plan, "worst": worst(result, cost)}
    rows = {name: study.measured(plan, held_out) for name, plan in plans.items()}
    metrics = [DISTANCE, *(["jaq"] if study.score else [])]
    row_values: dict = {"budget": round(budget, 4), "accepted": result.accepted, "adds": bool(result.adds)}
    for name, plan in plans.items():
        row_values[name] = {
            "plan": " ".join(study.options[choice].name for choice in plan),
            "cost": round(result.mean_cost(plan), 4),
        }
    for metric in metrics:
        losses_of = {name: losses(row, whole, metric, study.n_prompts) for name, row in rows.items()}
        everything = losses(narrow, whole, metric, study.n_prompts)
        for name in plans:
            row_values[name][f"{metric} recovered"] = share(everything, losses_of[name])
        row_values[f"{metric}, of the rest"] = share(losses_of["uniform"], losses_of["planned"])
        row_values[f"{metric}, of the worst placement's"] = share(losses_of["worst"], losses_of["planned"])
    return row_values


def model_row(subject: Subject) -> dict:
    start, study = time.perf_counter(), subject.study()
    costs = [option.cost for option in study.options]
    rows = [row_of(study, cost / costs[study.best]) for cost in budgets_of(costs)]
    whole = study.measured(study.uniform(study.best), study.parts.held_out)
    uniforms = {}
    for place, option in enumerate(study.options):
        row = study.measured(study.uniform(place), study.parts.held_out)
        narrow = losses(study.measured(study.uniform(0), study.parts.held_out), whole, DISTANCE, study.n_prompts)
        uniforms[option.name] = {
            "cost": round(option.cost / costs[study.best], 4),
            f"{DISTANCE} recovered": share(narrow, losses(row, whole, DISTANCE, study.n_prompts)),
        }
    rests = [row[f"{DISTANCE}, of the rest"] for row in rows]
    return {
        "uniforms": uniforms, "budgets": rows, "pictures": study.made, "held-out prompts": len(study.parts.held_out),
        "never below": all(rest is None or rest[0] >= 0 for rest in rests),
        "most of the rest": max(rest[0] for rest in rests if rest is not None),
        "seconds": round(time.perf_counter() - start),
    }  # fmt: skip


@contextmanager
def one_thread() -> Iterator[None]:
    """Figures must not depend on how sums were split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="some nets; the others keep their rows")
    torch.set_grad_enabled(False)
    models, choices = earlier("precision").get("models", {}), subjects()
    with one_thread():
        for name in parser.parse_args().names or choices:
            models[name] = model_row(choices[name]())
            print(name, models[name], file=sys.stderr, flush=True)
    halves = [name for name, model in models.items() if model["most of the rest"] >= 0.5]
    record("precision", {
        "models": models, "never below the best single precision": all(m["never below"] for m in models.values()),
        "half of the rest on": halves,
    }, on_demo=bool({"flow", "noise"} & models.keys()))  # fmt: skip


if __name__ == "__main__":
    main()
