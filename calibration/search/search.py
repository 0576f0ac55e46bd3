"""Ask and tell over optuna: which point to try next, on which prompts, and what was found so far."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from ..core import CalibrationError, Coefficients
from ..settings import Settings
from .guard import Guard
from .space import Space
from .storage import STUDY, close_storage, import_optuna, open_storage, open_study, repair_of, storage_errors
from .strategies import fresh, grid_points, sampler_for
from .workers import dead_trials, enlist, nobody_else_works

WILCOXON_P = 0.1
"""A candidate is not tried on more prompts once it is worse than the best at this level (Wilcoxon, one-sided)."""

GUARD_KEY = "guarded"
"""What no winner may worsen, in the storage: {name: {index: value}}."""

MAX_SILENCE = 20
"""A trial of a machine nothing is known of is given up after as many times the longest trial, and after a minute."""

ORDER, WORKER, SECONDS = "order", "worker", "seconds"
"""What a trial says of itself in the storage, besides its scores: its place in the search, from 0; who makes it; what
it took. No clock of the storage decides anything: a machine's clock may be set back in the midst of a study."""


@dataclass(frozen=True)
class Trial:
    """A finished candidate. ``value`` is its mean JAQ, NaN when a picture could not be scored; where it was raced out
    after ``pictures`` of the prompts, an estimate. ``whole``: tried on all prompts, and near enough to win."""

    point: Mapping[str, float]
    value: float
    pictures: int
    whole: bool


class Search:
    """Maximises a function of a few numbers that is known prompt by prompt.

    Common random numbers make the objective deterministic, and it is smooth with a ridge along c_x ~ c_eps: a
    Gaussian process needs far fewer pictures than a grid, and half of the candidates are told apart from the best by
    a part of the prompts. All state is in the storage: any number of processes may work on one study, and one that
    was cut off goes on as if it had not been. ``repair`` says what was done to a damaged journal, see ``repair_of``.
    """

    def __init__(
        self,
        space: Space,
        settings: Settings,
        where: object = None,
        *,
        starts: Sequence[Coefficients] = (),
        trials: int | None = None,
        name: str = STUDY,
        inputs: str = "",
        guard: Guard | None = None,
    ):
        """``starts`` are tried after the identity; ``trials`` counts both. ``inputs`` names what the study is about:
        a storage that holds a study of the same name about something else is refused. ``guard`` says what no winner
        may worsen.

        Raises:
            CalibrationError: such a storage, or one that cannot be opened.
        """
        self._optuna = import_optuna()
        self.space, self.settings = space, settings
        self._fixed = [space.identity(), *(space.nearest(start) for start in starts)]
        if settings.strategy == "grid":
            self._fixed += grid_points(space, settings.grid)
            self.trials = len(self._fixed)
        else:
            self.trials = (settings.trials + 1 if trials is None else trials) + len(starts)
        self._where, self._name, self._inputs, self._guard = where, name, inputs, guard
        self._storage = open_storage(where)
        self.repair = repair_of(self._storage)
        self._distributions = {
            axis: self._optuna.distributions.FloatDistribution(space.low, space.high) for axis in space.axes
        }
        self._open()

    def _open(self) -> None:
        """Nothing is written where the study is there: one that is finished may lie on a disk that is only read."""
        self._study = open_study(
            self._storage, self._name, sampler=_sampler_by_place(self), pruner=_wilcoxon(self._optuna)
        )  # fmt: skip
        self._check_inputs(self._inputs)
        self._own, self._place = "", 0
        self._allowed: dict[int, bool] = {}  # by number, once the identity is known: it is asked for often
        self._first_seen: dict[int, float] = {}
        self._trial, self._scores, self._guard_values = None, {}, {}

    def begin_anew_if_void(self) -> None:
        """A study in which not one picture could be scored says nothing: it begins anew, the cause may be gone.

        Not while anybody else may work on it.
        """
        finished = self.finished()
        if not finished or any(math.isfinite(trial.value) for trial in finished):
            return
        if len(finished) >= self.trials or nobody_else_works(self._study):
            self._optuna.delete_study(study_name=self._name, storage=self._storage)
            self._open()

    # --- what is known

    def finished(self) -> list[Trial]:
        """Every finished trial, in the order they were asked for."""
        return [self._read(trial) for trial in self._complete()]

    def baseline(self) -> float:
        """The mean JAQ of the identity, NaN while it is not known or where it could not be scored."""
        return next((trial.user_attrs["value"] for trial in self._complete() if trial.user_attrs[ORDER] == 0), math.nan)

    def best(self) -> Trial:
        """The best finite trial on all prompts; the identity wins ties."""
        whole = [trial for trial in self.finished() if trial.whole and math.isfinite(trial.value)]
        nothing = Trial(self.space.identity(), math.nan, 0, False)
        return max(whole, key=lambda trial: trial.value) if whole else nothing

    def guarded(self) -> tuple[str, ...]:
        """Names of what no winner may worsen, as far as it was measured."""
        return tuple(self._identity_guarded())

    def close(self) -> None:
        """Gives a database's connections back. Nothing can be asked of this search any more."""
        close_storage(self._storage, self._where)

    def seconds(self) -> float:
        """What the finished trials took, of all workers and all runs together."""
        return sum(map(_seconds, self._complete()))

    def keep(self, name: str, value: object) -> None:
        """Puts a JSON value beside the trials."""
        self._study.set_user_attr(f"kept:{name}", json.dumps(value))

    def kept(self, name: str) -> object | None:
        text = self._study.user_attrs.get(f"kept:{name}")
        return None if text is None else json.loads(text)

    # --- one trial

    def ask(self) -> dict[str, float] | None:
        """The next point, the identity first; None when all trials are finished or being made, or the budget is spent.

        A point is asked for once, however many workers there are.
        """
        if self._all_finished():
            return None
        running = self._running()
        dead = dead_trials(self._study, running, self._own)
        self._fail(dead)
        places = {trial.user_attrs[ORDER] for trial in self._complete()}
        alive = [trial for trial in running if trial not in dead]
        places |= {trial.user_attrs[ORDER] for trial in alive if ORDER in trial.user_attrs}
        unsigned = sum(ORDER not in trial.user_attrs for trial in alive)
        if len(places & set(range(self.trials))) + unsigned >= self.trials or (0 in places and self._spent()):
            return None
        self._own = self._own or enlist(self._study)
        # A host may run us under inference mode; the Gaussian process is fitted by gradient.
        with torch.inference_mode(False), torch.enable_grad():
            trial = self._study.ask(self._distributions)
        if self._place >= self.trials:  # another worker was faster
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return None
        self._trial, self._scores, self._guard_values = trial, {}, {}
        self._start_time = time.monotonic()
        return dict(trial.params)

    def is_beaten(
        self, values: Mapping[int, float], guard_values: Mapping[str, Mapping[int, float]] | None = None
    ) -> bool:
        """Notes JAQ of some more prompts of the point asked for last, and by name what no winner may worsen: is there
        no use in trying the others?

        True when a picture could not be scored, or when the best so far is better for certain.
        """
        self._scores.update(values)
        for name, by_index in (guard_values or {}).items():
            # Texts: JSON knows no other keys.
            self._guard_values.setdefault(name, {}).update({str(index): value for index, value in by_index.items()})
        if not all(math.isfinite(value) for value in values.values()):
            return True
        with suppress(self._optuna.exceptions.UpdateFinishedTrialError):  # see ``tell``
            for index, value in values.items():
                self._trial.report(value, index)
        return self.settings.races and self._best_scores() is not None and self._trial.should_prune()

    def tell(self, whole: bool) -> Trial | None:
        """Ends the trial asked for last with the values that were noted.

        None: another worker took this one for dead, and its place was given away.
        """
        try:
            return self._end_trial(whole)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return None
        finally:
            self._trial = None

    def _end_trial(self, whole: bool) -> Trial:
        values = list(self._scores.values())
        value = float(np.mean(values)) if all(map(math.isfinite, values)) else math.nan
        if not whole and math.isfinite(value):
            value = self._estimate()
        seconds = time.monotonic() - self._start_time
        for name, item in (("value", value), ("pictures", len(values)), ("whole", whole), (SECONDS, seconds)):
            self._trial.set_user_attr(name, item)
        if self._guard_values:
            self._trial.set_user_attr(GUARD_KEY, self._guard_values)
            for name, excess in self._excesses(self._guard_values).items():
                self._trial.set_constraint(name, excess)
        worst = min((trial.value for trial in self.finished() if math.isfinite(trial.value)), default=0.0)
        number = self._trial.number
        self._study.tell(self._trial, value if math.isfinite(value) else worst - 1.0)
        return self._read(self._study.trials[number])

    def abandon(self) -> None:
        """Gives the point asked for last back: it will be asked for again. Where that cannot be written down, its
        worker will be taken for dead."""
        if self._trial is not None:
            with suppress(CalibrationError), storage_errors(None):
                self._fail([self._trial])
            self._trial = None

    def waits(self) -> bool:
        """Whether there may be more to ask for: other workers make trials, or one of a dead worker was just given
        back."""
        if self._all_finished():
            return False
        running = self._running()
        dead = dead_trials(self._study, running, self._own)
        longest, now = max(map(_seconds, self._complete()), default=0.0), time.monotonic()
        for trial in running:
            age = now - self._first_seen.setdefault(trial.number, now)
            if trial not in dead and age > max(60.0, MAX_SILENCE * longest):
                dead.append(trial)
        self._fail(dead)
        return bool(running)

    # --- inside

    def _trials(self, *states) -> list:
        return self._study.get_trials(deepcopy=False, states=states)

    def _complete(self) -> list:
        """Of this search's trials, by their places: a study that was run longer before has more. Where two workers
        came to make one place, the first of them counts.

        Raises:
            CalibrationError: a trial that does not say what it is.
        """
        places: dict[int, object] = {}
        for trial in sorted(self._trials(self._optuna.trial.TrialState.COMPLETE), key=lambda trial: trial.number):
            if not {ORDER, "value", "pictures", "whole"} <= set(trial.user_attrs):
                raise CalibrationError(
                    f"trial {trial.number} of the study {self._name[:24]} is incomplete.",
                    "use another journal or database: the study begins anew there",
                )
            if trial.user_attrs[ORDER] < self.trials:
                places.setdefault(trial.user_attrs[ORDER], trial)
        return [places[order] for order in sorted(places)]

    def _all_finished(self) -> bool:
        return len(self._complete()) >= self.trials

    def _running(self) -> list:
        return self._trials(self._optuna.trial.TrialState.RUNNING)

    def _fail(self, trials: Sequence) -> None:
        for trial in trials:
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def _spent(self) -> bool:
        """The identity and one candidate are always tried."""
        finished = self.finished()
        if len(finished) < 2:
            return False
        pictures = 0 < self.settings.pictures <= sum(trial.pictures for trial in finished)
        return pictures or 0 < self.settings.minutes <= self.seconds() / 60

    def _read(self, trial) -> Trial:
        """As others see it."""
        attributes = trial.user_attrs
        whole = attributes["whole"] and self._may_win(trial)
        return Trial(dict(trial.params), attributes["value"], attributes["pictures"], whole)

    def _may_win(self, trial) -> bool:
        guard_values = trial.user_attrs.get(GUARD_KEY, {})
        if trial.number in self._allowed or self._guard is None or not guard_values:
            return self._allowed.get(trial.number, True)
        may_win = all(excess <= 0 for excess in self._excesses(guard_values).values())
        if self._identity_guarded():
            self._allowed[trial.number] = may_win
        return may_win

    def _excesses(self, guard_values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """By name, how far a candidate goes beyond what the guard allows."""
        if self._guard is None:
            return {}
        identity = self._identity_guarded()
        return {
            name: self._guard.excess(name, _by_index(values), _by_index(identity.get(name, {})))
            for name, values in guard_values.items()
        }

    def _identity_guarded(self) -> Mapping[str, Mapping[str, float]]:
        first = next((trial for trial in self._complete() if trial.user_attrs[ORDER] == 0), None)
        return first.user_attrs.get(GUARD_KEY, {}) if first else {}

    def _best_scores(self) -> dict[int, float] | None:
        whole = [t for t in self._complete() if self._read(t).whole and math.isfinite(t.user_attrs["value"])]
        return max(whole, key=lambda trial: trial.value).intermediate_values if whole else None

    def _estimate(self) -> float:
        """The mean over all prompts as the best candidate's scores foretell it: never better than that one's."""
        best = self._best_scores()
        behind = np.mean([value - best[index] for index, value in self._scores.items() if index in best])
        return float(np.mean(list(best.values())) + min(0.0, behind))

    def _free_place(self, number: int) -> int:
        """The place of the trial that begins now: the first that no other trial holds; a lost one holds none."""
        fail = self._optuna.trial.TrialState.FAIL
        others = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != fail]
        places = {trial.user_attrs[ORDER] for trial in others if ORDER in trial.user_attrs and trial.number != number}
        for trial in others:
            if trial.number < number and ORDER not in trial.user_attrs:  # begins now as well, somewhere else
                places.add(_first_free(places))
        return _first_free(places)

    def _check_inputs(self, inputs: str) -> None:
        if inputs and self._study.user_attrs.get("inputs", inputs) != inputs:
            raise CalibrationError(
                "this journal belongs to a calibration with other inputs.", "use another journal, or the same inputs"
            )
        if inputs and "inputs" not in self._study.user_attrs:
            self._study.set_user_attr("inputs", inputs)


def _by_index(values: Mapping[str, float]) -> dict[int, float]:
    return {int(index): value for index, value in values.items()}


def _first_free(places: set[int]) -> int:
    return next(place for place in range(len(places) + 1) if place not in places)


def _seconds(trial) -> float:
    """What a finished trial took; studies of before this was noted have only their clock's word."""
    seconds = trial.user_attrs.get(SECONDS)
    return max(0.0, trial.duration.total_seconds()) if seconds is None else seconds


def _wilcoxon(optuna):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(p_threshold=WILCOXON_P)


def _sampler_by_place(search: Search):
    """A sampler that asks another one for every trial, by the trial's place."""
    base = import_optuna().samplers.BaseSampler

    class Placed(base):
        def before_trial(self, study, trial):
            # Signed before the point is thought about, which may take seconds: a worker that dies meanwhile is known,
            # and others take other places.
            study._storage.set_trial_user_attr(trial._trial_id, WORKER, search._own)
            search._place = search._free_place(trial.number)
            study._storage.set_trial_user_attr(trial._trial_id, ORDER, search._place)

        def infer_relative_search_space(self, study, trial):
            self.inner = sampler_for(search._place, search.space, search.settings, search._fixed)
            return self.inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study, trial, search_space):
            point = self.inner.sample_relative(study, trial, search_space)
            if set(point) != set(search.space.axes):
                return point
            points = [tuple(other.point[axis] for axis in search.space.axes) for other in search.finished()]
            best = search.best().point
            return fresh(point, points, best, search.space, search.settings.seed, search._place)

        def sample_independent(self, study, trial, name, distribution):
            return self.inner.sample_independent(study, trial, name, distribution)

    return Placed()
