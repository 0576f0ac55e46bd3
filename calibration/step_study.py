"""What each sampling step loses in each precision, measured one step at a time; and the plan that follows from it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .choices import STEP_COSTS
from .core import CalibrationError, Coefficients
from .frames import over_frames
from .metrics.pixels import pixel_statistics
from .metrics.reference import DISTANCE
from .objective import Objective, read_scores
from .reference_pictures import ReferencePictures
from .split import Split
from .step_plan import AS_NEAR, StepOption, solve_steps
from .step_rows import StepRows
from .validate import Evaluation, Interval, drifts, newly_broken, paired_gain

MIXED_PLANS = 3
"""Drawn at random, to see whether losses of single steps add up."""

ADDS_WITHIN = 2.0
"""Factor between a plan's predicted and its measured squared distance, up to which sums are believed."""

Plan = tuple[int, ...]
"""The option of each step."""

Generate = Callable[[Plan, Sequence[int]], Tensor]
"""generate(plan, indices) -> pictures (B, H, W, 3) in [0, 1]"""


@dataclass(frozen=True)
class StepResult:
    """``distances`` and ``losses`` (steps, options): the squared distance to the best option's pictures and the loss of
    JAQ (0 where nothing was scored) when one step alone has another option. ``costs`` (options,) are in the budget's
    unit, relative to the best option. ``mixed``: (predicted, measured) squared distances of other plans.

    ``plan`` is recommended: ``candidate``, if it is better than ``uniform``, the best single option of at most the
    budget, on prompts and noises that chose nothing; else ``uniform``. ``gains`` are between these two, at the
    confidence of the verdict; ``drift_names`` got worse.
    """

    options: tuple[StepOption, ...]
    best: int
    distances: np.ndarray
    losses: np.ndarray
    costs: np.ndarray
    mixed: tuple[tuple[float, float], ...]
    rows: dict[Plan, Evaluation]
    candidate: Plan
    uniform: Plan
    gains: dict[str, Interval]
    drift_names: tuple[str, ...]
    accepted: bool
    pictures: int

    @property
    def plan(self) -> Plan:
        return self.candidate if self.accepted else self.uniform

    @property
    def adds(self) -> bool:
        """Whether losses of single steps predict those of plans."""
        return adds_up(self.mixed)

    def mean_cost(self, plan: Plan) -> float:
        return float(np.mean([self.costs[choice] for choice in plan]))


@dataclass
class StepStudy:
    """A study with some ``options`` for each of ``steps``. ``score(pictures, indices)`` gives "tc" and "iq" and what
    else is to be watched; None: pictures are compared alone.

    ``parts.search`` chooses, ``parts.held_out`` judges. ``rows`` outlive a cancel.

    Raises:
        CalibrationError: one option, which leaves nothing to choose.
    """

    generate: Generate
    options: Sequence[StepOption]
    steps: int
    parts: Split
    n_prompts: int
    score: Callable[[Tensor, Sequence[int]], dict] | None = None
    rows: StepRows = field(default_factory=StepRows)
    confidence: float = 0.95
    seed: int = 0
    on_row: Callable[[int, int, Tensor], None] = lambda done, total, pictures: None

    def __post_init__(self) -> None:
        self.options = tuple(self.options)
        if len(self.options) < 2:
            raise CalibrationError("there is one precision to choose from.", "plug in another model, or name formats")
        self.best = max(range(len(self.options)), key=lambda i: self.options[i].cost)
        indices = [*self.parts.search, *self.parts.held_out]
        self._reference = ReferencePictures(self._best_pictures, indices, self.steps)
        self.made = 0

    @property
    def singles(self) -> dict[tuple[int, int], Plan]:
        """By (step, option): the best option everywhere else."""
        whole = self.uniform(self.best)
        return {
            (step, option): (*whole[:step], option, *whole[step + 1 :])
            for step in range(self.steps)
            for option in range(len(self.options))
        }

    def uniform(self, option: int) -> Plan:
        return (option,) * self.steps

    def most_pictures(self) -> int:
        """At most: with every plan on the search's prompts, and three on those of the verdict."""
        plans = {*self.singles.values(), *map(self.uniform, range(len(self.options))), *self._mixed()}
        return (len(plans) + 1) * len(self.parts.search) + 3 * len(self.parts.held_out)

    def run(self, budget: float, cost: str = STEP_COSTS[0]) -> StepResult:
        """The plan under ``budget``, a share of what the best option everywhere takes.

        Raises:
            CalibrationError: no plan costs so little.
        """
        search = self.parts.search
        whole = self.measured(self.uniform(self.best), search)
        single = {place: self.measured(plan, search) for place, plan in self.singles.items()}
        uniforms = {self.uniform(i): self.measured(self.uniform(i), search) for i in range(len(self.options))}
        mixed = {plan: self.measured(plan, search) for plan in self._mixed()}
        shape = self.steps, len(self.options)
        distances = np.array([squared(single[divmod(i, shape[1])]) for i in range(shape[0] * shape[1])]).reshape(shape)
        losses = np.array([jaq_loss(whole, row) for row in single.values()]).reshape(shape)
        costs = self._costs(cost)
        others = {plan: row for plan, row in {**uniforms, **mixed}.items() if len(set(plan)) > 1 or self.steps > 1}
        sums = tuple(
            (sum(distances[step, choice] for step, choice in enumerate(plan)), squared(row))
            for plan, row in others.items() if plan != self.uniform(self.best)
        )  # fmt: skip
        memory = budget * self.options[self.best].bytes if cost == "memory" else float("inf")
        mean = float("inf") if cost == "memory" else budget
        solution = solve_steps(distances, losses, self.options, costs, mean, memory)
        rows = {**uniforms, **mixed, solution: self.measured(solution, search)}
        if not adds_up(sums):
            rows |= {self.singles[place]: row for place, row in single.items()}
        allowed = {plan: row for plan, row in rows.items() if self._fits(plan, costs, mean, memory)}
        candidate = nearest(allowed)
        alike = {plan: row for plan, row in allowed.items() if len(set(plan)) == 1}
        base = nearest(alike) if alike else None
        common = (self.options, self.best, distances, losses, costs, sums, rows, candidate)
        return self._judged(common, base)

    def _judged(self, common: tuple, base: Plan | None) -> StepResult:
        """The verdict on prompts that chose nothing. Where no single option fits the budget there is no other plan."""
        candidate = common[-1]
        if base is None or candidate == base:
            return StepResult(*common, base or candidate, {}, (), base is None, self.made)
        held_out = self.parts.held_out
        before, after, right = (self.measured(plan, held_out) for plan in (base, candidate, self.uniform(self.best)))
        # Nearer or a better score is enough: each of the two is asked at half the chance of an error.
        confidence = 1 - (1 - self.confidence) / 2
        gains = {name: paired_gain(before, after, name, self.n_prompts, confidence) for name in before.scores}
        worse = drifts(before, gains, right, confidence)
        better = gains[DISTANCE].high < 0 or ("jaq" in gains and gains["jaq"].low > 0)
        harmed = gains[DISTANCE].low > 0 or ("jaq" in gains and gains["jaq"].high < 0)
        broken_pictures = newly_broken(before, after) if "jaq" in gains else 0
        accepted = bool(better and not harmed and not worse and not broken_pictures)
        return StepResult(*common, base, gains, worse, accepted, self.made)

    def _mixed(self) -> list[Plan]:
        """Some plans of several options, the same for equal studies."""
        draw, plans = random.Random(self.seed), []
        earlier = {*self.singles.values(), *map(self.uniform, range(len(self.options)))}
        for _ in range(100):
            plan = tuple(draw.randrange(len(self.options)) for _ in range(self.steps))
            if plan not in earlier and len(plans) < MIXED_PLANS:
                plans.append(plan)
                earlier.add(plan)
        return plans

    def _costs(self, cost: str) -> np.ndarray:
        """Of one evaluation, relative to the best option."""
        if cost == "time":
            values = [self.rows.get(self.uniform(i), self.parts.search)[1] for i in range(len(self.options))]
        else:
            values = [option.cost for option in self.options]
        return np.array(values) / values[self.best]

    def _fits(self, plan: Plan, costs: np.ndarray, mean: float, memory: float) -> bool:
        models = {self.options[choice].model: self.options[choice].bytes for choice in plan}
        return np.mean(costs[list(plan)]) <= mean * (1 + 1e-9) and sum(models.values()) <= memory * (1 + 1e-9)

    def _best_pictures(self, coefficients: Coefficients, indices: Sequence[int]) -> Tensor:
        return self.generate(self.uniform(self.best), indices)

    def measured(self, plan: Plan, indices: Sequence[int]) -> Evaluation:
        """Scores of a plan's pictures: measured, if they were not before."""
        earlier_row = self.rows.get(plan, indices)
        if earlier_row is not None:
            return earlier_row[0]
        self._reference(indices[:1])  # before the clock starts
        start = time.perf_counter()
        pictures = self.generate(plan, indices)
        seconds = (time.perf_counter() - start) / len(indices)
        scores = {} if self.score is None else read_scores(self.score(pictures, indices), len(indices))
        if scores:
            scores["jaq"] = Objective(2.0)(scores)
        statistics = over_frames(pixel_statistics, pictures)
        scores |= {name: values.double().cpu().numpy() for name, values in statistics.items()}
        scores[DISTANCE] = self._reference.distance(pictures, indices)
        row = Evaluation(tuple(indices), scores)
        self.rows.add(plan, row, seconds)
        self.made += len(indices)
        self.on_row(self.made, self.most_pictures(), pictures)
        return row


def nearest(rows: dict[Plan, Evaluation]) -> Plan:
    """The plan whose pictures are nearest to the best option's; of those within ``AS_NEAR`` the best JAQ."""
    least = min(squared(row) for row in rows.values())
    near = {plan: row for plan, row in rows.items() if squared(row) <= least * (1 + AS_NEAR)}
    if not any("jaq" in row.scores for row in near.values()):
        return min(near, key=lambda plan: squared(near[plan]))
    return max(near, key=lambda plan: near[plan].mean("jaq"))


def squared(row: Evaluation) -> float:
    """Mean squared distance to the best option's pictures: squares of small errors add, distances do not."""
    return float(np.mean(row.scores[DISTANCE] ** 2))


def jaq_loss(whole: Evaluation, row: Evaluation) -> float:
    """How much less JAQ a row has; 0 where nothing was scored."""
    if "jaq" not in whole.scores:
        return 0.0
    loss = whole.mean("jaq") - row.mean("jaq")
    return loss if np.isfinite(loss) else 0.0


def adds_up(sums: Sequence[tuple[float, float]]) -> bool:
    """Whether predicted squared distances are near those measured, in the middle of all plans that tell."""
    factors = [predicted / actual for predicted, actual in sums if actual > 0]
    return not factors or 1 / ADDS_WITHIN <= float(np.median(factors)) <= ADDS_WITHIN
