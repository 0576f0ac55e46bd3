"""Presets on diffusers' schedulers: against their own steps by hand, against our samplers, and in real pipelines."""

from __future__ import annotations

import copy
import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from exactness import same_bits
from torch import Tensor

import qsched_core as qs
import qsched_core.diffusers
from qsched_core import Binding, CoefficientError, Coefficients, Preset, PresetError, SamplingError
from qsched_core.diffusers import apply_preset

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (2, 4, 3, 3)
FOUR = Coefficients((1.12, 0.94, 1.07, 0.9), (0.85, 1.06, 0.93, 1.15))
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}

# diffusers' schedulers hand tensors to numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array_.*:DeprecationWarning")


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    import diffusers

    return diffusers


# --- every scheduler, on one small network


def network(x: Tensor, sigma: Tensor | float) -> Tensor:
    """A smooth stand-in for a network, with outputs about 1; the same function in every dtype."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    mixed = x.roll(1, dims=1) * 0.7 + x.flip(-1) * 0.4 - x * 0.2
    return (torch.tanh(mixed / (1 + sigma**2) ** 0.5 + 0.3 * torch.cos(sigma)) + 0.1).to(x.dtype)


@dataclass(frozen=True)
class Case:
    """A diffusers scheduler, the sampler of ours that is the same, and what goes into its step."""

    scheduler: str
    sampler: str
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    prediction: str = "EPS"

    @property
    def flow(self) -> bool:
        return self.prediction == "CONST"

    @property
    def scaled(self) -> bool:
        """Whether the scheduler's sample is sqrt(alpha_bar)·x, not x; those keep float64."""
        return self.sampler in ("tcd", "lcm") and not self.flow

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.scaled else torch.float32

    @property
    def binding(self) -> Binding:
        return Binding(prediction=self.prediction, sampler=self.sampler)

    def make(self, diffusers: ModuleType, steps: int = 4) -> Any:
        scheduler = getattr(diffusers, self.scheduler)(**({} if self.flow else SD) | self.config)
        if self.scaled:
            scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        scheduler.set_timesteps(steps)
        return scheduler

    def sigmas(self, scheduler: Any) -> Tensor:
        """(n + 1,) in float64, in the host's sense."""
        if not self.scaled:
            sigmas = scheduler.sigmas.double()
            return 1 - sigmas if self.config.get("invert_sigmas") else sigmas
        return torch.cat([self.table(scheduler)[scheduler.timesteps], torch.zeros(1, dtype=torch.float64)])

    def table(self, scheduler: Any) -> Tensor:
        return (1 / scheduler.alphas_cumprod.double() - 1).sqrt()

    def preset(self, scheduler: Any, coefficients: Coefficients = FOUR) -> Preset:
        return Preset(coefficients, tuple(self.sigmas(scheduler).tolist()), self.binding)

    def start(self, scheduler: Any) -> Tensor:
        first = 1.0 if self.scaled or self.flow else scheduler.init_noise_sigma
        return first * torch.randn(SHAPE, dtype=self.dtype, generator=torch.Generator().manual_seed(3))

    def predict(self, sample: Tensor, sigma: Tensor) -> Tensor:
        return network(sample * (1 + sigma**2).sqrt().to(self.dtype) if self.scaled else sample, sigma)

    def walk(self, scheduler: Any, first: int = 0, step: Callable[..., Any] | None = None, seed: int = 7) -> Tensor:
        """A pipeline's loop over the scheduler's own (or another) step."""
        step = step or (lambda i, *args, **kwargs: scheduler.step(*args, **kwargs))
        sample, sigmas, generator = self.start(scheduler), self.sigmas(scheduler), torch.Generator().manual_seed(seed)
        for i in range(first, len(scheduler.timesteps)):
            timestep = scheduler.timesteps[i]
            if not self.flow:
                scheduler.scale_model_input(sample, timestep)
            output = self.predict(sample, sigmas[i])
            sample = step(i, output, timestep, sample, generator=generator, **self.options).prev_sample
        return sample

    def by_hand(self, scheduler: Any, coefficients: Coefficients, first: int = 0) -> Tensor:
        """The published schedulers: their update on c_x·sample and c_eps·output. ``scheduler`` is a stock one."""
        assert "step" not in vars(scheduler)

        def scaled(i: int, output: Tensor, timestep: Tensor, sample: Tensor, **kwargs: Any) -> Any:
            c_x, c_eps = coefficients.at(i)
            return scheduler.step(c_eps * output, timestep, c_x * sample, **kwargs)

        return self.walk(scheduler, first, scaled)

    def denoised(self, scheduler: Any, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        kind = scheduler.config.get("prediction_type", "epsilon")
        noise_free = {
            "epsilon": lambda: x - sigma * output,
            "v_prediction": lambda: x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5,
            "sample": lambda: output,
        }[kind]()
        if self.scheduler != "LCMScheduler":
            return noise_free
        nearest = (self.table(scheduler) - sigma).abs().argmin()
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(nearest)
        return c_out * noise_free + c_skip * x / (1 + sigma**2) ** 0.5

    def ours(self, scheduler: Any, coefficients: Coefficients) -> Tensor:
        """The run in the host's variables: x = sample / sqrt(alpha_bar), and only the denoised prediction is seen."""
        sigmas, options = self.sigmas(scheduler), dict(self.options)
        start, generator = self.start(scheduler).double(), torch.Generator().manual_seed(7)
        end = 1.0
        if self.scaled:
            start = start * (1 + sigmas[0] ** 2).sqrt()
        if self.sampler == "tcd":
            options["table"] = self.table(scheduler)
            sigmas[-1] = options["table"][0]  # diffusers ends at timestep 0
            end = scheduler.alphas_cumprod[0].sqrt()

        def at(x: Tensor, sigma: Tensor, output: Tensor | None = None) -> Tensor:
            sigma = sigma[0]
            output = network(x, sigma) if output is None else output
            return self.denoised(scheduler, output, x, sigma)

        return end * qs.sample(
            self.sampler,
            at,
            start,
            sigmas,
            coefficients,
            flow=self.flow,
            zero_denoised=lambda x, sigma: at(x, sigma, torch.zeros_like(x)),
            noise_sampler=lambda *_: torch.randn(SHAPE, dtype=self.dtype, generator=generator).double(),
            **options,
        )


V, X0 = {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}
FLOW_EULER, FLOW_LCM = "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"
# As distilled models have it c_skip is below 1e-5; with this scaling it reaches 0.5.
SKIP = {"timestep_scaling": 0.002}
CASES = {
    "euler": Case("EulerDiscreteScheduler", "euler"),
    "euler v": Case("EulerDiscreteScheduler", "euler", V, prediction="V_PREDICTION"),
    "euler x0": Case("EulerDiscreteScheduler", "euler", X0, prediction="X0"),
    "euler karras": Case("EulerDiscreteScheduler", "euler", {"use_karras_sigmas": True}),
    "ancestral": Case("EulerAncestralDiscreteScheduler", "euler_ancestral", {"timestep_spacing": "trailing"}),
    "ancestral v": Case("EulerAncestralDiscreteScheduler", "euler_ancestral", V, prediction="V_PREDICTION"),
    "tcd": Case("TCDScheduler", "tcd", options={"eta": 0.3}),
    "tcd eta 0": Case("TCDScheduler", "tcd", options={"eta": 0.0}),
    "tcd eta 1": Case("TCDScheduler", "tcd", options={"eta": 1.0}),
    "tcd v": Case("TCDScheduler", "tcd", V, {"eta": 0.3}, prediction="V_PREDICTION"),
    "tcd x0": Case("TCDScheduler", "tcd", X0, {"eta": 0.3}, prediction="X0"),
    "lcm": Case("LCMScheduler", "lcm", prediction="LCM"),
    "lcm skip": Case("LCMScheduler", "lcm", SKIP, prediction="LCM"),
    "lcm v": Case("LCMScheduler", "lcm", V | SKIP, prediction="V_PREDICTION"),
    "flow": Case(FLOW_EULER, "euler", {"shift": 3.0}, prediction="CONST"),
    "flow stochastic": Case(FLOW_EULER, "lcm", {"stochastic_sampling": True}, prediction="CONST"),
    "flow lcm": Case(FLOW_LCM, "lcm", {"shift": 2.0}, prediction="CONST"),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FAMILY = ("euler", "ancestral", "tcd", "lcm", "flow", "flow lcm")
FAMILIES = pytest.mark.parametrize("case", [CASES[name] for name in FAMILY], ids=FAMILY)


def put(scheduler: Any, preset: Preset, **options: Any) -> qsched_core.diffusers.Applied:
    return apply_preset(SimpleNamespace(scheduler=scheduler), preset, **options)


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


# --- how it is called


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


# --- what differs


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "qsched_core.diffusers"]


@FAMILIES
def test_other_steps_get_the_effect_of_their_range_of_sigma_and_it_is_told_once(diffusers, case, caplog):
    preset = case.preset(case.make(diffusers))
    scheduler = case.make(diffusers, steps=6)
    applied = put(scheduler, preset)
    assert applied.differences == []
    expected = FOUR.for_sigmas(preset.sigmas, case.sigmas(scheduler).tolist())
    assert expected != FOUR.resample(6)
    for _ in range(2):
        scheduler.set_timesteps(6)
        by_hand = case.by_hand(case.make(diffusers, steps=6), expected)
        # 1e-12: sigmas that were computed in another order decide how long a part of a step is.
        torch.testing.assert_close(case.walk(scheduler), by_hand, rtol=1e-12, atol=1e-12)
    assert applied.differences == ["steps: preset 4, here 6"]
    (warning,) = warnings_in(caplog)
    assert "each range of sigma gets its effect" in warning
    assert "steps: preset 4, here 6" in warning


@FAMILIES
@pytest.mark.parametrize("steps", [2, 6])
def test_used_as_is_the_steps_take_the_pairs_in_order(diffusers, case, steps, caplog):
    scheduler = case.make(diffusers, steps)
    applied = put(scheduler, case.preset(case.make(diffusers)), if_differs="use as is")
    assert same_bits(case.walk(scheduler), case.by_hand(case.make(diffusers, steps), FOUR.take(steps)))
    assert applied.differences == [f"steps: preset 4, here {steps}"]
    assert warnings_in(caplog) == []


@FAMILIES
def test_refused_other_steps_end_the_run_before_its_first_step(diffusers, case, refused):
    scheduler = case.make(diffusers, steps=6)
    put(scheduler, case.preset(case.make(diffusers)), if_differs="refuse")
    for _ in range(2):
        with refused(PresetError, "steps: preset 4, here 6"):
            case.walk(scheduler)
        assert scheduler.step_index in (None, 0)
    scheduler.set_timesteps(4)
    assert same_bits(case.walk(scheduler), case.by_hand(case.make(diffusers), FOUR))


def test_other_sigmas_are_a_difference(diffusers, refused):
    preset = CASES["euler"].preset(CASES["euler"].make(diffusers))
    karras = CASES["euler karras"].make(diffusers)
    put(karras, preset, if_differs="refuse")
    with refused(PresetError, "sigmas: preset 14.61, "):
        CASES["euler"].walk(karras)


@pytest.mark.parametrize(
    ("binding", "part"),
    [
        (Binding(sampler="euler_ancestral"), "sampler: preset 'euler_ancestral', here 'euler'"),
        (Binding(prediction="V_PREDICTION"), "prediction: preset 'V_PREDICTION', here 'EPS'"),
        (Binding(prediction="CONST"), "prediction: preset 'CONST', here 'EPS'"),
        (Binding(prediction="LCM"), "prediction: preset 'LCM', here 'EPS'"),
    ],
    ids=["sampler", "v", "flow", "lcm"],
)
def test_another_kind_of_scheduler_is_known_at_once(diffusers, refused, caplog, binding, part):
    scheduler = CASES["euler"].make(diffusers)
    preset = replace(CASES["euler"].preset(scheduler), binding=binding)
    with refused(PresetError, "does not fit"):
        put(scheduler, preset, if_differs="refuse")
    assert "step" not in vars(scheduler)
    assert put(scheduler, preset).differences == [part]
    assert part in warnings_in(caplog)[0]


@EVERY
def test_a_preset_of_the_same_kind_does_not_differ(diffusers, case):
    scheduler = case.make(diffusers)
    assert put(scheduler, case.preset(scheduler), if_differs="refuse").differences == []


def test_lcm_with_plain_noise_prediction_in_the_host_is_the_same(diffusers):
    scheduler = CASES["lcm"].make(diffusers)
    preset = replace(CASES["lcm"].preset(scheduler), binding=Binding(prediction="EPS", sampler="lcm"))
    assert put(scheduler, preset, if_differs="refuse").differences == []


def test_what_a_scheduler_cannot_know_is_no_difference(diffusers):
    scheduler = CASES["euler"].make(diffusers)
    binding = Binding(model="SDXL", fingerprint="0123", quantization="w4a8", scheduler="sgm_uniform", cfg=7.0)
    preset = replace(CASES["euler"].preset(scheduler), binding=binding)
    assert put(scheduler, preset, if_differs="refuse").differences == []


# --- on, off, over, beside


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


# --- wrong inputs


@pytest.mark.parametrize("pipe", [object(), SimpleNamespace(scheduler=None), None], ids=["object", "None", "no pipe"])
def test_what_has_no_scheduler_is_refused(refused, pipe):
    with refused(SamplingError, f"{type(pipe).__name__} has no scheduler."):
        apply_preset(pipe, Preset(FOUR, (4.0, 3.0, 2.0, 1.0, 0.0)))


@pytest.mark.parametrize(
    ("name", "config", "why", "nearest"),
    [
        ("DPMSolverMultistepScheduler", {}, "keeps copies of earlier steps", "use EulerDiscreteScheduler.from_config"),
        ("UniPCMultistepScheduler", {}, "keeps copies of earlier steps", "use EulerDiscreteScheduler.from_config"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "keeps copies", "use FlowMatchEuler"),
        ("HeunDiscreteScheduler", {}, "keeps copies of earlier steps", "use EulerDiscreteScheduler"),
        ("KDPM2AncestralDiscreteScheduler", {}, "keeps copies of earlier", "use EulerAncestralDiscreteScheduler"),
        ("FlowMatchHeunDiscreteScheduler", {}, "keeps copies of earlier steps", "use FlowMatchEulerDiscreteScheduler"),
        ("PNDMScheduler", {}, "keeps copies of earlier steps", "use EulerDiscreteScheduler"),
        ("DDIMScheduler", {}, "not one that Q-Sched drives exactly", "use EulerDiscreteScheduler"),
        ("DDPMScheduler", {}, "not one that Q-Sched drives exactly", "use EulerAncestralDiscreteScheduler"),
        ("SCMScheduler", {}, "not one that Q-Sched drives exactly", "takes EulerDiscreteScheduler, EulerAncestral"),
    ],
)
def test_other_schedulers_are_refused_and_the_nearest_named(diffusers, refused, name, config, why, nearest):
    scheduler = getattr(diffusers, name)(**config)
    with refused(SamplingError, f"{name} ", why, nearest, scheduler=name):
        put(scheduler, Preset(FOUR, (4.0, 3.0, 2.0, 1.0, 0.0)))
    assert "step" not in vars(scheduler)


def test_a_scheduler_made_from_an_exact_one_is_exact(diffusers):
    class Mine(diffusers.EulerDiscreteScheduler):
        pass

    scheduler = Mine(**SD)
    scheduler.set_timesteps(4)
    put(scheduler, CASES["euler"].preset(scheduler), if_differs="refuse")
    assert same_bits(CASES["euler"].walk(scheduler), CASES["euler"].by_hand(CASES["euler"].make(diffusers), FOUR))


@pytest.mark.parametrize("preset", ["mine.safetensors", FOUR, None], ids=["path", "coefficients", "None"])
def test_what_is_no_preset_is_refused(diffusers, refused, preset):
    with refused(PresetError, f"{type(preset).__name__} is not a Q-Sched preset.", "load_preset(path)"):
        put(CASES["euler"].make(diffusers), preset)


@pytest.mark.parametrize("choice", ["as is", "", None, 1])
def test_an_unknown_choice_is_refused(diffusers, refused, choice):
    scheduler = CASES["euler"].make(diffusers)
    with refused(PresetError, f"if_differs is {choice!r}.", "resample, use as is, refuse"):
        put(scheduler, CASES["euler"].preset(scheduler), if_differs=choice)
    assert "step" not in vars(scheduler)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 50.0])
def test_a_strength_that_cannot_be_is_refused(diffusers, refused, strength):
    scheduler = CASES["euler"].make(diffusers)
    with refused(CoefficientError):
        put(scheduler, CASES["euler"].preset(scheduler), strength=strength)
    assert "step" not in vars(scheduler)


# --- real pipelines


def stable_diffusion(diffusers: ModuleType, scheduler: Any, kind: str = "StableDiffusionPipeline") -> Any:
    """A real pipeline around networks of a few thousand random weights."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    none = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = getattr(diffusers, kind)(unet=unet, vae=vae, scheduler=scheduler, requires_safety_checker=False, **none)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe: Any, steps: int = 4, **options: Any) -> Tensor:
    words = torch.randn(2, 1, 3, 8, generator=torch.Generator().manual_seed(5))
    options = {"generator": torch.Generator().manual_seed(1), "guidance_scale": 3.0} | options
    words = {"prompt_embeds": words[0], "negative_prompt_embeds": words[1]}
    return pipe(num_inference_steps=steps, output_type="pt", **words, **options).images


def published(kind: type, coefficients: Coefficients) -> type:
    """``kind`` with the method written into its step, as the authors publish it."""

    class Published(kind):
        @functools.wraps(kind.step)
        def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, **kwargs: Any) -> Any:
            i = self.timesteps.tolist().index(timestep)
            return kind.step(
                self, coefficients.c_eps[i] * model_output, timestep, coefficients.c_x[i] * sample, **kwargs
            )

    return Published


@pytest.mark.parametrize("name", ["euler", "ancestral", "tcd", "lcm"])
def test_a_pipeline_paints_with_the_preset_and_as_before_without(diffusers, name):
    case = CASES[name]
    kind, config = getattr(diffusers, case.scheduler), SD | case.config
    preset = case.preset(case.make(diffusers))
    pipe = stable_diffusion(diffusers, kind(**config))
    size = {"height": 16, "width": 16}
    stock = picture(pipe, **size)
    with apply_preset(pipe, preset, if_differs="refuse"):
        result, again = picture(pipe, **size), picture(pipe, **size)
        no_longer_random = same_bits(result, again)  # the generator reaches the step
        with_eta = picture(pipe, eta=1.0, **size)
    assert same_bits(picture(pipe, **size), stock)
    assert "step" not in vars(pipe.scheduler)

    assert no_longer_random
    assert (result - stock).abs().max() > 0.01
    pipe.scheduler = published(kind, FOUR)(**config)
    assert same_bits(picture(pipe, **size), result)
    assert same_bits(picture(pipe, eta=1.0, **size), with_eta)
    assert same_bits(with_eta, result) == (name != "tcd")  # only tcd's step takes eta


@pytest.mark.parametrize("name", ["euler", "tcd", "lcm"])
def test_a_picture_made_from_a_picture_takes_the_last_pairs(diffusers, monkeypatch, name):
    case = CASES[name]
    used = []

    def spy(x: Tensor, c_x: float) -> Tensor:
        used.append(c_x)
        return c_x * x

    monkeypatch.setattr(qsched_core.diffusers, "precondition_sample", spy)
    scheduler = getattr(diffusers, case.scheduler)(**SD | case.config)
    pipe = stable_diffusion(diffusers, scheduler, "StableDiffusionImg2ImgPipeline")
    apply_preset(pipe, case.preset(case.make(diffusers)), if_differs="refuse")
    picture(pipe, image=torch.zeros(1, 3, 16, 16), strength=0.5)
    assert used == list(FOUR.c_x[2:])


def test_flux_with_the_demo_weights_is_our_euler(diffusers):
    """The pack's own transformer in diffusers' pipeline, against ``qs.sample`` on the bare network."""
    from demo import files
    from demo.networks import FLUX_CONFIG, TEXT_WIDTH

    transformer = diffusers.FluxTransformer2DModel(**FLUX_CONFIG).eval()
    transformer.load_state_dict(files.read(files.MODEL))
    names = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe = diffusers.FluxPipeline(scheduler=scheduler, transformer=transformer, **dict.fromkeys(names))
    pipe.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(2)
    start, words, pooled = (
        torch.randn(1, *shape, generator=draw) for shape in ((16, 64), (5, TEXT_WIDTH), (TEXT_WIDTH,))
    )

    def paint() -> Tensor:
        embeds = {"prompt_embeds": words, "pooled_prompt_embeds": pooled}
        size = {"height": 64, "width": 64, "latents": start, "output_type": "latent"}
        return pipe(num_inference_steps=4, guidance_scale=0.0, **embeds, **size).images

    places = torch.zeros(16, 3)
    places[:, 1], places[:, 2] = torch.arange(16) // 4, torch.arange(16) % 4

    @torch.no_grad()
    def model(x: Tensor, sigma: Tensor) -> Tensor:
        velocity = transformer(x, words, pooled, sigma, places, torch.zeros(5, 3)).sample
        return x - sigma.view(-1, 1, 1) * velocity

    sigmas = (1.0, 0.75, 0.5, 0.25, 0.0)
    stock = paint()
    with apply_preset(pipe, Preset(FOUR, sigmas, Binding(prediction="CONST", sampler="euler")), if_differs="refuse"):
        result = paint()
    assert same_bits(paint(), stock)
    # Of values up to 10. float32 through four passes of a network.
    for coefficients, latents in ((FOUR, result), (Coefficients.identity(4), stock)):
        expected = qs.sample("euler", model, start, torch.tensor(sigmas), coefficients)
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert (result - stock).abs().max() > 0.1


def test_is_imported_without_diffusers():
    code = "import sys; sys.modules['diffusers'] = None; import qsched_core.diffusers"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
