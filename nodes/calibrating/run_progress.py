"""How far a calibration is: its bar, the time left, the live map's events, and the best candidate for a cancel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...calibration import Progress
from ...calibration.frames import stills
from ...calibration.progress import REFERENCE_PHASE
from ...calibration.search.trials import Trial
from ...calibration.time_left import TimeLeft, rounded
from ..host.progress import NodeProgress, tell
from .history import keep
from .slider_pairs import LivePairs

STUDY_TITLE = "quantised model"


class RunProgress:
    """Counts pictures. ``most_pictures`` is how many there are at most, candidates that are raced out make fewer;
    ``radius`` is that of the search's trust region, for the map's frame."""

    def __init__(self, unique_id: str | None, most_pictures: int, radius: float):
        self.unique_id, self.radius = unique_id, radius
        self.done, self.remaining = 0, most_pictures
        self.resumed: int | None = None  # pictures of an earlier run
        self.best: Progress | None = None
        self.line = f"at most {most_pictures} pictures"
        self._bar = NodeProgress(unique_id, most_pictures)
        self._time_left = TimeLeft()
        self._pairs = LivePairs()
        self._bar.update(0, self.line)

    def generated(self, count: int) -> None:
        """Some pictures more are made."""
        self.done, self.remaining = self.done + count, max(0, self.remaining - count)
        time_left = rounded(self._time_left(self.done, self.remaining))
        self._update_bar(f"{self.line} - about {time_left} left")

    def show(self, progress: Progress, key: str) -> None:
        """Tells the page of the study's progress and keeps it for pages that are reloaded. ``key`` names the study."""
        self.best = progress
        if self.resumed is None:
            finished = sum(trial.pictures for trial in progress.finished)
            self.resumed = finished - (progress.trial.pictures if progress.trial else 0)
        self.remaining = max(0, progress.total - progress.done)
        event = {**_event(progress), "radius": self.radius, "pictures": self._pair(progress)}
        event = keep(self.unique_id, key, event, lambda: [_as_json(trial) for trial in progress.finished])
        tell(self.unique_id, "qsched.progress", event)
        # Last: a cancel takes effect in it, and a candidate that was finished before belongs on the map.
        self.line = _line(progress)
        self._update_bar(self.line)

    def stopped(self, trials: int) -> dict:
        """What a page is told of a cancelled run: how far it came of as many ``trials``, the identity not counted."""
        if self.best is None:
            return {"kind": "stopped", "count": 0, "total": trials}
        return {"kind": "stopped", "count": max(0, len(self.best.finished) - 1), "total": self.best.trials - 1}

    def _update_bar(self, text: str) -> None:
        done = self.done + (self.resumed or 0)
        self._bar.update(done, text, total=done + self.remaining)

    def _pair(self, progress: Progress) -> dict | None:
        """The stock sampler's pictures and the candidate's; none of the reference model's."""
        if progress.pictures is None or progress.phase == REFERENCE_PHASE:
            return None
        return self._pairs(STUDY_TITLE, progress.indices, stills(progress.pictures))


def trace(trials: Sequence[Trial]) -> list[dict]:
    """The search as the finished report holds it: a point, its JAQ, and whether it was tried on all prompts."""
    return [{**trial.point, "jaq": plain(trial.value), "whole": trial.whole} for trial in trials]


def plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


def _line(progress: Progress) -> str:
    if progress.phase == REFERENCE_PHASE:
        return "the reference's pictures"
    gain = progress.best_jaq - progress.identity_jaq
    return f"{progress.phase}: best JAQ so far {gain:+.4f}" if gain == gain else progress.phase


def _event(progress: Progress) -> dict:
    """What a live plot needs, in plain JSON values."""
    best, trial = progress.best, progress.trial
    return {
        "study": STUDY_TITLE,
        "phase": progress.phase,
        "done": progress.done,
        "total": progress.total,
        "best": {"c_x": best.c_x, "c_eps": best.c_eps, "jaq": plain(progress.best_jaq)},
        "identity": plain(progress.identity_jaq),
        "count": len(progress.finished),
        "trials": progress.trials,
        "trial": None if trial is None else _as_json(trial),
    }


def _as_json(trial: Trial) -> dict:
    return {"point": dict(trial.point), "jaq": plain(trial.value), "whole": trial.whole}
