"""The trials of one study, read from its storage: which are finished, which is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core import CalibrationError
from .guard_rule import GuardRule
from .storage import import_optuna

GUARD_KEY = "guarded"
"""What no winner may worsen, in the storage: {name: {index: value}}."""

ORDER, WORKER, POINT, SECONDS = "order", "worker", "point", "seconds"
"""What a trial says of itself in the storage, besides its scores: its place in the search, from 0; who makes it; the
point that the model of the landscape asked for, {axis: value}; what it took. No clock of the storage decides anything:
a machine's clock may be set back in the midst of a study."""


@dataclass(frozen=True)
class Trial:
    """A finished candidate. ``value`` is its mean JAQ, NaN when a picture could not be scored; where it was raced out
    after ``pictures`` of the prompts, an estimate. ``whole``: tried on all prompts, and near enough to win."""

    point: Mapping[str, float]
    value: float
    pictures: int
    whole: bool


class Trials:
    """Reads the first ``count`` trials of an optuna study, and gives up those that nobody makes any more."""

    def __init__(self, study, name: str, count: int, rule: GuardRule):
        self._study, self._name, self.count, self._rule = study, name, count, rule
        self._states = import_optuna().trial.TrialState

    # --- as optuna has them

    def complete(self) -> list:
        """Of this search's trials, by their places: a study that was run longer before has more. Where two workers
        came to make one place, the first of them counts.

        Raises:
            CalibrationError: a trial that does not say what it is.
        """
        places: dict[int, object] = {}
        for trial in sorted(self._in_state(self._states.COMPLETE), key=lambda trial: trial.number):
            if not {ORDER, "value", "pictures", "whole"} <= set(trial.user_attrs):
                raise CalibrationError(
                    f"trial {trial.number} of the study {self._name[:24]} is incomplete.",
                    "use another journal or database: the study begins anew there",
                )
            if trial.user_attrs[ORDER] < self.count:
                places.setdefault(trial.user_attrs[ORDER], trial)
        return [places[order] for order in sorted(places)]

    def all_complete(self) -> bool:
        return len(self.complete()) >= self.count

    def running(self) -> list:
        return self._in_state(self._states.RUNNING)

    def give_up(self, trials: Sequence) -> None:
        """Their places are free again."""
        for trial in trials:
            self._study.tell(trial.number, state=self._states.FAIL, skip_if_finished=True)

    def free_place(self, number: int) -> int:
        """The place of the trial that begins now: the first that no other trial holds; a lost one holds none."""
        others = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != self._states.FAIL]
        places = {trial.user_attrs[ORDER] for trial in others if ORDER in trial.user_attrs and trial.number != number}
        for trial in others:
            if trial.number < number and ORDER not in trial.user_attrs:  # begins now as well, somewhere else
                places.add(_first_free(places))
        return _first_free(places)

    # --- as others see them

    def finished(self) -> list[Trial]:
        return [self.read(trial) for trial in self.complete()]

    def read(self, trial) -> Trial:
        attributes = trial.user_attrs
        guard_values = attributes.get(GUARD_KEY, {})
        whole = attributes["whole"] and self._rule.may_win(trial.number, guard_values, self.identity_guard_values())
        return Trial(dict(trial.params), attributes["value"], attributes["pictures"], whole)

    def baseline(self) -> float:
        """The mean JAQ of the identity, NaN while it is not known or where it could not be scored."""
        identity = self._identity()
        return identity.user_attrs["value"] if identity else math.nan

    def best(self) -> Trial | None:
        """The best finite trial on all prompts; the first of equals."""
        whole = [trial for trial in self.finished() if trial.whole and math.isfinite(trial.value)]
        return max(whole, key=lambda trial: trial.value) if whole else None

    def best_scores(self) -> dict[int, float] | None:
        """JAQ by prompt of the best one."""
        whole = [t for t in self.complete() if self.read(t).whole and math.isfinite(t.user_attrs["value"])]
        return max(whole, key=lambda trial: trial.value).intermediate_values if whole else None

    def identity_guard_values(self) -> Mapping[str, Mapping[str, float]]:
        identity = self._identity()
        return identity.user_attrs.get(GUARD_KEY, {}) if identity else {}

    def seconds(self) -> float:
        """What the finished ones took, of all workers and all runs together."""
        return sum(map(seconds_of, self.complete()))

    def longest(self) -> float:
        """Seconds that the longest of the finished ones took."""
        return max(map(seconds_of, self.complete()), default=0.0)

    def _identity(self):
        return next((trial for trial in self.complete() if trial.user_attrs[ORDER] == 0), None)

    def _in_state(self, state) -> list:
        return self._study.get_trials(deepcopy=False, states=(state,))


def seconds_of(trial) -> float:
    """What a finished trial took; studies of before this was noted have only their clock's word."""
    seconds = trial.user_attrs.get(SECONDS)
    return max(0.0, trial.duration.total_seconds()) if seconds is None else seconds


def _first_free(places: set[int]) -> int:
    return next(place for place in range(len(places) + 1) if place not in places)
