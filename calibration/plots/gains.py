"""Gains over the identity as colours: one rule for Python's plots and the page's map (web/calibration/gains.js).

tests/golden/gains.json holds both to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def gains_of(values: Sequence[float], identity: float) -> np.ndarray:
    """JAQ (n,) above that of the identity; NaN stays NaN.

    An identity that could not be scored: the candidates are compared with their median.
    """
    scores = np.asarray(values, dtype=np.float64)
    finite_scores = scores[np.isfinite(scores)]
    return scores - (identity if math.isfinite(identity) else np.median(finite_scores) if len(finite_scores) else 0.0)


def unit_of(gains: np.ndarray) -> float:
    """Half the width of the colours: the best gain, or where there is none half of a usual loss; 0 if all are equal."""
    finite_gains = gains[np.isfinite(gains)]
    best = float(finite_gains.max(initial=0.0))
    losses = finite_gains[finite_gains < 0]
    return best if best > 0 else float(-np.median(losses)) / 2 if len(losses) else 0.0


def share_of(gain: float, unit: float) -> float:
    """From -1, two units lost or more, over 0 to 1, one unit gained."""
    if unit == 0:
        return 0.0
    return min(1.0, max(-1.0, gain / unit if gain > 0 else gain / (2 * unit)))
