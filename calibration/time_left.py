"""How long it will still take, said so that people can read it: it counts down and does not jump."""

from __future__ import annotations

import time
from collections.abc import Callable

COUNTDOWN_TOLERANCE = 0.25
"""Share by which an estimate has to miss the countdown before the countdown is set anew: with candidates that are
raced out, two estimates in a row differ by less than that in most studies of the demo."""


class TimeLeft:
    """Seconds that are left, from the pictures that were made since the start and those that are still to be made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._start = clock()
        self._end: float | None = None

    def __call__(self, done: int, remaining: int) -> float:
        now = self._clock()
        estimate = (now - self._start) / max(1, done) * remaining
        countdown = None if self._end is None else self._end - now
        if countdown is None or abs(estimate - countdown) > COUNTDOWN_TOLERANCE * max(estimate, countdown):
            self._end = now + estimate
        return max(0.0, self._end - now)


def rounded(seconds: float) -> str:
    """In steps that a person would count in: 5 s, 10 s from half a minute on, minutes from two on."""
    if seconds < 120:
        step = 5 if seconds < 30 else 10
        return f"{max(step, step * round(seconds / step))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
