"""What differs between a preset and a run, and which coefficients the run gets."""

from __future__ import annotations

import struct

import pytest

from qsched_core import (
    IF_DIFFERS,
    Binding,
    Coefficients,
    Mismatch,
    Preset,
    PresetError,
    SamplingError,
    fit,
    mismatches,
)

SIGMAS = (14.6146, 6.3, 2.9, 1.1, 0.0)
FULL = Preset(
    Coefficients((1.012, 0.997, 0.982, 0.967), (0.955, 1.003, 1.051, 1.099)),
    SIGMAS,
    Binding("SDXL", "0123456789abcdef", "EPS", "w4a8/g32", "euler_ancestral", "sgm_uniform", 1.0),
)


def test_nothing_differs_where_it_was_made():
    assert mismatches(FULL, FULL.binding, SIGMAS) == []


def test_an_empty_field_fits_everything():
    assert mismatches(FULL, Binding(), SIGMAS) == []
    assert mismatches(Preset(FULL.coefficients, SIGMAS), FULL.binding, SIGMAS) == []


@pytest.mark.parametrize(
    ("name", "here", "text"),
    [
        ("model", "Flux", Mismatch("model", "'SDXL'", "'Flux'")),
        ("fingerprint", "ff", Mismatch("fingerprint", "'0123456789abcdef'", "'ff'")),
        ("prediction", "LCM", Mismatch("prediction", "'EPS'", "'LCM'")),
        ("quantization", "none", Mismatch("quantization", "'w4a8/g32'", "'none'")),
        ("sampler", "euler", Mismatch("sampler", "'euler_ancestral'", "'euler'")),
        ("scheduler", "simple", Mismatch("scheduler", "'sgm_uniform'", "'simple'")),
        ("cfg", 7.5, Mismatch("cfg", "1", "7.5")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_field_that_differs_is_named(name, here, text):
    assert mismatches(FULL, Binding(**{name: here}), SIGMAS) == [text]
    assert str(text) == f"{name}: preset {text.preset}, here {text.here}"


def test_other_steps_and_other_sigmas_are_named():
    assert mismatches(FULL, Binding(), (1.0, 0.5, 0.0)) == [Mismatch("steps", "4", "2")]
    (difference,) = mismatches(FULL, Binding(), (14.6146, 6.3, 2.9, 1.2, 0.0))
    assert (difference.what, difference.here) == ("sigmas", "14.61, 6.3, 2.9, 1.2, …")
    three = Preset(Coefficients.identity(3), (3.0, 2.0, 1.0, 0.0))
    (difference,) = mismatches(three, Binding(), (4.0, 2.0, 1.0, 0.0))
    assert str(difference) == "sigmas: preset 3, 2, 1, 0, here 4, 2, 1, 0"


def test_float32_sigmas_are_the_same_sigmas():
    single = tuple(struct.unpack("<f", struct.pack("<f", sigma))[0] for sigma in SIGMAS)
    assert single != SIGMAS
    assert mismatches(FULL, Binding(), single) == []


@pytest.mark.parametrize(
    ("begin", "end"), [(begin, end) for begin in range(4) for end in range(begin + 2, 6)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("to_zero", [False, True])
def test_a_part_of_the_own_schedule_is_no_difference(begin, end, to_zero):
    """Start and end steps; an early end may be told to leave no noise."""
    run = SIGMAS[begin:end]
    run = (*run[:-1], 0.0) if to_zero else run
    coefficients, differences = fit(FULL, Binding(), run, if_differs="refuse")
    assert differences == []
    assert coefficients.c_x == FULL.coefficients.c_x[begin : end - 1]
    assert coefficients.c_eps == FULL.coefficients.c_eps[begin : end - 1]


def test_what_only_resembles_a_part_is_a_difference():
    for run in ((6.3, 2.0, 1.1), (6.3, 1.1, 0.0), (20.0, 14.6146, 6.3), (2.9, 1.1, 0.5, 0.0)):
        assert [item.what for item in mismatches(FULL, Binding(), run)] == ["steps"]


def test_the_choice_is_followed():
    run = (14.6146, 4.0, 0.0)
    resampled, differences = fit(FULL, Binding(), run)
    assert [item.what for item in differences] == ["steps"]
    assert resampled == FULL.coefficients.for_sigmas(SIGMAS, run)
    as_is, _ = fit(FULL, Binding(), run, if_differs="use as is")
    assert as_is == Coefficients(FULL.coefficients.c_x[:2], FULL.coefficients.c_eps[:2])
    longer, _ = fit(FULL, Binding(), (9.0, 8.0, 7.0, 6.0, 5.0, 4.0), if_differs="use as is")
    assert longer.c_x == (*FULL.coefficients.c_x, FULL.coefficients.c_x[-1])
    message = r"the preset does not fit: steps: preset 4, here 2.*\n.*change the settings"
    with pytest.raises(PresetError, match=message) as caught:
        fit(FULL, Binding(), run, if_differs="refuse")
    assert [item.what for item in caught.value.fields["found"]] == ["steps"]


def test_all_choices_agree_where_nothing_differs():
    assert len({fit(FULL, FULL.binding, SIGMAS, if_differs=choice)[0] for choice in IF_DIFFERS}) == 1


def test_strength_is_applied_before_all_else():
    for run in (SIGMAS, SIGMAS[2:], (14.6146, 4.0, 0.0)):
        assert fit(FULL, Binding(), run, strength=0.0)[0].is_identity
    half, _ = fit(FULL, Binding(), SIGMAS[2:], strength=0.5)
    assert half.c_eps == pytest.approx((1.0255, 1.0495))


@pytest.mark.parametrize("choice", ["", "hope", None, "Refuse"])
def test_an_unknown_choice_is_refused(refused, choice):
    with refused(PresetError, "if_differs is ", "use one of resample, use as is, refuse"):
        fit(FULL, Binding(), SIGMAS, if_differs=choice)


def test_sigmas_that_are_no_schedule_are_named_by_scheduler_and_steps(refused):
    with refused(SamplingError, "sgm_uniform at 4 steps is no schedule: sigma 2 of 5 is nan."):
        fit(FULL, FULL.binding, (SIGMAS[0], float("nan"), *SIGMAS[2:]))
