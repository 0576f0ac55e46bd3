"""JAQ = TC + k·IQ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calibration import jaq


@pytest.mark.parametrize(("k", "expected"), [(2.0, [1.4, 0.5]), (0.0, [0.8, 0.9]), (0.5, [0.95, 0.8])])
def test_known_answer(k, expected):
    value = jaq({"tc": np.array([0.8, 0.9]), "iq": np.array([0.3, -0.2])}, k)
    np.testing.assert_allclose(value, expected, rtol=1e-15)  # one rounding


def test_float64_whatever_the_scorer_gives():
    value = jaq({"tc": torch.tensor([0.1]), "iq": [1]}, 2.0)
    assert value.dtype == np.float64
    assert value.tolist() == [float(np.float32(0.1)) + 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", ["tc", "iq"])
def test_a_score_that_is_not_finite_is_nan(metric, bad):
    scores = {"tc": np.array([1.0, 1.0]), "iq": np.array([1.0, 1.0])}
    scores[metric][1] = bad
    np.testing.assert_array_equal(jaq(scores, 2.0), [3.0, np.nan])


def test_infinities_that_cancel_are_nan_without_a_warning():
    """Regression: numpy warned of inf - inf."""
    assert np.isnan(jaq({"tc": np.array([np.inf]), "iq": np.array([-np.inf])}, 2.0)).all()


def test_other_metrics_do_not_count():
    assert jaq({"tc": np.ones(1), "iq": np.ones(1), "contrast": np.full(1, np.nan)}, 2.0).tolist() == [3.0]
