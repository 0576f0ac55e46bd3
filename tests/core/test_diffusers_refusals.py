"""Pipelines, schedulers, presets and settings that are refused, with the nearest scheduler that is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from exactness import same_bits
from scheduler_cases import CASES, FOUR, NO_NUMPY_WARNING, SD, put

from qsched_core import CoefficientError, Preset, PresetError, SamplingError
from qsched_core.diffusers import apply_preset

pytestmark = NO_NUMPY_WARNING


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
