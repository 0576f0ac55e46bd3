"""Ask and tell over optuna: which point to try next, on which prompts, and what was found so far."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence

import torch

from ..core import CalibrationError, Coefficients
from ..settings import Settings
from .guard import Guard
from .guard_rule import GuardRule
from .open_trial import OpenTrial
from .place_sampler import Proposals, sampler_by_place
from .space import Space
from .storage import STUDY, close_storage, import_optuna, open_storage, open_study, repair_of
from .strategies import grid_points
from .trials import ORDER, Trial, Trials
from .workers import dead_trials, enlist, nobody_else_works

WILCOXON_P = 0.1
"""A candidate is not tried on more prompts once it is worse than the best at this level (Wilcoxon, one-sided): optuna's
own. What is given up by chance costs a candidate; the verdict has a test of its own."""

MAX_SILENCE = 20
"""A trial of a machine nothing is known of is given up after as many times the longest trial, and after a minute."""


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
        self._proposals = Proposals(self.space, self.settings, self._fixed)
        self._study = open_study(
            self._storage, self._name, sampler=sampler_by_place(self._proposals), pruner=_wilcoxon(self._optuna)
        )  # fmt: skip
        self._rule = GuardRule(self._guard)
        self._trials = self._proposals.trials = Trials(self._study, self._name, self.trials, self._rule)
        self._check_inputs(self._inputs)
        self._first_seen: dict[int, float] = {}
        self._trial: OpenTrial | None = None

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

    def close(self) -> None:
        """Gives a database's connections back. Nothing can be asked of this search any more."""
        close_storage(self._storage, self._where)

    # --- what is known

    def finished(self) -> list[Trial]:
        """Every finished trial, in the order they were asked for."""
        return self._trials.finished()

    def baseline(self) -> float:
        """The mean JAQ of the identity, NaN while it is not known or where it could not be scored."""
        return self._trials.baseline()

    def best(self) -> Trial:
        """The best finite trial on all prompts; the identity wins ties."""
        return self._trials.best() or Trial(self.space.identity(), math.nan, 0, False)

    def guarded(self) -> tuple[str, ...]:
        """Names of what no winner may worsen, as far as it was measured."""
        return tuple(self._trials.identity_guard_values())

    def seconds(self) -> float:
        """What the finished trials took, of all workers and all runs together."""
        return self._trials.seconds()

    def write_note(self, name: str, value: object) -> None:
        """Puts a JSON value beside the trials."""
        self._study.set_user_attr(f"kept:{name}", json.dumps(value))

    def note(self, name: str) -> object | None:
        """What ``write_note`` put there, of any worker; None where there is nothing."""
        text = self._study.user_attrs.get(f"kept:{name}")
        return None if text is None else json.loads(text)

    # --- one trial

    def ask(self) -> dict[str, float] | None:
        """The next point, the identity first; None when all trials are finished or being made, or the budget is spent.

        A point is asked for once, however many workers there are.
        """
        if self._trials.all_complete() or self._all_places_are_taken():
            return None
        self._proposals.worker = self._proposals.worker or enlist(self._study)
        # A host may run us under inference mode; the Gaussian process is fitted by gradient.
        with torch.inference_mode(False), torch.enable_grad():
            trial = self._study.ask(self._distributions)
        if self._proposals.place >= self.trials:  # another worker was faster
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return None
        self._trial = OpenTrial(self._study, trial, self._trials, self._rule)
        return dict(trial.params)

    def is_beaten(
        self, values: Mapping[int, float], guard_values: Mapping[str, Mapping[int, float]] | None = None
    ) -> bool:
        """Notes JAQ of some more prompts of the point asked for last, and by name what no winner may worsen: is there
        no use in trying the others?

        True when a picture could not be scored, or when the best so far is better for certain.
        """
        self._trial.add(values, guard_values or {})
        return self._trial.is_beaten(self.settings.races)

    def tell(self, whole: bool) -> Trial | None:
        """Ends the trial asked for last with the values that were noted.

        None: another worker took this one for dead, and its place was given away.
        """
        trial, self._trial = self._trial, None
        return trial.end(whole)

    def abandon(self) -> None:
        """Gives the point asked for last back: it will be asked for again."""
        if self._trial is not None:
            self._trial.give_back()
            self._trial = None

    def waits(self) -> bool:
        """Whether there may be more to ask for: other workers make trials, or one of a dead worker was just given
        back."""
        if self._trials.all_complete():
            return False
        running = self._trials.running()
        dead = dead_trials(self._study, running, self._proposals.worker)
        longest, now = self._trials.longest(), time.monotonic()
        for trial in running:
            age = now - self._first_seen.setdefault(trial.number, now)
            if trial not in dead and age > max(60.0, MAX_SILENCE * longest):
                dead.append(trial)
        self._trials.give_up(dead)
        return bool(running)

    # --- inside

    def _all_places_are_taken(self) -> bool:
        """By finished trials and by those that living workers make; dead workers' trials are given up first."""
        running = self._trials.running()
        dead = dead_trials(self._study, running, self._proposals.worker)
        self._trials.give_up(dead)
        alive = [trial for trial in running if trial not in dead]
        places = {trial.user_attrs[ORDER] for trial in (*self._trials.complete(), *alive) if ORDER in trial.user_attrs}
        unsigned = sum(ORDER not in trial.user_attrs for trial in alive)
        all_taken = len(places & set(range(self.trials))) + unsigned >= self.trials
        return all_taken or (0 in places and self._budget_is_spent())

    def _budget_is_spent(self) -> bool:
        """The identity and one candidate are always tried."""
        finished = self.finished()
        if len(finished) < 2:
            return False
        pictures = 0 < self.settings.pictures <= sum(trial.pictures for trial in finished)
        return pictures or 0 < self.settings.minutes <= self.seconds() / 60

    def _check_inputs(self, inputs: str) -> None:
        if inputs and self._study.user_attrs.get("inputs", inputs) != inputs:
            raise CalibrationError(
                "this journal belongs to a calibration with other inputs.", "use another journal, or the same inputs"
            )
        if inputs and "inputs" not in self._study.user_attrs:
            self._study.set_user_attr("inputs", inputs)


def _wilcoxon(optuna):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(p_threshold=WILCOXON_P)
