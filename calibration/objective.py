"""JAQ, the reference-free objective: text–image compatibility plus k times image quality (arXiv 2509.01624)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .core import CalibrationError

Scores = Mapping[str, np.ndarray]
"""One array (B,) per metric; "tc" and "iq" are optimised, any other is only reported."""


def read_scores(scores: object, count: int) -> dict[str, np.ndarray]:
    """What a metric gave for ``count`` pictures as float64 arrays (count,).

    Raises:
        CalibrationError: no mapping of names, or values that are not one number per picture.
    """
    if not isinstance(scores, Mapping):
        raise CalibrationError(f"a metric gave {type(scores).__name__}.", 'return {"tc": ..., "iq": ...}')
    arrays = {}
    for name, values in scores.items():
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise CalibrationError(
                f"metric {str(name)[:24]!r} gave {type(values).__name__}.", "return numbers, on the CPU", metric=name
            ) from error
        if array.shape != (count,):
            raise CalibrationError(
                f"metric {str(name)[:24]!r} gave shape {array.shape} for {count} pictures.",
                "return one number per picture",
                metric=name,
                shape=array.shape,
            )
        arrays[name] = array
    return arrays


def jaq(scores: Scores, k: float) -> np.ndarray:
    """TC + k·IQ per picture (B,); the paper's k is 2. NaN where either is not finite."""
    return Objective(k)(scores)


@dataclass(frozen=True)
class Objective:
    """TC / tc_unit + k·IQ / iq_unit. The paper's form has units of 1.

    In the normalised form a unit is what the metric varies by, on one prompt, when only the noise changes: then
    k weighs two terms that are equally hard to move by chance, whatever scales their nets have.
    """

    k: float
    tc_unit: float = 1.0
    iq_unit: float = 1.0

    def __call__(self, scores: Scores) -> np.ndarray:
        """(B,) float64, NaN where either term is not finite."""
        if missing := [name for name in ("tc", "iq") if name not in scores]:
            raise CalibrationError(f"the metrics gave no {missing[0]}.", 'return both {"tc": ..., "iq": ...}')
        with np.errstate(invalid="ignore"):  # inf - inf
            tc, iq = (np.asarray(scores[name], dtype=np.float64) for name in ("tc", "iq"))
            total = tc / self.tc_unit + self.k * iq / self.iq_unit
        return np.where(np.isfinite(total), total, np.nan)

    @classmethod
    def normalised(cls, k: float, one: Scores, other: Scores) -> Objective:
        """Units from two rows of scores: the same prompts in the same order, each with another noise.

        A metric that does not vary at all keeps the unit 1.
        """
        return cls(k, *(_unit(one[name], other[name]) for name in ("tc", "iq")))


def _unit(one: np.ndarray, other: np.ndarray) -> float:
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    difference = difference[np.isfinite(difference)]
    # The difference of two draws has twice the variance of one.
    unit = float(np.sqrt(np.mean(difference**2) / 2)) if len(difference) else 0.0
    return unit if unit > 1e-12 else 1.0
