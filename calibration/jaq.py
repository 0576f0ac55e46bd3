"""JAQ, the reference-free objective: text–image compatibility plus k times image quality (arXiv 2509.01624)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Scores = Mapping[str, np.ndarray]
"""One array (B,) per metric; "tc" and "iq" are optimised, any other is only reported."""


def jaq(scores: Scores, k: float) -> np.ndarray:
    """TC + k·IQ per picture (B,); the paper's k is 2. NaN where either is not finite."""
    with np.errstate(invalid="ignore"):  # inf − inf
        total = np.asarray(scores["tc"], dtype=np.float64) + k * np.asarray(scores["iq"], dtype=np.float64)
    return np.where(np.isfinite(total), total, np.nan)
