"""How large a ratio of two paired means is, with its interval."""

from __future__ import annotations

import numpy as np

DRAWS = 2000
"""Of the bootstrap."""


def ratio_interval(values: np.ndarray, others: np.ndarray) -> list[float]:
    """[mean of ``values`` / mean of ``others``, low, high]: paired rows (N,), 95 % by a bootstrap of pairs."""
    draws = np.random.default_rng(0).integers(0, len(others), (DRAWS, len(others)))
    ratios = values[draws].mean(1) / others[draws].mean(1)
    return [round(float(value), 4) for value in (values.mean() / others.mean(), *np.quantile(ratios, (0.025, 0.975)))]
