"""The trial that this process makes now: its scores as they come, and how it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from ..core import CalibrationError
from .guard_rule import GuardRule
from .storage import import_optuna, storage_errors
from .trials import GUARD_KEY, SECONDS, Trial, Trials


class OpenTrial:
    """Between ``ask`` and the end. Where another worker took it for dead, what is noted here is lost without error."""

    def __init__(self, study, trial, trials: Trials, rule: GuardRule):
        self._study, self._trial, self._trials, self._rule = study, trial, trials, rule
        self._lost = import_optuna().exceptions.UpdateFinishedTrialError
        self._scores: dict[int, float] = {}
        self._guard_values: dict[str, dict[str, float]] = {}
        self._start_time = time.monotonic()

    def add(self, values: Mapping[int, float], guard_values: Mapping[str, Mapping[int, float]]) -> None:
        """Notes JAQ of some more prompts, and by name what no winner may worsen."""
        self._scores.update(values)
        for name, by_index in guard_values.items():
            # Texts: JSON knows no other keys.
            self._guard_values.setdefault(name, {}).update({str(index): value for index, value in by_index.items()})
        if all(math.isfinite(value) for value in values.values()):
            with suppress(self._lost):
                for index, value in values.items():
                    self._trial.report(value, index)

    def is_beaten(self, races: bool) -> bool:
        """Whether a picture could not be scored, or, where candidates race, the best so far is better for certain."""
        if not all(map(math.isfinite, self._scores.values())):
            return True
        return races and self._trials.best_scores() is not None and self._trial.should_prune()

    def end(self, whole: bool) -> Trial | None:
        """Writes what was noted. None: another worker took this one for dead, and its place was given away."""
        with suppress(self._lost):
            return self._end(whole)
        return None

    def _end(self, whole: bool) -> Trial:
        values = list(self._scores.values())
        value = float(np.mean(values)) if all(map(math.isfinite, values)) else math.nan
        if not whole and math.isfinite(value):
            value = self._estimate()
        seconds = time.monotonic() - self._start_time
        for name, item in (("value", value), ("pictures", len(values)), ("whole", whole), (SECONDS, seconds)):
            self._trial.set_user_attr(name, item)
        if self._guard_values:
            self._trial.set_user_attr(GUARD_KEY, self._guard_values)
            excesses = self._rule.excesses(self._guard_values, self._trials.identity_guard_values())
            for name, excess in excesses.items():
                self._trial.set_constraint(name, excess)
        worst = min((trial.value for trial in self._trials.finished() if math.isfinite(trial.value)), default=0.0)
        number = self._trial.number
        self._study.tell(self._trial, value if math.isfinite(value) else worst - 1.0)
        return self._trials.read(self._study.trials[number])

    def give_back(self) -> None:
        """Its point will be asked for again. Where that cannot be written down, its worker will be taken for dead."""
        with suppress(CalibrationError), storage_errors(None):
            self._trials.give_up([self._trial])

    def _estimate(self) -> float:
        """The mean over all prompts as the best candidate's scores foretell it: never better than that one's."""
        best = self._trials.best_scores()
        behind = np.mean([value - best[index] for index, value in self._scores.items() if index in best])
        return float(np.mean(list(best.values())) + min(0.0, behind))
