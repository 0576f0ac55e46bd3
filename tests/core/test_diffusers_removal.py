"""A preset is taken off, replaced, copied, and wrapped by others: the scheduler's own step always comes back."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from exactness import same_bits
from scheduler_cases import CASES, FAMILIES, FOUR, NO_NUMPY_WARNING, put

from qsched_core import Binding, Coefficients, PresetError
from qsched_core.diffusers import apply_preset

pytestmark = NO_NUMPY_WARNING


def test_removing_gives_back_the_schedulers_own_step(diffusers):
    case = CASES["ancestral"]
    scheduler = case.make(diffusers)
    own = scheduler.step
    applied = put(scheduler, case.preset(scheduler))
    assert scheduler.step is applied
    for _ in range(2):
        applied.remove()
        assert "step" not in vars(scheduler)
        assert scheduler.step == own
    assert same_bits(case.walk(scheduler), case.walk(case.make(diffusers)))


def test_a_with_block_removes_it_after_an_error_too(diffusers):
    scheduler = CASES["euler"].make(diffusers)
    with pytest.raises(ZeroDivisionError), put(scheduler, CASES["euler"].preset(scheduler)) as applied:
        assert scheduler.step is applied
        raise ZeroDivisionError
    assert "step" not in vars(scheduler)


def test_a_second_preset_replaces_the_first(diffusers):
    case, other = CASES["euler"], Coefficients.ramp(4, c_eps=(0.9, 1.1))
    scheduler = case.make(diffusers)
    first = put(scheduler, case.preset(scheduler))
    second = put(scheduler, case.preset(scheduler, other))
    first.remove()
    assert same_bits(case.walk(scheduler), case.by_hand(case.make(diffusers), other))
    second.remove()
    assert "step" not in vars(scheduler)


def test_a_second_preset_that_is_refused_leaves_the_first(diffusers, refused):
    case = CASES["euler"]
    scheduler = case.make(diffusers)
    first = put(scheduler, case.preset(scheduler))
    with refused(PresetError, "does not fit"):
        put(scheduler, replace(case.preset(scheduler), binding=Binding(sampler="lcm")), if_differs="refuse")
    assert scheduler.step is first


def test_a_wrapper_of_others_on_ours_stays_and_ours_is_gone(diffusers):
    case, calls = CASES["euler"], []
    scheduler = case.make(diffusers)
    applied = put(scheduler, case.preset(scheduler))

    @functools.wraps(applied)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return applied(*args, **kwargs)

    scheduler.step = counted
    applied.remove()
    assert same_bits(case.walk(scheduler), case.by_hand(case.make(diffusers), Coefficients.identity(4)))
    assert len(calls) == 4


def test_a_second_preset_over_a_wrapper_of_others_replaces_the_first(diffusers):
    case = CASES["euler"]
    scheduler = case.make(diffusers)
    applied = put(scheduler, case.preset(scheduler))
    scheduler.step = functools.wraps(applied)(lambda *args, **kwargs: applied(*args, **kwargs))
    put(scheduler, case.preset(scheduler))
    assert same_bits(case.walk(scheduler), case.by_hand(case.make(diffusers), FOUR))


def test_a_wrapper_of_others_under_ours_comes_back(diffusers):
    scheduler = CASES["euler"].make(diffusers)
    theirs = scheduler.step = functools.partial(scheduler.step)
    put(scheduler, CASES["euler"].preset(scheduler)).remove()
    assert vars(scheduler)["step"] is theirs


@FAMILIES
def test_a_deep_copy_has_a_preset_of_its_own(diffusers, case):
    scheduler = case.make(diffusers)
    applied = put(scheduler, case.preset(scheduler))
    twin = copy.deepcopy(scheduler)
    expected = case.by_hand(case.make(diffusers), FOUR)
    assert same_bits(case.walk(twin), expected)
    assert scheduler.step_index is None, "the copy stepped the original"
    applied.remove()
    twin.set_timesteps(4)
    assert same_bits(case.walk(twin), expected)
    twin.step.remove()
    assert "step" not in vars(twin)


def test_a_state_that_is_saved_and_put_back_keeps_the_preset(diffusers):
    """Panorama pipelines keep ``deepcopy(scheduler.__dict__)`` per view and update the scheduler with it."""
    case = CASES["ancestral"]
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler))
    saved = copy.deepcopy(vars(scheduler))
    expected = case.walk(scheduler)
    for _ in range(2):
        vars(scheduler).update(copy.deepcopy(saved))
        assert same_bits(case.walk(scheduler), expected)
        assert scheduler.step_index == 4


def test_from_config_makes_a_stock_scheduler(diffusers):
    case = CASES["euler"]
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler))
    fresh = type(scheduler).from_config(scheduler.config)
    assert "step" not in vars(fresh)


def test_the_preset_stays_with_the_scheduler_it_was_put_on(diffusers):
    case = CASES["euler"]
    pipe = SimpleNamespace(scheduler=case.make(diffusers))
    old, applied = pipe.scheduler, apply_preset(pipe, case.preset(pipe.scheduler))
    pipe.scheduler = case.make(diffusers)
    assert "step" not in vars(pipe.scheduler)
    assert same_bits(case.walk(old), case.by_hand(case.make(diffusers), FOUR))
    applied.remove()
    assert "step" not in vars(old)
