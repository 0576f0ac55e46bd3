"""One format per layer under a budget: as good as trying everything."""

from __future__ import annotations

import itertools
import random

import pytest

from qsched_core import QuantizationError
from qsched_core.quant.sensitivity.budget import solve


def brute(costs, damages, budget) -> float:
    """The least damage of all choices that fit."""
    found = []
    for choice in itertools.product(*[range(len(options)) for options in costs]):
        if sum(options[i] for options, i in zip(costs, choice, strict=True)) <= budget:
            found.append(sum(options[i] for options, i in zip(damages, choice, strict=True)))
    return min(found)


def total(table, chosen):
    return sum(options[i] for options, i in zip(table, chosen, strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_as_good_as_trying_every_choice(seed):
    draw = random.Random(seed)
    # Bytes of real layers, damages over eight orders of magnitude, now and then equal ones.
    counts = [draw.choice((1, 2, 3, 4)) for _ in range(draw.randint(1, 7))]
    costs = [[draw.randint(1, 2**24) * draw.choice((1, 64)) for _ in range(count)] for count in counts]
    damages = [[draw.choice((0.0, 1.0, 10 ** draw.uniform(-8, 0))) for _ in range(count)] for count in counts]
    least, most = sum(map(min, costs)), sum(map(max, costs))
    for budget in (least, (least + most) // 2, draw.randint(least, most), most + 1):
        chosen = solve(costs, damages, budget)
        assert total(costs, chosen) <= budget
        # 1e-9: sums of floats in another order.
        assert total(damages, chosen) == pytest.approx(brute(costs, damages, budget), rel=1e-9, abs=1e-15)


def test_one_byte_decides():
    costs, damages = [[1_000_000_000, 2_000_000_000]] * 2, [[1.0, 0.0], [1.5, 0.0]]
    assert solve(costs, damages, 3_000_000_000) == [0, 1]
    assert solve(costs, damages, 2_999_999_999) == [0, 0]
    assert solve(costs, damages, 4_000_000_000) == [1, 1]


def test_a_budget_below_the_cheapest_choice_says_what_that_takes(refused):
    with refused(QuantizationError, "1 bytes too small", least=14):
        solve([[4, 8], [10, 20]], [[1.0, 0.0], [1.0, 0.0]], 13)
