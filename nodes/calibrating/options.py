"""What crosses the socket from *Calibration Settings* to *JAQ Calibrate*."""

from __future__ import annotations

from dataclasses import dataclass

from ...calibration import Settings
from ...calibration.choices import AUTOMATIC, STRATEGIES


@dataclass(frozen=True, eq=False)
class CalibrationSettings:
    """How to search; ``prompt_set``, ``jaq_metric``, ``sampler``, ``sigmas`` and ``guider`` stand in for widgets of
    *JAQ Calibrate* where they are not None. The others are those of ``calibration.Settings``."""

    prompt_set: object = None
    jaq_metric: object = None
    sampler: object = None
    sigmas: object = None
    guider: object = None
    search_seed: int = 0
    verdict_seeds: int = 0
    space: str = AUTOMATIC
    radius: float = 0.0
    k: float = 2.0
    strategy: str = STRATEGIES[0]
    race: bool = True
    grid: int = 10
    most_pictures: int = 0
    most_minutes: float = 0.0
    normalised: bool = False
    stay_near: bool = True

    def of_search(self, trials: int, accept: str) -> Settings:
        """What the search is told.

        Raises:
            CalibrationError: settings that do not go together.
        """
        return Settings(
            space=self.space,
            radius=self.radius,
            trials=trials,
            k=self.k,
            seeds=self.verdict_seeds,
            seed=self.search_seed,
            strategy=self.strategy,
            race=self.race,
            grid=self.grid,
            pictures=self.most_pictures,
            minutes=self.most_minutes,
            normalised=self.normalised,
            accept=accept,
        )
