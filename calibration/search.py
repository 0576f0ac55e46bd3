"""Ask and tell over optuna: which point to try next, on which prompts, and what was found so far."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .core import CalibrationError, Coefficients
from .settings import Settings
from .space import Space
from .storage import STUDY, import_optuna, open_storage
from .strategies import fresh, grid_points, sampler_for
from .workers import dead_trials, enlist

DOUBT = 0.1
"""A candidate is not tried on more prompts once it is worse than the best at this level (Wilcoxon, one-sided)."""

HELD = "held"
"""What no candidate may raise, in the storage."""

PATIENCE = 20
"""A trial of a machine nothing is known of is given up after as many times the longest trial, and after a minute."""


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
    was cut off goes on as if it had not been.
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
    ):
        """``starts`` are tried after the identity; ``trials`` counts both. ``inputs`` names what the study is about:
        a storage that holds a study of the same name about something else is refused.

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
        self._study = self._optuna.create_study(
            storage=open_storage(where),
            study_name=name,
            direction="maximize",
            load_if_exists=where is not None,
            sampler=_sampler_by_place(self),
            pruner=_wilcoxon(self._optuna),
        )
        self._check_inputs(inputs)
        self._own = enlist(self._study)
        self._orders: dict[int, int] = {}
        self._usual: Mapping[str, float] = {}
        self._fail(dead_trials(self._study, self._running(), self._own))
        self._distributions = {
            axis: self._optuna.distributions.FloatDistribution(space.low, space.high) for axis in space.axes
        }
        self._trial, self._scored, self._held = None, {}, {}

    # --- what is known

    def finished(self) -> list[Trial]:
        """Every finished trial, in the order they were asked for."""
        trials = sorted(self._complete(), key=lambda trial: trial.user_attrs["order"])
        return [self._read(trial) for trial in trials]

    def best(self) -> Trial:
        """The best finite trial on all prompts; the identity wins ties."""
        whole = [trial for trial in self.finished() if trial.whole and math.isfinite(trial.value)]
        nothing = Trial(self.space.identity(), math.nan, 0, False)
        return max(whole, key=lambda trial: trial.value) if whole else nothing

    def seconds(self) -> float:
        """What the finished trials took, of all workers and all runs together."""
        return sum(trial.duration.total_seconds() for trial in self._complete())

    def keep(self, name: str, value: object) -> None:
        """Puts a JSON value beside the trials."""
        self._study.set_user_attr(f"kept:{name}", json.dumps(value))

    def kept(self, name: str) -> object | None:
        found = self._study.user_attrs.get(f"kept:{name}")
        return None if found is None else json.loads(found)

    # --- one trial

    def ask(self) -> dict[str, float] | None:
        """The next point, the identity first; None when all trials are finished or being made, or the budget is spent.

        A point is asked for once, however many workers there are.
        """
        finished, running = self.finished(), self._running()
        if len(finished) + len(running) >= self.trials or self._spent(finished):
            return None
        # A host may run us under inference mode; the Gaussian process is fitted by gradient.
        with torch.inference_mode(False), torch.enable_grad():
            trial = self._study.ask(self._distributions)
        order = self._order(trial.number)
        if order >= self.trials:  # another worker was faster
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return None
        trial.set_user_attr("order", order)
        self._trial, self._scored, self._held = trial, {}, {}
        return dict(trial.params)

    def is_beaten(self, values: Mapping[int, float], held: Mapping[int, float] | None = None) -> bool:
        """Notes JAQ of some more prompts of the point asked for last, and what no winner may raise: is there no use in
        trying the others?

        True when a picture could not be scored, or when the best so far is better for certain.
        """
        self._scored.update(values)
        self._held.update(held or {})
        if not all(math.isfinite(value) for value in values.values()):
            return True
        for index, value in values.items():
            self._trial.report(value, index)
        return self.settings.races and self._best_scores() is not None and self._trial.should_prune()

    def tell(self, whole: bool) -> Trial:
        """Ends the trial asked for last with the values that were noted."""
        values = list(self._scored.values())
        value = float(np.mean(values)) if all(map(math.isfinite, values)) else math.nan
        if not whole and math.isfinite(value):
            value = self._estimate()
        for name, item in (("value", value), ("pictures", len(values)), ("whole", whole)):
            self._trial.set_user_attr(name, item)
        if self._held:
            # Texts: JSON knows no other keys.
            held = {str(index): distance for index, distance in self._held.items()}
            self._trial.set_user_attr(HELD, held)
            self._trial.set_constraint(HELD, self._excess(held))
        worst = min((trial.value for trial in self.finished() if math.isfinite(trial.value)), default=0.0)
        self._study.tell(self._trial, value if math.isfinite(value) else worst - 1.0)
        number, self._trial = self._trial.number, None
        return self._read(self._study.trials[number])

    def abandon(self) -> None:
        """Gives the point asked for last back: it will be asked for again."""
        if self._trial is not None:
            self._study.tell(self._trial, state=self._optuna.trial.TrialState.FAIL)
            self._trial = None

    def waits(self) -> bool:
        """Whether there may be more to ask for: other workers make trials, or one of a dead worker was just given
        back."""
        running = self._running()
        dead = dead_trials(self._study, running, self._own)
        longest = max((trial.duration.total_seconds() for trial in self._complete()), default=0.0)
        for trial in running:
            age = time.time() - trial.datetime_start.timestamp()
            if trial not in dead and age > max(60.0, PATIENCE * longest):
                dead.append(trial)
        self._fail(dead)
        return bool(running)

    # --- inside

    def _trials(self, *states) -> list:
        return self._study.get_trials(deepcopy=False, states=states)

    def _complete(self) -> list:
        """Of this search's trials: a study that was run longer before has more."""
        trials = self._trials(self._optuna.trial.TrialState.COMPLETE)
        return [trial for trial in trials if trial.user_attrs["order"] < self.trials]

    def _running(self) -> list:
        return self._trials(self._optuna.trial.TrialState.RUNNING)

    def _fail(self, trials: Sequence) -> None:
        for trial in trials:
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def _spent(self, finished: Sequence[Trial]) -> bool:
        """The identity and one candidate are always tried."""
        if len(finished) < 2:
            return False
        pictures = 0 < self.settings.pictures <= sum(trial.pictures for trial in finished)
        return pictures or 0 < self.settings.minutes <= self.seconds() / 60

    def _read(self, trial) -> Trial:
        """As others see it."""
        told = trial.user_attrs
        whole = told["whole"] and (HELD not in told or self._excess(told[HELD]) <= 0)
        return Trial(dict(trial.params), told["value"], told["pictures"], whole)

    def _excess(self, held: Mapping[str, float]) -> float:
        """How far a candidate raises what is held above the identity's: the mean over the prompts that both were tried
        on, and one standard error, so that other prompts say the same. 0 while the identity is not known."""
        if not self._usual:
            identity = (trial for trial in self._complete() if trial.user_attrs["order"] == 0)
            self._usual = next((trial.user_attrs[HELD] for trial in identity), {})
        change = np.array([value - self._usual[index] for index, value in held.items() if index in self._usual])
        if not len(change):
            return 0.0
        if not np.isfinite(change).all():
            return 1.0
        return float(change.mean() + (change.std(ddof=1) / math.sqrt(len(change)) if len(change) > 1 else 0.0))

    def _best_scores(self) -> dict[int, float] | None:
        whole = [t for t in self._complete() if self._read(t).whole and math.isfinite(t.user_attrs["value"])]
        return max(whole, key=lambda trial: trial.value).intermediate_values if whole else None

    def _estimate(self) -> float:
        """The mean over all prompts as the best candidate's scores foretell it: never better than that one's."""
        best = self._best_scores()
        behind = np.mean([value - best[index] for index, value in self._scored.items() if index in best])
        return float(np.mean(list(best.values())) + min(0.0, behind))

    def _order(self, number: int) -> int:
        """A trial's place: the first that no other trial held when it began. Known from the storage alone, so all
        workers agree; the place of a trial that was lost goes to the next one."""
        trials = sorted(self._study.get_trials(deepcopy=False), key=lambda trial: trial.number)
        lost = self._optuna.trial.TrialState.FAIL
        for trial in trials[: number + 1]:
            if trial.number in self._orders:
                continue
            held = {
                self._orders[other.number]
                for other in trials[: trial.number]
                if other.state != lost or other.datetime_complete > trial.datetime_start
            }
            self._orders[trial.number] = next(place for place in range(number + 1) if place not in held)
        return self._orders[number]

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
        return optuna.pruners.WilcoxonPruner(p_threshold=DOUBT)


def _sampler_by_place(search: Search):
    """A sampler that asks another one for every trial, by the trial's place."""
    base = import_optuna().samplers.BaseSampler

    class Placed(base):
        def before_trial(self, study, trial):
            # Signed before the point is thought about, which may take seconds: a worker that dies meanwhile is known.
            study._storage.set_trial_user_attr(trial._trial_id, "worker", search._own)

        def infer_relative_search_space(self, study, trial):
            self.inner = sampler_for(search._order(trial.number), search.space, search.settings, search._fixed)
            return self.inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study, trial, search_space):
            asked = self.inner.sample_relative(study, trial, search_space)
            if set(asked) != set(search.space.axes):
                return asked
            tried = [tuple(done.point[axis] for axis in search.space.axes) for done in search.finished()]
            best = search.best().point
            return fresh(asked, tried, best, search.space, search.settings.seed, search._order(trial.number))

        def sample_independent(self, study, trial, name, distribution):
            return self.inner.sample_independent(study, trial, name, distribution)

    return Placed()
