"""The precision of each sampling step under a budget: the nearest plan there is, solved exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .core import CalibrationError

AS_NEAR = 0.1
"""Plans within this share of the least squared distance count as equally near, and JAQ decides: sums of single steps
were right to 7 % on a stranger's net. Ranked by JAQ alone, plans wrecked composition at 1.9 times the distance."""


@dataclass(frozen=True)
class StepOption:
    """One precision that a step may get, called ``name``: a ``model`` (from 0) with ``bits`` of activations at least.

    ``cost`` is one evaluation's in bit operations, and ``bytes`` are the model's weights.
    """

    name: str
    model: int
    bits: int
    cost: float
    bytes: int


def solve_steps(
    distances: np.ndarray,
    losses: np.ndarray,
    options: Sequence[StepOption],
    costs: Sequence[float],
    budget: float,
    memory: float = float("inf"),
) -> tuple[int, ...]:
    """For each step the index of its option: the least summed distance with a mean cost <= ``budget`` and the weights
    of all models that take part <= ``memory`` bytes; of plans within ``AS_NEAR`` of that the least summed loss.

    ``distances`` (steps, options) are >= 0, what one step alone does to the pictures, squared; ``losses`` are JAQ's.
    ``costs`` (options,) are those of one evaluation.

    Raises:
        CalibrationError: no plan costs so little.
    """
    problem = _Problem(options, np.asarray(costs, float), len(distances), budget, memory)
    nearest = problem.solve(distances)
    bound = _total(distances, nearest) * (1 + AS_NEAR)
    best = problem.solve(losses - losses.min(), (distances, bound))
    return best if _total(distances, best) <= bound * (1 + 1e-9) else nearest


def _total(values: np.ndarray, plan: Sequence[int]) -> float:
    return float(sum(values[step, choice] for step, choice in enumerate(plan)))


@dataclass(frozen=True)
class _Problem:
    """Binary variables: one for each step and option, and one for each model, whether it takes part."""

    options: Sequence[StepOption]
    costs: np.ndarray
    steps: int
    budget: float
    memory: float

    def solve(self, values: np.ndarray, bound: tuple[np.ndarray, float] | None = None) -> tuple[int, ...]:
        """The plan of the least summed ``values``; of ``bound`` (values, most) the sum is <= most."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # takes half a second to import

        models = sorted({option.model for option in self.options})
        count = self.steps * len(self.options)
        variables = count + len(models)
        scale = float(np.abs(values).sum()) or 1.0
        objective = np.concatenate([values.ravel() / scale, np.zeros(len(models))])
        most_cost = self.budget * self.steps
        rows = [self._one_each(variables)]
        rows.append(LinearConstraint(self._row(np.tile(self.costs, self.steps), variables), -np.inf, most_cost))
        rows.append(LinearConstraint(*self._takes_part(models, variables), 0))
        if np.isfinite(self.memory):
            weights = [max(o.bytes for o in self.options if o.model == model) / self.memory for model in models]
            rows.append(LinearConstraint(np.concatenate([np.zeros(count), weights])[None], -np.inf, 1))
        if bound is not None and bound[1] > 0:
            rows.append(LinearConstraint(self._row(bound[0].ravel() / bound[1], variables), -np.inf, 1))
        elif bound is not None:
            rows.append(LinearConstraint(self._row((bound[0] > 0).ravel().astype(float), variables), 0, 0))
        solution = milp(
            objective, integrality=np.ones(variables), bounds=Bounds(0, 1), constraints=rows,
            options={"mip_rel_gap": 0.0},
        )  # fmt: skip
        if solution.x is None:
            raise CalibrationError("no plan of the steps costs so little.", "raise the budget, or add a cheaper model")
        return tuple(int(i) for i in solution.x[:count].reshape(self.steps, -1).argmax(1))

    def _row(self, values: np.ndarray, variables: int) -> np.ndarray:
        return np.concatenate([values, np.zeros(variables - len(values))])[None]

    def _one_each(self, variables: int):
        from scipy.optimize import LinearConstraint

        rows = np.zeros((self.steps, variables))
        for step in range(self.steps):
            rows[step, step * len(self.options) : (step + 1) * len(self.options)] = 1
        return LinearConstraint(rows, 1, 1)

    def _takes_part(self, models: list[int], variables: int) -> tuple[np.ndarray, float]:
        """A step's choice <= whether its model takes part."""
        rows = np.zeros((self.steps * len(self.options), variables))
        for place in range(len(rows)):
            rows[place, place] = 1
            rows[place, len(rows) + models.index(self.options[place % len(self.options)].model)] = -1
        return rows, -np.inf
