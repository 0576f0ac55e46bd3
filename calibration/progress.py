"""What a calibration tells while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .core import Coefficients
from .search.search import Search
from .search.trials import Trial

REFERENCE_PHASE = "reference"
"""Of a Progress: pictures of the reference model, before the search and at the end."""


@dataclass(frozen=True)
class Progress:
    """Told after every group of pictures. ``done`` of about ``total`` pictures (candidates that are raced out make
    fewer); ``best`` is the best candidate so far and ``trial`` the one that was just finished, if one was.

    ``pictures`` are those just made, of ``indices``; None where nothing had to be made. ``finished`` are all finished
    trials, those of an earlier run among them, of ``trials`` in all.
    """

    phase: str
    done: int
    total: int
    best: Coefficients
    best_jaq: float
    identity_jaq: float
    pictures: object
    indices: tuple[int, ...] = ()
    trial: Trial | None = None
    finished: tuple[Trial, ...] = ()
    trials: int = 0


class ProgressReport:
    """Counts what was made, and tells it. ``search_pictures`` are those of a candidate on all prompts of the search,
    ``row_pictures`` those of all rows on held-out prompts."""

    def __init__(self, on_progress: Callable[[Progress], None], search_pictures: int, row_pictures: int):
        self._on_progress, self._search_pictures, self._row_pictures = on_progress, search_pictures, row_pictures
        self.rows_made = 0
        """Pictures of the rows that there are by now."""
        self.finished: list[Trial] = []
        """Of stages that are over, in the whole space's numbers."""
        self.later_trials = 0
        """Of stages that have not begun."""
        self.baseline = math.nan
        """The identity's JAQ, from the first stage's end on."""
        self.search_is_over = False

    def tell(
        self, search: Search, phase: str, pictures: object, indices: Sequence[int] = (), trial: Trial | None = None
    ) -> None:
        here, best = search.finished(), search.best()
        trials = self.finished + ([] if self.search_is_over else here)
        left = 0 if self.search_is_over else max(0, search.trials - len(here)) + self.later_trials
        trial_pictures = sum(item.pictures for item in trials)
        usual = trial_pictures / len(trials) if trials else self._search_pictures
        done = trial_pictures + self.rows_made
        self._on_progress(
            Progress(
                phase,
                done,
                done + round(left * usual) + self._row_pictures - self.rows_made,
                search.space.coefficients(best.point),
                best.value,
                self.baseline if self.finished else search.baseline(),
                pictures,
                tuple(indices),
                trial,
                tuple(trials),
                len(trials) + left,
            )
        )
