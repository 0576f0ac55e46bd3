"""One format per layer under a budget: as good as trying everything."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from in_turn import in_turn

from qsched_core import QuantizationError
from qsched_core.quant.sensitivity.budget import solve


def brute(costs, damages, budget) -> float:
    """The least damage of all choices that fit."""
    totals = []
    for choice in itertools.product(*[range(len(options)) for options in costs]):
        if sum(options[i] for options, i in zip(costs, choice, strict=True)) <= budget:
            totals.append(sum(options[i] for options, i in zip(damages, choice, strict=True)))
    return min(totals)


def total(table, choice):
    return sum(options[i] for options, i in zip(table, choice, strict=True))


@in_turn("seed", range(40))
def test_as_good_as_trying_every_choice(seed):
    draw = random.Random(seed)
    # Bytes of real layers, damages over eight orders of magnitude, now and then equal ones.
    counts = [draw.choice((1, 2, 3, 4)) for _ in range(draw.randint(1, 7))]
    costs = [[draw.randint(1, 2**24) * draw.choice((1, 64)) for _ in range(count)] for count in counts]
    damages = [[draw.choice((0.0, 1.0, 10 ** draw.uniform(-8, 0))) for _ in range(count)] for count in counts]
    least, most = sum(map(min, costs)), sum(map(max, costs))
    for budget in (least, (least + most) // 2, draw.randint(least, most), most + 1):
        choice = solve(costs, damages, budget)
        assert total(costs, choice) <= budget
        # 1e-9: sums of floats in another order.
        assert total(damages, choice) == pytest.approx(brute(costs, damages, budget), rel=1e-9, abs=1e-15)


def test_one_byte_decides():
    costs, damages = [[1_000_000_000, 2_000_000_000]] * 2, [[1.0, 0.0], [1.5, 0.0]]
    assert solve(costs, damages, 3_000_000_000) == [0, 1]
    assert solve(costs, damages, 2_999_999_999) == [0, 0]
    assert solve(costs, damages, 4_000_000_000) == [1, 1]


def test_a_budget_below_the_cheapest_choice_says_what_that_takes(refused):
    with refused(QuantizationError, "1 bytes too small", least=14):
        solve([[4, 8], [10, 20]], [[1.0, 0.0], [1.0, 0.0]], 13)


MIXDQ = json.loads((Path(__file__).parents[1] / "golden" / "mixdq.json").read_text("utf-8"))["groups"]


@pytest.mark.parametrize("budget", ["3.66", "4.00", "4.08", "5.02", "8.00"])
@pytest.mark.parametrize("group", MIXDQ)
def test_as_good_as_a_published_plan_given_its_own_measurements(group, budget):
    """MixDQ's SDXL-Turbo (arXiv 2405.17873): 794 layers, what each loses at each width, and the plans that its own
    solver found. Scores add there, and the widths of the two groups of layers are planned apart."""
    widths, measurement = MIXDQ[group]["bits"], MIXDQ[group]
    published = [widths.index(int(bits)) for bits in measurement["plans"][budget]]
    costs = [[size * bits for bits in widths] for size in measurement["sizes"]]
    best = max(map(max, measurement["scores"]))
    damages = [[best - score for score in scores] for scores in measurement["scores"]]
    choice = solve(costs, damages, total(costs, published))
    assert total(costs, choice) <= total(costs, published)
    assert total(damages, choice) <= total(damages, published) * (1 + 1e-9)


@pytest.mark.parametrize("budget", ["3.66", "4.00", "4.08", "5.02", "8.00"])
def test_the_published_plans_were_read_right(budget):
    """Each is called by its average bits."""
    pairs = [
        (size, int(bits)) for group in MIXDQ.values()
        for size, bits in zip(group["sizes"], group["plans"][budget], strict=True)
    ]  # fmt: skip
    assert len(pairs) == 794
    assert sum(size * bits for size, bits in pairs) / sum(size for size, _ in pairs) == pytest.approx(
        float(budget), abs=0.03
    )
