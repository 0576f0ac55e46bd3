"""A preset on each of diffusers' schedulers, against the scheduler's own step by hand and against our sampler."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from scheduler_cases import CASES, EVERY, FLOW_EULER, FOUR, NO_NUMPY_WARNING, Case, put

from qsched_core import Coefficients, Preset

pytestmark = NO_NUMPY_WARNING


@EVERY
def test_is_the_schedulers_own_step_on_the_scaled_pair(diffusers, case):
    scheduler = case.make(diffusers)
    applied = put(scheduler, case.preset(scheduler))
    assert same_bits(case.walk(scheduler), case.by_hand(case.make(diffusers), FOUR))
    assert applied.differences == []


@EVERY
def test_is_our_sampler_of_that_name(diffusers, case):
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler))
    result, expected = case.walk(scheduler), case.ours(case.make(diffusers), FOUR)
    assert result.dtype == case.dtype
    # Of values about 1 to 15. float64: a few roundings in each of four steps. The others compute in float32 whatever
    # they are given, and Euler's x - D carries 15 units in the last place.
    torch.testing.assert_close(
        result.double(), expected, **dict.fromkeys(("rtol", "atol"), 1e-12 if case.scaled else 2e-5)
    )


@EVERY
@pytest.mark.parametrize(("coefficients", "strength"), [(Coefficients.identity(4), 1.0), (FOUR, 0.0)])
def test_the_identity_and_no_strength_change_not_a_bit(diffusers, case, coefficients, strength):
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler, coefficients), strength=strength)
    assert same_bits(case.walk(scheduler), case.walk(case.make(diffusers)))


def test_strength_is_a_blend_with_the_identity(diffusers):
    case = CASES["euler"]
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler), strength=0.5)
    assert same_bits(case.walk(scheduler), case.by_hand(case.make(diffusers), FOUR.blend(0.5)))


def test_inverted_sigmas_are_read_the_other_way_round(diffusers):
    """Mochi: the scheduler counts from 0 to 1. Twice the steps, so that the place among the steps is no help."""
    case = Case(FLOW_EULER, "euler", {"invert_sigmas": True}, prediction="CONST")
    scheduler = case.make(diffusers)
    preset = Preset(FOUR, (1.0, 0.75, 0.5, 0.25, 0.0), case.binding)
    scheduler.set_timesteps(sigmas=[1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    put(scheduler, preset)
    stock = case.make(diffusers)
    stock.set_timesteps(sigmas=[1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    expected = FOUR.for_sigmas(preset.sigmas, [i / 8 for i in range(8, -1, -1)])
    # Steps 3 and 4 are halves of the preset's second: 1e-15, a few roundings of numbers near 1.
    assert expected.c_x[2] * expected.c_x[3] == pytest.approx(FOUR.c_x[1], abs=1e-15)
    # 1e-5: 1 - sigma in float32 on one side, exact eighths on the other.
    torch.testing.assert_close(case.walk(scheduler), case.by_hand(stock, expected), rtol=1e-5, atol=1e-5)
