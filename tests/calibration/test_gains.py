"""Gains as colours: what the page's map follows too (tests/web/test_gains.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from calibration.plots.gains import gains_of, share_of, unit_of

CASES = json.loads((Path(__file__).parents[1] / "golden" / "gains.json").read_text("utf-8"))


def numbers(values: list) -> list[float]:
    return [math.nan if value is None else value for value in values]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["about"][:40])
def test_gains_their_unit_and_their_place_among_the_colours(case):
    gains = gains_of(numbers(case["values"]), math.nan if case["identity"] is None else case["identity"])
    np.testing.assert_allclose(gains, numbers(case["gains"]), atol=1e-12)
    unit = unit_of(gains)
    assert unit == pytest.approx(case["unit"])
    shares = [math.nan if math.isnan(gain) else share_of(gain, unit) for gain in gains]
    assert shares == pytest.approx(numbers(case["shares"]), nan_ok=True)
