"""What a calibration is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .core import CalibrationError

SPACES = ("both ends", "first step", "last step", "constant")


@dataclass(frozen=True)
class Settings:
    """Of a search and its held-out check.

    ``space``: which numbers are searched. "both ends" is a straight line of c_x and of c_eps over the steps with
    both ends free (4 numbers); "first step" pins the last to 1 (the paper's, 2 numbers), "last step" the first;
    "constant" is one c_x and one c_eps. ``radius``: half-width of the trust region around 1, in (0, 0.5].
    ``trials``: candidates besides the identity. ``k``: weight of image quality in JAQ. ``holdout``: share of
    the prompts kept for the verdict. ``seeds``: noises per held-out prompt. ``confidence``: of the interval.

    Raises:
        CalibrationError: a value out of these ranges.
    """

    space: str = "both ends"
    radius: float = 0.2
    trials: int = 40
    k: float = 2.0
    holdout: float = 0.5
    seeds: int = 4
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.space in SPACES, "space", self.space, f"use one of {', '.join(SPACES)}")
        _require(0 < self.radius <= 0.5, "radius", self.radius, "use a value in (0, 0.5]")
        _require(1 <= self.trials <= 10_000, "trials", self.trials, "use 1 to 10000")
        _require(math.isfinite(self.k) and self.k >= 0, "k", self.k, "use a finite weight of at least 0")
        _require(0 < self.holdout < 1, "holdout", self.holdout, "use a share in (0, 1)")
        _require(1 <= self.seeds <= 100, "seeds", self.seeds, "use 1 to 100")
        _require(0.5 <= self.confidence < 1, "confidence", self.confidence, "use a level in [0.5, 1)")


def _require(holds: bool, name: str, value: object, fix: str) -> None:
    if not holds:
        raise CalibrationError(f"calibration setting {name} is {value}.", fix, name=name, value=value)
