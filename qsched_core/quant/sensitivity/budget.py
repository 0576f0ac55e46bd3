"""One choice per layer under a budget of bytes: the multiple-choice knapsack, solved exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import gcd

import numpy as np

from ...errors import QuantizationError

_SCALE = 1e6
"""What the worst plan's damage is scaled to: the solver stops within an absolute gap of 1e-6, here 1e-12 of that."""


def solve(costs: Sequence[Sequence[int]], damages: Sequence[Sequence[float]], budget: int) -> list[int]:
    """For each layer the index of one of its options, so that the summed damage is the least possible with summed
    costs <= budget.

    ``costs`` are bytes and ``damages`` are >= 0, both in the shape (layers, options of the layer); layers may have
    different numbers of options.

    Raises:
        QuantizationError: no choice costs so little; its ``least`` is what the cheapest one costs.
    """
    cheapest = [min(options) for options in costs]
    spare = budget - sum(cheapest)
    if spare < 0:
        what = f"the budget is {-spare} bytes too small for these formats."
        raise QuantizationError(what, f"give {-spare} bytes more, or add a smaller format", least=sum(cheapest))
    extra = [[cost - low for cost in options] for options, low in zip(costs, cheapest, strict=True)]
    unit = reduce(gcd, (cost for options in extra for cost in options), 0) or 1
    while True:
        choices = _solve([[cost // unit for cost in options] for options in extra], damages, spare // unit)
        over = sum(options[i] for options, i in zip(extra, choices, strict=True)) - spare
        if over <= 0:
            return choices
        # The solver's variables are whole only to its tolerance; what it overlooked is taken off its budget.
        spare -= over


def check_bits(average_bits: float, least: float) -> None:
    """Raises QuantizationError for average bits below what the smallest formats take, scales counted."""
    if not average_bits >= least:
        what = f"{average_bits:g} bits a weight are too few: these formats take {least:.3f}."
        raise QuantizationError(what, "raise average_bits, or add a smaller format", least=least)


def _solve(costs: list[list[int]], damages: Sequence[Sequence[float]], budget: int) -> list[int]:
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes half a second to import

    counts = [len(options) for options in costs]
    layer = np.repeat(np.arange(len(counts)), counts)
    one_each = (layer == np.arange(len(counts))[:, None]).astype(float)
    damage = np.concatenate([np.asarray(options, float) for options in damages])
    worst = sum(max(options) for options in damages)
    solution = milp(
        damage * (_SCALE / worst if worst > 0 else 1.0),
        integrality=np.ones(len(damage)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.concatenate(costs)[None].astype(float), -np.inf, budget),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if not solution.success:
        raise RuntimeError(f"scipy's milp: {solution.message}")
    starts = np.cumsum([0, *counts[:-1]])
    return [int(np.argmax(solution.x[start : start + count])) for start, count in zip(starts, counts, strict=True)]
