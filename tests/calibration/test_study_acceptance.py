"""What a study accepts: real gains are, and no others are, whatever the search prompts say."""

from __future__ import annotations

import numpy as np
import pytest
from study_world import N_PROMPTS, N_STEPS, Picture, World, better, hill, indifferent, noisy, own, quick

from calibration import Settings, calibrate
from calibration.search import strategies
from calibration.split import split
from qsched_core import Coefficients


def test_a_real_gain_is_accepted():
    world = World(better)
    result = world.calibrate(quick(trials=8))
    parts = split(N_PROMPTS, quick())
    best = max(world.generated[:-2], key=lambda item: np.mean([better((item[0], i)) for i in parts.search]))[0]
    assert result.coefficients == result.recommended == best
    assert result.accepted
    assert result.gain.low > 0
    assert result.gain.prompts == 6
    # 1e-12: the same sums in another order.
    held_out = [np.mean([better((c, i)) for i in parts.held_out]) for c in (best, Coefficients.identity(N_STEPS))]
    assert (result.jaq, result.baseline_jaq) == pytest.approx(held_out, abs=1e-12)
    assert result.gain.gain == pytest.approx(held_out[0] - held_out[1], abs=1e-12)
    assert result.candidate.mean("tc") == pytest.approx(held_out[0] / 2, abs=1e-12)


def test_the_gaussian_process_finds_the_gain_of_the_widest_space(monkeypatch):
    """The whole loop as it ships but for the number of random starts, which is 8."""
    monkeypatch.setattr(strategies, "scattered_points", lambda space: 6)
    result = World(better).calibrate(Settings(space="both ends", radius=0.2, trials=12, seeds=1))
    assert result.answer == "re-tuning"
    # Half of what can be gained at all (0.5 on average), with 12 points in 4 dimensions.
    assert result.gain.gain > 0.25


@pytest.mark.parametrize("seed", range(20))
def test_identical_models_gain_nothing(seed):
    """The coefficients do nothing: whatever the prompts and noises bring, no candidate may be accepted."""
    result = World(indifferent).calibrate(quick(seed=seed, trials=3))
    assert not result.accepted
    assert result.coefficients == result.recommended == Coefficients.identity(N_STEPS)
    assert (result.gain.low, result.gain.high) == (0.0, 0.0)


def test_the_best_of_pure_noise_is_accepted_no_more_often_than_promised():
    """The winner's curse: the best of 6 noises always looks like a gain on the search prompts."""
    results = [World(noisy).calibrate(quick(seed=seed)) for seed in range(100)]
    looked_good = sum(max(v for _, v in result.trace) > result.trace[0][1] for result in results)
    assert looked_good > 70
    # 2.5 % of 100 are expected; more than 8 would happen by chance once in a thousand.
    assert sum(result.accepted for result in results) <= 8
    for result in results:
        assert result.recommended == (result.coefficients if result.accepted else Coefficients.identity(N_STEPS))


def test_a_gain_on_the_search_prompts_alone_is_not_accepted():
    settings = quick()
    searched = {index % N_PROMPTS for index in split(N_PROMPTS, settings).search}

    def overfitted(picture: Picture) -> float:
        coefficients, index = picture
        sign = 1 if index % N_PROMPTS in searched else -1
        return own(index) + sign * hill(coefficients)

    result = World(overfitted).calibrate(settings)
    assert not result.coefficients.is_identity
    assert result.gain.high < 0
    assert not result.accepted
    assert result.recommended.is_identity


def test_an_identity_that_is_best_is_recommended():
    def worse(picture: Picture) -> float:
        return own(picture[1]) - sum(abs(value - 1) for value in picture[0].c_x + picture[0].c_eps)

    result = World(worse).calibrate()
    assert result.coefficients.is_identity
    assert not result.accepted
    assert result.on_border == ()


def test_an_optimum_outside_the_trust_region_is_reported(monkeypatch):
    monkeypatch.setattr(strategies, "scattered_points", lambda space: 4)

    def outward(picture: Picture) -> float:
        return own(picture[1]) + picture[0].c_eps[-1]

    result = World(outward).calibrate(quick(strategy="guided", trials=8, radius=0.1))
    assert result.on_border == ("c_eps_last",)
    assert result.accepted


def test_k_weighs_image_quality():
    """TC falls and IQ rises with c_eps: what is best depends on k alone."""

    def score(pictures, indices):
        c_eps = np.array([coefficients.c_eps[-1] for coefficients, _ in pictures])
        return {"tc": -c_eps, "iq": c_eps}

    last = [
        calibrate(World().generate, score, N_PROMPTS, N_STEPS, quick(k=k)).coefficients.c_eps[-1] for k in (0.5, 2.0)
    ]
    assert last[0] < 1 < last[1]


def test_what_is_automatic_has_more_room_where_a_reference_is_there():
    settings = Settings(trials=30, seeds=1, strategy="random", race=False)
    free, near = World(), World()
    free.calibrate(settings)
    near.calibrate(settings, reference=World(indifferent).generate)
    for world, ends, radius in ((free, 1, 0.1), (near, 2, 0.2)):
        curves = np.array([[c.c_x, c.c_eps] for c, _ in world.generated[1:-2]])
        assert ends == 1 + (curves[..., -1] != 1).any()
        assert 0.9 * radius < np.abs(curves - 1).max() <= radius + 1e-12


def test_every_picture_is_counted_the_reference_s_as_well():
    for reference in (None, World()):
        world, progress = World(), []
        result = world.calibrate(reference=reference and reference.generate, on_progress=progress.append)
        rows = [*world.generated, *(reference.generated if reference else [])]
        count = sum(len(indices) for _, indices in rows)
        assert result.nfe == N_STEPS * count
        assert (progress[-1].done, progress[-1].total) == (count, count)
