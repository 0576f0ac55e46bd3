"""How the step of a scheduler with a preset is called: arguments, types, where a run begins, what stops it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from exactness import same_bits
from scheduler_cases import CASES, FAMILIES, FOUR, NO_NUMPY_WARNING, SHAPE, put

from qsched_core import SamplingError

pytestmark = NO_NUMPY_WARNING


def test_pipelines_still_see_what_the_step_takes(diffusers):
    scheduler = CASES["tcd"].make(diffusers)
    before = inspect.signature(scheduler.step)
    put(scheduler, CASES["tcd"].preset(scheduler))
    assert inspect.signature(scheduler.step) == before
    assert {"eta", "generator"} <= set(before.parameters)
    assert scheduler.step.__name__ == "step"


@pytest.mark.parametrize("by_name", [False, True], ids=["positions", "names"])
@pytest.mark.parametrize("return_dict", [False, True], ids=["tuple", "object"])
def test_the_rest_of_the_call_is_handed_on_unchanged(diffusers, return_dict, by_name):
    case = CASES["tcd"]
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler))

    def call(scheduler: Any, c_x: float, c_eps: float) -> Any:
        names = ("model_output", "timestep", "sample", "eta", "generator", "return_dict")
        output, sample = torch.full(SHAPE, 0.3 * c_eps), torch.full(SHAPE, 2.0 * c_x)
        values = (output, scheduler.timesteps[0], sample, 0.7, torch.Generator().manual_seed(1), return_dict)
        return scheduler.step(**dict(zip(names, values, strict=True))) if by_name else scheduler.step(*values)

    result, expected = call(scheduler, 1.0, 1.0), call(case.make(diffusers), *FOUR.at(0))
    assert type(result) is type(expected)
    # 1e-6: 2·1.12 is made in float32 on one side, in float64 on the other.
    torch.testing.assert_close(result[0], expected[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(result[1], expected[1], rtol=1e-6, atol=1e-6)


@FAMILIES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_what_it_is(diffusers, case, dtype):
    """A sample that came back wider would not fit the network's weights."""
    scheduler, stock = case.make(diffusers), case.make(diffusers)
    if case.scaled:
        scheduler.alphas_cumprod = stock.alphas_cumprod = stock.alphas_cumprod.float()
    put(scheduler, case.preset(case.make(diffusers)))
    pair = torch.ones(SHAPE, dtype=dtype), scheduler.timesteps[0], torch.ones(SHAPE, dtype=dtype)
    assert scheduler.step(*pair).prev_sample.dtype == stock.step(*pair).prev_sample.dtype


def test_the_inputs_are_left_alone(diffusers):
    case = CASES["flow"]
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler))
    output, sample = torch.ones(SHAPE), torch.ones(SHAPE)
    scheduler.step(output, scheduler.timesteps[0], sample)
    assert output.eq(1).all()
    assert sample.eq(1).all()


@FAMILIES
@pytest.mark.parametrize("begin", ["begin index", "timestep"])
def test_a_run_that_begins_in_the_middle_finds_its_own_pairs(diffusers, case, begin):
    """img2img: pipelines set the begin index; without it schedulers look for the timestep."""
    scheduler, stock = case.make(diffusers), case.make(diffusers)
    applied = put(scheduler, case.preset(scheduler), if_differs="refuse")
    if begin == "begin index":
        scheduler.set_begin_index(2)
        stock.set_begin_index(2)
    assert same_bits(case.walk(scheduler, first=2), case.by_hand(stock, FOUR, first=2))
    assert applied.differences == []


def test_a_timestep_may_be_a_number(diffusers):
    case = CASES["lcm"]
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler))
    result = scheduler.step(torch.ones(SHAPE), int(scheduler.timesteps[3]), torch.ones(SHAPE)).prev_sample
    expected = case.make(diffusers)
    expected = expected.step(torch.full(SHAPE, 1.15), int(expected.timesteps[3]), torch.full(SHAPE, 0.9)).prev_sample
    assert same_bits(result, expected)


def test_a_step_that_is_not_finite_is_named(diffusers, refused):
    case = CASES["euler"]
    scheduler = case.make(diffusers)
    put(scheduler, case.preset(scheduler))
    output, sample = torch.ones(SHAPE), case.start(scheduler)
    for timestep in scheduler.timesteps[:2]:
        sample = scheduler.step(output, timestep, scheduler.scale_model_input(sample, timestep)).prev_sample
    output[0, 0, 0, 0] = torch.nan
    fields = {"step": 2, "sigma": float(scheduler.sigmas[2]), "c_x": 1.07, "c_eps": 0.93}
    with refused(SamplingError, "step 3 (sigma 0.93", "c_x 1.07, c_eps 0.93", **fields):
        scheduler.step(output, scheduler.timesteps[2], sample)


def test_a_sigma_for_every_token_is_refused(diffusers, refused):
    """LTX-Video holds some tokens still; c_x would change them."""
    case = CASES["flow"]
    scheduler = case.make(diffusers)
    tokens = {"per_token_timesteps": torch.full((1, 6), 1000.0)}
    pair = torch.ones(1, 6, 4), scheduler.timesteps[0], torch.ones(1, 6, 4)
    with put(scheduler, case.preset(scheduler)), refused(SamplingError, "every token"):
        scheduler.step(*pair, **tokens)
    with put(scheduler, case.preset(scheduler), strength=0.0):
        scheduler.step(*pair, **tokens)
