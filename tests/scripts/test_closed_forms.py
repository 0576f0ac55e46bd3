"""Closed forms: known gains and known noise give known coefficients, and sums are as good as the outputs."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.closed_forms import Pairs, closed_forms, least_squares, ptqd, qdrift, variance_match
from calibration.core import CalibrationError
from qsched_core import Coefficients

SIGMAS = (1.0, 0.75, 0.5, 0.0)
SHAPE = (2, 4, 64, 64)


def outputs(steps: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(steps)]


def pairs_of(full: list[torch.Tensor], quantized: list[torch.Tensor]) -> Pairs:
    pairs = Pairs(len(full))
    for step, pair in enumerate(zip(full, quantized, strict=True)):
        pairs.add(step, *pair)
    return pairs


def test_a_gain_is_undone_step_by_step():
    full, gains = outputs(), (1.1, 1.0, 0.9)
    pairs = pairs_of(full, [gain * f for gain, f in zip(gains, full, strict=True)])
    for form in (ptqd, variance_match, least_squares):
        assert form(pairs).c_eps == pytest.approx([1 / gain for gain in gains], rel=1e-12)
        assert form(pairs).c_x == (1, 1, 1)
    assert pairs.relative_error == pytest.approx([0.1, 0, 0.1], rel=1e-9, abs=1e-7)
    # Q-Drift answers noise, not gains.
    assert qdrift(pairs, SIGMAS).c_eps == pytest.approx([1, 1, 1], abs=1e-12)


def test_noise_shrinks_least_squares_by_its_power_and_the_match_by_its_root():
    """An independent error of standard deviation 0.5 on outputs of variance 1: var q = 1.25."""
    full = outputs()
    pairs = pairs_of(full, [f + 0.5 * noise for f, noise in zip(full, outputs(seed=1), strict=True)])
    # Of 32768 values: a regression's slope scatters by 0.5/sqrt(32768) = 0.003.
    assert ptqd(pairs).c_eps == pytest.approx([1] * 3, abs=0.012)
    assert variance_match(pairs).c_eps == pytest.approx([1.25**-0.5] * 3, abs=0.012)
    assert least_squares(pairs).c_eps == pytest.approx([0.8] * 3, abs=0.012)
    assert pairs.relative_error == pytest.approx([0.5] * 3, rel=0.02)
    # What q does not tell of the error: 0.25·(1 - 0.25/1.25) = 0.2; the steps go down by 1/4, 1/3 and all of sigma.
    assert qdrift(pairs, SIGMAS).c_eps == pytest.approx([1 + 0.2 / 8, 1 + 0.2 / 6, 1 + 0.2 / 2], abs=0.003)


def test_a_bias_does_not_pass_for_a_gain():
    full = [f + 3 for f in outputs()]
    pairs = pairs_of(full, [1.1 * f + 0.7 for f in full])
    for form in (ptqd, variance_match):
        assert form(pairs).c_eps == pytest.approx([1 / 1.1] * 3, rel=1e-9)
    assert least_squares(pairs).c_eps[0] < 1 / 1.1 - 0.01, "it takes the bias for a part of the gain"


def test_equal_networks_give_the_identity_exactly():
    starts = closed_forms(pairs_of(outputs(), outputs()), SIGMAS)
    assert list(starts) == ["PTQD slope", "variance match", "Q-Drift", "least squares"]
    assert all(coefficients == Coefficients.identity(3) for coefficients in starts.values())


def test_one_picture_after_the_other_is_as_good_as_all_at_once():
    full = [2 * f + 5 for f in outputs()]
    quantized = [1.05 * f + 0.3 * noise for f, noise in zip(full, outputs(seed=1), strict=True)]
    streamed = Pairs(3)
    for row in range(SHAPE[0]):
        for step in (2, 0, 1):
            streamed.add(step, full[step][row : row + 1], quantized[step][row : row + 1])
    for one, other in zip(
        closed_forms(streamed, SIGMAS).values(), closed_forms(pairs_of(full, quantized), SIGMAS).values(), strict=True
    ):
        assert one.c_eps == pytest.approx(other.c_eps, rel=1e-10)


def test_one_wild_step_is_held_at_the_edge():
    full = outputs()
    pairs = pairs_of(full, [4 * full[0], full[1], full[2] / 4])
    for form in (ptqd, variance_match, least_squares):
        assert form(pairs).c_eps == pytest.approx([0.5, 1, 1.5])


def test_half_precision_outputs_are_summed_in_double():
    """65504 is float16's greatest number, far below a sum of squares here."""
    full = [(100 * f).half() for f in outputs()]
    pairs = pairs_of(full, full)
    assert ptqd(pairs).is_identity
    assert math.isclose(pairs.moments().ff[0], full[0].double().square().mean().item(), rel_tol=1e-12)


def test_what_cannot_be_compared_is_refused(refused):
    full = outputs()
    with refused(CalibrationError, "step 2 has 1 pairs"):
        short = Pairs(2)
        short.add(0, full[0], full[0])
        short.add(1, full[1][:1], full[1][:1])
        short.moments()
    with refused(CalibrationError, "step 1 has 0 pairs"):
        ptqd(Pairs(3))
    with refused(CalibrationError, "(1, 4, 64, 64)"):
        Pairs(1).add(0, full[0], full[0][:1])
    for value in (math.nan, math.inf):
        with refused(CalibrationError, "step 3 is not finite"):
            Pairs(3).add(2, full[0], full[0].clone().fill_(value))
    with refused(CalibrationError, "at step 2", "nothing in common"):
        ptqd(pairs_of(full, [full[0], -full[1], full[2]]))
    with refused(CalibrationError, "at step 1", "nothing in common"):
        variance_match(pairs_of(full, outputs(seed=1)))
    with refused(CalibrationError, "at step 3", "nothing in common"):
        least_squares(pairs_of(full, [*full[:2], torch.ones(SHAPE)]))
    with refused(CalibrationError, "sigmas do not fit the steps: 3 and 3"):
        qdrift(pairs_of(full, full), SIGMAS[1:])
