"""What a calibration is asked to do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from .choices import ACCEPT, AUTOMATIC, SPACES, STRATEGIES
from .core import CalibrationError

HELD_SPACE, FREE_SPACE = "both ends", "first step"
HELD_RADIUS, FREE_RADIUS = 0.2, 0.1
"""What "automatic" stands for. Held to a reference model's pictures, the wider space was right in every setting that
was tried. Free and without a reference it was accepted more often than not although the set of pictures had moved away
from real ones; the paper's space moves them far less, and a smaller radius leaves less to game."""


@dataclass(frozen=True)
class Settings:
    """Of a search and its held-out check.

    ``accept``: which answer of the verdict is taken as the result: "repair" alone, or "re-tuning" too.

    ``space``: which numbers are searched. "both ends" is a straight line of c_x and of c_eps over the steps with
    both ends free (4 numbers); "first step" pins the last to 1 (the paper's, 2 numbers), "last step" the first;
    "constant" is one c_x and one c_eps; "table" is one of each per step; "automatic" is "both ends" where a reference
    model is there, else "first step". ``radius``: half-width of the trust region around 1, in (0, 0.5]; 0 is 0.2 where
    a reference is there, else 0.1.

    ``strategy``: "guided" is a Gaussian process; "grid" is the paper's exhaustive one, ``grid`` points per axis;
    "random" and "tpe" are there to be compared with; "greedy" finds the two numbers of one step after the other, each
    on what the steps before it now make (PCR), and needs the space "table". ``race``: candidates that a part of the
    prompts shows to be worse than the best are not tried on the rest (never in a grid).

    ``trials``: candidates besides the identity. ``pictures`` and ``minutes``: the search ends earlier when it has made
    as many pictures or taken as long; 0 is no such limit. ``k``: weight of image quality in JAQ; ``normalised``: TC and
    IQ in units of their own noise. ``holdout``: share of the prompts kept for the verdict, in (0, 1); 0 keeps half,
    or all but 12 where that is no more than 48. ``seeds``: noises per held-out prompt; 0 is as many as make 48
    pictures, at most 4. ``confidence``: of the interval.

    Raises:
        CalibrationError: a value out of these ranges.
    """

    space: str = AUTOMATIC
    radius: float = 0.0
    trials: int = 40
    k: float = 2.0
    holdout: float = 0.0
    seeds: int = 0
    confidence: float = 0.95
    seed: int = 0
    strategy: str = "guided"
    race: bool = True
    grid: int = 10
    pictures: int = 0
    minutes: float = 0.0
    normalised: bool = False
    accept: str = ACCEPT[0]

    def resolved(self, reference: bool) -> Settings:
        """With numbers in place of "automatic". ``reference``: whether there is a reference model."""
        space, radius = (HELD_SPACE, HELD_RADIUS) if reference else (FREE_SPACE, FREE_RADIUS)
        if self.strategy == "greedy":
            space = "table"
        return replace(
            self,
            space=space if self.space == AUTOMATIC else self.space,
            radius=radius if self.radius == 0 else self.radius,
        )

    def lasting(self) -> dict[str, object]:
        """All that decides which candidates are asked for, as JSON values: a study may go on with a larger budget, and
        its verdict may be read by another rule."""
        others = ("accept",) if self.strategy == "greedy" else ("accept", "trials", "pictures", "minutes")
        return {name: value for name, value in asdict(self).items() if name not in others}

    @property
    def races(self) -> bool:
        return self.race and self.strategy != "grid"

    def __post_init__(self) -> None:
        spaces = (AUTOMATIC, *SPACES)
        _require(self.space in spaces, "space", self.space, f"use one of {', '.join(spaces)}")
        _require(0 <= self.radius <= 0.5, "radius", self.radius, "use 0 for automatic, or a value in (0, 0.5]")
        _require(1 <= self.trials <= 10_000, "trials", self.trials, "use 1 to 10000")
        _require(math.isfinite(self.k) and self.k >= 0, "k", self.k, "use a finite weight of at least 0")
        _require(0 <= self.holdout < 1, "holdout", self.holdout, "use 0 for automatic, or a share in (0, 1)")
        _require(0 <= self.seeds <= 100, "seeds", self.seeds, "use 0 for automatic, or 1 to 100")
        _require(0.5 <= self.confidence < 1, "confidence", self.confidence, "use a level in [0.5, 1)")
        _require(self.strategy in STRATEGIES, "strategy", self.strategy, f"use one of {', '.join(STRATEGIES)}")
        _require(2 <= self.grid <= 200, "grid", self.grid, "use 2 to 200 points per axis")
        _require(self.pictures >= 0, "pictures", self.pictures, "use 0 for no limit, or a number of pictures")
        _require(0 <= self.minutes < math.inf, "minutes", self.minutes, "use 0 for no limit, or a time in minutes")
        _require(self.accept in ACCEPT, "accept", self.accept, f"use one of {', '.join(ACCEPT)}")
        if self.strategy == "greedy":
            _require(
                self.space in (AUTOMATIC, "table"), "space", self.space, "the greedy strategy needs the space table"
            )


def _require(holds: bool, name: str, value: object, fix: str) -> None:
    if not holds:
        raise CalibrationError(f"calibration setting {name} is {value}.", fix, name=name, value=value)
