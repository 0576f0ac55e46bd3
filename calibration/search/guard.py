"""What no winner may worsen: the verdict's rule against drifts, on the pictures of the search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..objective import Scores, read_scores
from ..validate import MEAN_DRIFT, STATISTICS, UNGUIDED_STATISTICS, away
from .storage import import_optuna


class Guard:
    """Distances may not grow on the search's prompts, and pixel statistics may not go away from the reference's.

    A candidate that the verdict would refuse for a drift is no candidate then, and the best of the others is found.
    """

    def __init__(
        self,
        measure: Callable[[object, Sequence[int]], Scores],
        reference: Callable[[Sequence[int]], Scores] | None = None,
    ):
        """``measure(pictures, indices)`` gives {name: (B,)}: names of distances, and of ``STATISTICS``.
        ``reference(indices)`` gives the statistics of the reference model's pictures; without it, those of the
        identity are right, and only contrast and saturation are looked at."""
        self._measure, self._reference = measure, reference

    def __call__(self, pictures: object, indices: Sequence[int]) -> dict[str, list[float]]:
        values = read_scores(self._measure(pictures, indices), len(indices))
        return {name: values[name].tolist() for name in values if self._counts(name)}

    def excess(self, name: str, values: Mapping[int, float], identity: Mapping[int, float]) -> float:
        """How far a candidate's values by index go beyond what is allowed; above 0 it cannot win.

        Of the mean change over the indices that the identity has too, and one standard error, so that other prompts
        say the same. A distance counts in its own unit, a statistic relative to what is right. 1 where a value is not
        finite, 0 while nothing is known of the identity.
        """
        indices = [index for index in values if index in identity]
        if not indices:
            return 0.0
        after, before = (np.array([source[index] for index in indices]) for source in (values, identity))
        change = after - before
        if not np.isfinite(change).all():
            return 1.0
        error = float(change.std(ddof=1)) / math.sqrt(len(change)) if len(change) > 1 else 0.0
        if name not in STATISTICS:
            return float(change.mean()) + error
        right = float(before.mean() if self._reference is None else np.mean(self._reference(indices)[name]))
        scale = abs(right) or 1.0
        return (away(float(before.mean()), float(after.mean()), right) + error) / scale - MEAN_DRIFT

    def _counts(self, name: str) -> bool:
        return name not in STATISTICS or self._reference is not None or name in UNGUIDED_STATISTICS


def can_guard() -> bool:
    """Whether the optuna that is there knows constraints: 5 or newer."""
    return hasattr(import_optuna().Trial, "set_constraint")
