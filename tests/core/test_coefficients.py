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
    made = Coefficients([1], [2])
    assert (made.c_x, made.c_eps) == ((1.0,), (2.0,))
    assert {type(value) for value in made.c_x + made.c_eps} == {float}


def test_length_and_at_count_from_the_noisiest_step():
    assert len(FOUR) == 4
    assert FOUR.at(0) == (1.02, 0.9)
    assert FOUR.at(3) == (0.97, 1.1)


@pytest.mark.parametrize("edge", [0.1, 10.0])
def test_the_limits_themselves_are_allowed(edge):
    assert Coefficients((edge,), (edge,)).at(0) == (edge, edge)


@pytest.mark.parametrize("name", ["c_x", "c_eps"])
@pytest.mark.parametrize(
    ("value", "shown"),
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
def test_a_value_that_is_not_finite_or_out_of_range_is_named(refused, name, value, shown):
    values = {"c_x": (1.0, 1.0), "c_eps": (1.0, 1.0)} | {name: (1.0, value)}
    with refused(CoefficientError, f"{name}[1] is {shown}.", "[0.1, 10.0]", name=name):
        Coefficients(**values)


def test_unequal_lengths_are_refused_with_both_lengths(refused):
    with refused(CoefficientError, "c_x has 2 values and c_eps has 3.", c_x=2, c_eps=3):
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
    made = Coefficients.identity(steps)
    assert made.is_identity
    assert made.c_x == made.c_eps == (1.0,) * steps
    assert Coefficients.ramp(steps) == made


@pytest.mark.parametrize(("c_x", "c_eps"), [((1.0, 1.0), (1.0, 1.0 + 1e-15)), ((1.0 - 1e-15, 1.0), (1.0, 1.0))])
def test_one_value_off_one_is_no_identity(c_x, c_eps):
    assert not Coefficients(c_x, c_eps).is_identity


def test_the_published_ramp_is_a_straight_line():
    made = Coefficients.ramp(4, **PUBLISHED)
    # By hand: 0.955 + i·0.048 and 1.012 - i·0.015. 1e-15: a few roundings of numbers near 1.
    assert made.c_eps == pytest.approx((0.955, 1.003, 1.051, 1.099), abs=1e-15)
    assert made.c_x == pytest.approx((1.012, 0.997, 0.982, 0.967), abs=1e-15)


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
    made = FOUR.resample(steps)
    assert len(made) == steps
    assert (made.at(0), made.at(steps - 1)) == (FOUR.at(0), FOUR.at(3))


def test_resample_to_the_same_steps_changes_nothing():
    assert FOUR.resample(4) is FOUR


def test_resample_of_a_ramp_is_the_ramp():
    # 1e-15: a few roundings of numbers near 1.
    made = Coefficients.ramp(4, **PUBLISHED).resample(9)
    wanted = Coefficients.ramp(9, **PUBLISHED)
    assert made.c_eps == pytest.approx(wanted.c_eps, abs=1e-15)
    assert made.c_x == pytest.approx(wanted.c_x, abs=1e-15)


def test_resample_is_linear_between_the_old_steps():
    made = FOUR.resample(7)
    assert made.c_eps[::2] == FOUR.c_eps
    # The halves between 0.9, 0.95, 1.05 and 1.1. 1e-15: one rounding.
    assert made.c_eps[1::2] == pytest.approx((0.925, 1.0, 1.075), abs=1e-15)


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
    made = FOUR.for_sigmas(SIGMAS, SIGMAS[first : end + 1])
    assert made == Coefficients(FOUR.c_x[first:end], FOUR.c_eps[first:end])


def test_a_slice_in_float32_finds_the_same_values():
    """The host's sigmas are float32, a preset's are decimals: 14.6 is 14.6000003815 on the other side."""
    import torch

    run = [float(sigma) for sigma in torch.tensor(SIGMAS[1:], dtype=torch.float32)]
    assert FOUR.for_sigmas(SIGMAS, run) == Coefficients(FOUR.c_x[1:], FOUR.c_eps[1:])


def test_the_same_number_of_steps_is_the_same_schedule():
    assert FOUR.for_sigmas(SIGMAS, (14.5, 7.0, 4.0, 2.0, 0.0)) is FOUR  # another shift, the same beginning


def test_as_many_steps_from_a_lower_sigma_are_the_end_of_the_schedule():
    """denoise < 1: the host runs the asked number of steps, but begins in the middle."""
    made = FOUR.for_sigmas(SIGMAS, (6.3, 2.9, 2.0, 1.1, 0.0))
    assert (made.c_x[0], made.c_x[1], made.c_x[3]) == (FOUR.c_x[1], FOUR.c_x[2], FOUR.c_x[3])
    assert FOUR.c_x[3] < made.c_x[2] < FOUR.c_x[2]


def test_a_sigma_between_two_is_interpolated_and_outside_is_clamped():
    # 4.6 is half-way between 6.3 and 2.9; 20 is above all; 0.5 is below all starting sigmas.
    made = FOUR.for_sigmas(SIGMAS, (20.0, 4.6, 0.5, 0.0))
    assert made.c_eps == pytest.approx((0.9, 1.0, 1.1), abs=1e-12)  # 1e-12: 4.6 is half-way to one rounding only
    assert made.c_x == pytest.approx((1.02, 1.0, 0.97), abs=1e-12)


def test_more_steps_over_the_same_sigmas_keep_both_ends():
    run = (14.6, 10.0, 6.3, 4.0, 2.9, 1.1, 0.0)
    made = FOUR.for_sigmas(SIGMAS, run)
    assert (made.at(0), made.at(2), made.at(4), made.at(5)) == (FOUR.at(0), FOUR.at(1), FOUR.at(2), FOUR.at(3))
    assert 0.9 < made.c_eps[1] < 0.95 < made.c_eps[3] < 1.05


def test_own_sigmas_of_another_length_fall_back_to_the_place_among_the_steps():
    assert FOUR.for_sigmas((1.0, 0.0), SIGMAS[1:]) == FOUR.resample(3)


def test_a_run_without_a_step_is_refused(refused):
    with refused(CoefficientError, "0 values"):
        FOUR.for_sigmas(SIGMAS, (1.1,))


def test_public_names_are_there():
    assert [name for name in qs.__all__ if not hasattr(qs, name)] == []
