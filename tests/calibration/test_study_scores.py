"""Scores that are no numbers, that are all the same, or that have a wrong shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from study_world import N_PROMPTS, N_STEPS, Picture, World, better, quick

from calibration import calibrate
from calibration.search.guard import Guard
from calibration.split import split
from qsched_core import CalibrationError


def broken_where(condition: Callable[[Picture], bool]) -> World:
    return World(lambda picture: math.nan if condition(picture) else better(picture))


def test_a_region_of_nan_never_wins():
    result = broken_where(lambda picture: picture[0].c_eps[-1] > 1.05).calibrate(quick(trials=8))
    assert any(math.isnan(value) for _, value in result.trace)
    assert result.coefficients.c_eps[-1] <= 1.05
    assert math.isfinite(result.jaq)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_broken_picture_is_enough_to_lose_a_trial(bad):
    first = split(N_PROMPTS, quick()).search[0]
    world = World(lambda p: bad if p[1] == first and not p[0].is_identity else better(p))
    result = world.calibrate()
    assert [math.isnan(value) for _, value in result.trace] == [False] + [True] * 6
    assert result.coefficients.is_identity
    assert not result.accepted


def test_a_candidate_that_breaks_a_held_out_picture_is_not_accepted():
    """Regression: the broken picture counted as no gain, and the others carried the candidate through."""
    held_out = split(N_PROMPTS, quick()).held_out
    result = broken_where(lambda p: p[1] == held_out[3] and not p[0].is_identity).calibrate(quick(trials=8))
    assert not result.coefficients.is_identity
    assert result.gain.low > 0
    assert not result.accepted
    assert result.recommended.is_identity


def test_a_picture_that_the_identity_breaks_too_does_not_stop_a_gain():
    held_out = split(N_PROMPTS, quick()).held_out
    result = broken_where(lambda picture: picture[1] == held_out[3]).calibrate(quick(trials=8))
    assert result.accepted


def test_an_identity_of_nan_is_no_crash_and_no_proof():
    result = broken_where(lambda picture: picture[0].is_identity).calibrate()
    assert math.isnan(result.trace[0][1])
    assert math.isnan(result.baseline_jaq)
    assert not result.coefficients.is_identity
    assert not result.accepted


def test_nothing_but_nan_is_refused(refused):
    with refused(CalibrationError, "not one candidate could be scored"):
        broken_where(lambda picture: True).calibrate()


def test_a_judge_that_knows_none_of_the_prompts_is_no_obstacle():
    result = World().calibrate(judge=lambda pictures, indices: {"accuracy": np.full(len(indices), np.nan)})
    assert math.isnan(result.identity.mean("accuracy"))
    assert result.gains["accuracy"].gain == 0.0
    assert result.accepted == World().calibrate().accepted


def test_scores_may_be_tensors():
    def score(pictures, indices):
        return {name: torch.from_numpy(values) for name, values in World().score(pictures, indices).items()}

    assert calibrate(World().generate, score, N_PROMPTS, N_STEPS, quick()).trace == World().calibrate().trace


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (lambda n: {"tc": np.zeros((n, 1)), "iq": np.zeros(n)}, "'tc' gave shape (6, 1) for 6 pictures"),
        (lambda n: {"tc": np.zeros(n), "iq": 0.5}, "'iq' gave shape () for 6 pictures"),
        (lambda n: {"tc": np.zeros(n - 1), "iq": np.zeros(n)}, "'tc' gave shape (5,)"),
        (lambda n: {"tc": ["good"] * n, "iq": np.zeros(n)}, "'tc' gave list"),
        (lambda n: {"tc": None, "iq": np.zeros(n)}, "'tc' gave shape ()"),
        (lambda n: {"tc": np.zeros(n)}, "gave no iq"),
        (lambda n: np.zeros(n), "a metric gave ndarray"),
    ],
)
def test_metrics_of_a_wrong_shape_are_named(refused, scores, text):
    """Regression: an error of numpy's, or a mean over the wrong axis."""
    with refused(CalibrationError, text):
        calibrate(World().generate, lambda pictures, indices: scores(len(indices)), N_PROMPTS, N_STEPS, quick())


def test_a_distance_of_a_wrong_shape_is_named(refused):
    with refused(CalibrationError, "'distance' gave shape (1,) for 6 pictures"):
        World().calibrate(guard=Guard(lambda pictures, indices: {"distance": [0.0]}))


def test_a_metric_that_sees_nothing_is_named_before_the_search(refused):
    """Regression: hours of search that ended in "no candidate beat the stock sampler"."""
    world = World(lambda picture: 0.75)
    with refused(CalibrationError, "the metric gives all pictures the same score, 0.75."):
        world.calibrate()
    assert len(world.generated) == 2, "the identity and one candidate"
