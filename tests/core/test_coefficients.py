"""Coefficients: what is refused, and that every way of making them gives the numbers one would write down."""

from __future__ import annotations

import math
import random

import pytest

import qsched_core as qs
from qsched_core import CoefficientError, Coefficients

# SDXL-Turbo, 4 steps, W4A4: the one published set with both ends free.
PUBLISHED = {"c_eps": (0.955, 1.099), "c_x": (1.012, 0.967)}
SIGMAS = (14.6, 6.3, 2.9, 1.1, 0.0)
FOUR = Coefficients((1.02, 1.01, 0.99, 0.97), (0.9, 0.95, 1.05, 1.1))


# --- what a Coefficients is


def test_constant_is_the_same_at_every_step():
    assert Coefficients.constant(3, c_x=0.9, c_eps=1.1) == Coefficients((0.9,) * 3, (1.1,) * 3)
    assert Coefficients.constant(3).is_identity
    assert Coefficients.constant(1, c_eps=1.1) == Coefficients.ramp(1, c_eps=(1.1, 1.1))


def test_is_frozen_and_compares_by_value():
    assert Coefficients([1, 2], [3, 4]) == Coefficients((1.0, 2.0), (3.0, 4.0))
    assert len({FOUR, Coefficients(FOUR.c_x, FOUR.c_eps)}) == 1
    with pytest.raises(AttributeError):
        FOUR.c_x = (1.0,)


def test_values_become_floats():
    result = Coefficients([1], [2])
    assert (result.c_x, result.c_eps) == ((1.0,), (2.0,))
    assert {type(value) for value in result.c_x + result.c_eps} == {float}


def test_length_and_at_count_from_the_noisiest_step():
    assert len(FOUR) == 4
    assert FOUR.at(0) == (1.02, 0.9)
    assert FOUR.at(3) == (0.97, 1.1)


@pytest.mark.parametrize("edge", [0.1, 10.0])
def test_the_limits_themselves_are_allowed(edge):
    assert Coefficients((edge,), (edge,)).at(0) == (edge, edge)


@pytest.mark.parametrize("name", ["c_x", "c_eps"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (0.0, "0"),
        (-1.0, "-1"),
        (0.0999, "0.0999"),
        (10.001, "10.001"),
    ],
    ids=str,
)
def test_a_value_that_is_not_finite_or_out_of_range_is_named(refused, name, value, text):
    values = {"c_x": (1.0, 1.0), "c_eps": (1.0, 1.0)} | {name: (1.0, value)}
    with refused(CoefficientError, f"{name}[1] is {text}.", "[0.1, 10.0]", name=name):
        Coefficients(**values)


def test_unequal_lengths_are_refused_with_both_lengths(refused):
    with refused(CoefficientError, "c_x and c_eps differ in number: 2 and 3.", c_x=2, c_eps=3):
        Coefficients((1.0,) * 2, (1.0,) * 3)


@pytest.mark.parametrize("steps", [0, 1001])
def test_too_few_or_too_many_steps_are_refused(refused, steps):
    with refused(CoefficientError, f"has {steps} values."):
        Coefficients.identity(steps)


@pytest.mark.parametrize("values", [("a",), (None,), 3, None, (10**400,)], ids=["text", "None", "int", "none", "huge"])
def test_what_is_no_list_of_numbers_is_refused(refused, values):
    """Regression: float's own ValueError, TypeError and OverflowError came through."""
    with refused(CoefficientError, "c_eps is not a list of numbers.", name="c_eps"):
        Coefficients((1.0,), values)


# --- identity, ramp


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 1000])
def test_the_identity_is_all_ones(steps):
    result = Coefficients.identity(steps)
    assert result.is_identity
    assert result.c_x == result.c_eps == (1.0,) * steps
    assert Coefficients.ramp(steps) == result


@pytest.mark.parametrize(("c_x", "c_eps"), [((1.0, 1.0), (1.0, 1.0 + 1e-15)), ((1.0 - 1e-15, 1.0), (1.0, 1.0))])
def test_one_value_off_one_is_no_identity(c_x, c_eps):
    assert not Coefficients(c_x, c_eps).is_identity


def test_the_published_ramp_is_a_straight_line():
    result = Coefficients.ramp(4, **PUBLISHED)
    # By hand: 0.955 + i·0.048 and 1.012 - i·0.015. 1e-15: a few roundings of numbers near 1.
    assert result.c_eps == pytest.approx((0.955, 1.003, 1.051, 1.099), abs=1e-15)
    assert result.c_x == pytest.approx((1.012, 0.997, 0.982, 0.967), abs=1e-15)


def test_the_ends_of_a_ramp_are_exact():
    """Regression: the last value was computed, and a ramp to 1 sometimes ended at 0.9999999999999999."""
    draw = random.Random(0)
    for steps in range(2, 40):
        for _ in range(50):
            first, last = draw.uniform(0.6, 1.6), draw.choice([1.0, draw.uniform(0.6, 1.6)])
            line = Coefficients.ramp(steps, c_x=(last, first), c_eps=(first, last))
            assert (line.c_eps[0], line.c_eps[-1], line.c_x[0], line.c_x[-1]) == (first, last, last, first)


def test_a_constant_ramp_is_exactly_constant():
    assert set(Coefficients.ramp(7, c_eps=(0.867, 0.867)).c_eps) == {0.867}


def test_a_ramp_of_one_step_is_its_first_value():
    assert Coefficients.ramp(1, c_x=(0.9, 1.1), c_eps=(1.2, 0.8)).at(0) == (0.9, 1.2)


# --- resample


@pytest.mark.parametrize("steps", [2, 3, 5, 8, 50])
def test_resample_keeps_both_ends(steps):
    result = FOUR.resample(steps)
    assert len(result) == steps
    assert (result.at(0), result.at(steps - 1)) == (FOUR.at(0), FOUR.at(3))


def test_resample_to_the_same_steps_changes_nothing():
    assert FOUR.resample(4) is FOUR


def test_resample_of_a_ramp_is_the_ramp():
    # 1e-15: a few roundings of numbers near 1.
    result = Coefficients.ramp(4, **PUBLISHED).resample(9)
    expected = Coefficients.ramp(9, **PUBLISHED)
    assert result.c_eps == pytest.approx(expected.c_eps, abs=1e-15)
    assert result.c_x == pytest.approx(expected.c_x, abs=1e-15)


def test_resample_is_linear_between_the_old_steps():
    result = FOUR.resample(7)
    assert result.c_eps[::2] == FOUR.c_eps
    # The halves between 0.9, 0.95, 1.05 and 1.1. 1e-15: one rounding.
    assert result.c_eps[1::2] == pytest.approx((0.925, 1.0, 1.075), abs=1e-15)


def test_resample_to_one_step_takes_the_noisiest_and_back_is_constant():
    one = FOUR.resample(1)
    assert one.at(0) == FOUR.at(0)
    assert one.resample(3) == Coefficients((1.02,) * 3, (0.9,) * 3)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_resample_to_no_possible_number_of_steps_is_refused(refused, steps):
    with refused(CoefficientError, f"has {max(steps, 0)} values"):
        FOUR.resample(steps)


# --- take


def test_take_keeps_the_order_and_the_last_pair_goes_on():
    assert FOUR.take(4) == FOUR
    assert FOUR.take(2) == Coefficients(FOUR.c_x[:2], FOUR.c_eps[:2])
    assert FOUR.take(6) == Coefficients((1.02, 1.01, 0.99, 0.97, 0.97, 0.97), (0.9, 0.95, 1.05, 1.1, 1.1, 1.1))


@pytest.mark.parametrize("steps", [0, -1])
def test_take_of_no_step_is_refused(refused, steps):
    with refused(CoefficientError, f"{steps} steps cannot be sampled.", steps=steps):
        FOUR.take(steps)


# --- blend


def test_blend_between_the_identity_and_as_is():
    assert FOUR.blend(0.0) == Coefficients.identity(4)
    assert FOUR.blend(1.0) is FOUR
    # 1e-15: one rounding of numbers near 1.
    assert FOUR.blend(0.5).c_eps == pytest.approx((0.95, 0.975, 1.025, 1.05), abs=1e-15)
    assert FOUR.blend(2.0).c_x == pytest.approx((1.04, 1.02, 0.98, 0.94), abs=1e-15)
    assert FOUR.blend(-1.0).c_x == pytest.approx((0.98, 0.99, 1.01, 1.03), abs=1e-15)


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf])
def test_a_strength_that_is_not_finite_is_refused(refused, strength):
    with refused(CoefficientError, f"strength is {strength}."):
        FOUR.blend(strength)


def test_a_strength_that_leaves_the_limits_is_refused(refused):
    with refused(CoefficientError, "c_eps[0] is -1."):
        FOUR.blend(20.0)


# --- for_sigmas


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("end", range(1, 5))
def test_a_slice_of_the_schedule_finds_exactly_its_own_values(first, end):
    """Start step, end step, split sampling: the run is own sigmas from ``first`` to ``end``."""
    if end <= first:
        return
    result = FOUR.for_sigmas(SIGMAS, SIGMAS[first : end + 1])
    assert result == Coefficients(FOUR.c_x[first:end], FOUR.c_eps[first:end])


def test_a_slice_in_float32_finds_the_same_values():
    """The host's sigmas are float32, a preset's are decimals: 14.6 is 14.6000003815 on the other side."""
    import torch

    run = [float(sigma) for sigma in torch.tensor(SIGMAS[1:], dtype=torch.float32)]
    assert FOUR.for_sigmas(SIGMAS, run) == Coefficients(FOUR.c_x[1:], FOUR.c_eps[1:])


def test_the_same_number_of_steps_is_the_same_schedule():
    assert FOUR.for_sigmas(SIGMAS, (14.5, 7.0, 4.0, 2.0, 0.0)) is FOUR  # another shift, the same beginning


def test_as_many_steps_from_a_lower_sigma_are_the_end_of_the_schedule():
    """denoise < 1: the host runs the asked number of steps, but begins in the middle."""
    result = FOUR.for_sigmas(SIGMAS, (6.3, 2.9, 2.0, 1.1, 0.0))
    assert (result.at(0), result.at(3)) == (FOUR.at(1), FOUR.at(3))
    # 2.9 to 1.1 in two parts, of one half each; 1e-15: a few roundings of numbers near 1.
    assert result.c_x[1] * result.c_x[2] == pytest.approx(FOUR.c_x[2], abs=1e-15)
    assert result.c_x[1:3] == pytest.approx((FOUR.c_x[2] ** 0.5,) * 2, abs=1e-15)


def test_above_and_below_the_own_sigmas_there_is_no_jump():
    own, run = SIGMAS[1:4], (20.0, 10.0, 6.3, 2.9, 1.1, 0.5, 0.0)
    result = Coefficients(FOUR.c_x[1:3], FOUR.c_eps[1:3]).for_sigmas(own, run)
    assert result.c_x == (1.0, 1.0, FOUR.c_x[1], FOUR.c_x[2], 1.0, 1.0)
    # 1e-15: one rounding.
    assert result.c_eps == pytest.approx((FOUR.c_eps[1],) * 3 + (FOUR.c_eps[2],) * 3, abs=1e-15)


@pytest.mark.parametrize("parts", [2, 4, 8, 16])
@pytest.mark.parametrize("step", range(4))
def test_a_step_in_parts_does_what_the_step_does(step, parts):
    """Of any lengths. The network's output is constant along a step: every sampler takes it so."""
    start, end = SIGMAS[step : step + 2]
    draw = random.Random(parts)
    inner = [end + (start - end) * draw.uniform(0.01, 0.99) for _ in range(parts - 1)]  # nearer ones are the ends
    run = sorted([start, end, *inner], reverse=True)
    result = FOUR.for_sigmas(SIGMAS, run)
    x, output = 1.7, -0.6
    for (a, b), c_x, c_eps in zip(zip(run, run[1:], strict=False), result.c_x, result.c_eps, strict=True):
        x = c_x * x + c_eps * (b - a) * output
    # 1e-12: 16 roundings of numbers near 10.
    assert x == pytest.approx(FOUR.c_x[step] * 1.7 + FOUR.c_eps[step] * (end - start) * output, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_step_over_several_own_ones_does_what_they_do(steps):
    run = {1: (SIGMAS[0], 0.0), 2: (SIGMAS[0], SIGMAS[2], 0.0), 3: (SIGMAS[0], SIGMAS[1], 2.0, 0.0)}[steps]

    def walk(coefficients, sigmas):
        x = 1.7
        for i, (a, b) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
            x = coefficients.c_x[i] * x + coefficients.c_eps[i] * (b - a) * -0.6
        return x

    assert walk(FOUR.for_sigmas(SIGMAS, run), run) == pytest.approx(walk(FOUR, SIGMAS), abs=1e-12)


PARTS = (1, 2, 4, 8, 16)
GAUSSIANS = [
    pytest.param(own, flow, spread, id=f"{'flow' if flow else 'noise'}-{spread}")
    for own, flow in [((1.0, 0.75, 0.5, 0.25, 0.0), True), ((2.9, 1.6, 0.9, 0.4, 0.0), False)]
    for spread in (0.8, 0.5)
]
"""Own sigmas, whether they are a flow's, and the standard deviation of the pictures. Of the exact denoiser of such
pictures everything is linear in x, so what a step does is one number."""
FACTORS = [
    pytest.param(Coefficients.constant(4, c_x=0.96), id="c_x"),
    pytest.param(Coefficients.constant(4, c_eps=1.05), id="c_eps"),
    pytest.param(FOUR, id="both"),
]


def deviation(sigma: float, flow: bool, spread: float) -> float:
    """Of x at a sigma. The exact solution of the plain model contracts x as this falls."""
    return math.hypot((1 - sigma) * spread if flow else spread, sigma)


def exact_effect(result: Coefficients, sigmas, flow: bool, spread: float) -> float:
    """Logarithm of how much wider the pictures become where each step is solved exactly: by s·P^r in place of P."""
    total = 0.0
    for s, m, a, b in zip(result.c_x, result.c_eps, sigmas, sigmas[1:], strict=False):
        rate = m * math.log(s) / (s - 1) if s != 1 else m
        total += math.log(s) + (rate - 1) * math.log(deviation(b, flow, spread) / deviation(a, flow, spread))
    return total


def euler_effect(result: Coefficients, sigmas, flow: bool, spread: float) -> float:
    """The same of the published step, against the plain Euler step."""
    total = 0.0
    for s, m, a, b in zip(result.c_x, result.c_eps, sigmas, sigmas[1:], strict=False):
        output = (a - (1 - a) * spread**2 if flow else a) / deviation(a, flow, spread) ** 2
        total += math.log((s + m * (b - a) * output) / (1 + (b - a) * output))
    return total


def parted(sigmas, parts: int) -> list[float]:
    inner = [a + (b - a) * k / parts for a, b in zip(sigmas, sigmas[1:], strict=False) for k in range(parts)]
    return [*inner, sigmas[-1]]


@pytest.mark.parametrize(("own", "flow", "spread"), GAUSSIANS)
@pytest.mark.parametrize("factors", FACTORS)
def test_a_range_of_sigma_has_one_effect_in_any_number_of_steps(own, flow, spread, factors):
    """Regression: every step of the range jumped by c_x as a whole: 8 short steps of a second pass made contrast 8 %
    stronger where the preset's own run made it 1.4 %."""
    result = {parts: factors.for_sigmas(own, parted(own, parts)) for parts in PARTS}
    effects = [exact_effect(result[parts], parted(own, parts), flow, spread) for parts in PARTS]
    # 1e-12: 64 logarithms of numbers near 1.
    assert effects == pytest.approx([effects[0]] * 5, abs=1e-12)
    assert abs(effects[0]) > 1e-3
    jumps = [sum(map(math.log, result[parts].c_x)) for parts in PARTS]
    assert jumps == pytest.approx([sum(map(math.log, factors.c_x))] * 5, abs=1e-13)


@pytest.mark.parametrize(("own", "flow", "spread"), GAUSSIANS)
@pytest.mark.parametrize("factors", FACTORS)
def test_the_published_steps_have_that_effect_to_first_order(own, flow, spread, factors):
    """Euler's own error of a Gaussian, whose output is not constant along a step, halves when the steps do: what is
    left of 1 to 16 parts is the sampler's, not the rule's."""
    exact = exact_effect(factors, own, flow, spread)
    errors = []
    for parts in (1, 16, 64, 128):
        run = parted(own, parts)
        errors.append(euler_effect(factors.for_sigmas(own, run), run, flow, spread) - exact)
    assert abs(errors[2]) < abs(errors[1]) / 2 < abs(errors[0])
    # Extrapolated from 64 to 128 nothing of the first order is left. 2e-5: the second, 1/64² of a step's curvature.
    assert 2 * errors[3] == pytest.approx(errors[2], abs=2e-5)


@pytest.mark.parametrize("c_x", [1 + 2**-52, 1 - 2**-53, 1 + 1e-12, 1 + 1e-7])
def test_a_jump_of_next_to_nothing_leaves_the_rate_alone(c_x):
    """Regression: 1 - s^w was 0 where 1 - s was not, and c_eps became 0."""
    result = Coefficients.constant(4, c_x=c_x, c_eps=1.05).for_sigmas(SIGMAS, parted(SIGMAS, 3))
    # 1e-7: what the largest of these jumps does to the rate.
    assert result.c_eps == pytest.approx((1.05,) * 12, abs=1e-7)


def test_a_rate_is_not_divided():
    """c_eps multiplies how far a step goes, and short steps go less far by themselves."""
    result = Coefficients.constant(4, c_eps=1.05)
    assert result.for_sigmas(SIGMAS, parted(SIGMAS, 8)).c_eps == pytest.approx((1.05,) * 32, abs=1e-15)


def test_the_identity_is_the_identity_on_any_sigmas():
    for run in (parted(SIGMAS, 3), (20.0, 3.3, 0.1), (5.0, 0.0), (0.9, 0.7, 0.2)):
        assert Coefficients.identity(4).for_sigmas(SIGMAS, run).is_identity


def test_own_sigmas_of_another_length_fall_back_to_the_place_among_the_steps():
    assert FOUR.for_sigmas((1.0, 0.0), SIGMAS[1:]) == FOUR.resample(3)


def test_a_run_without_a_step_is_refused(refused):
    with refused(CoefficientError, "0 values"):
        FOUR.for_sigmas(SIGMAS, (1.1,))


def test_public_names_are_there():
    assert [name for name in qs.__all__ if not hasattr(qs, name)] == []
