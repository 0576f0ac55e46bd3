"""A scheduler with other steps, other sigmas or of another kind than the preset's: what is done, and what is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from exactness import same_bits
from scheduler_cases import CASES, EVERY, FAMILIES, FOUR, NO_NUMPY_WARNING, put

from qsched_core import Binding, PresetError

pytestmark = NO_NUMPY_WARNING


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
