"""Ask and tell over optuna: which point to try next."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from .core import DependencyError
from .settings import Settings
from .space import Space

STARTS = 8
"""Scattered points before the model of the landscape takes over: twice the widest space's dimensions."""


class Search:
    """Maximises a noise-free function of a few numbers with a Gaussian process.

    Common random numbers make the objective deterministic, and it is smooth with a ridge along c_x ≈ c_eps: a
    Gaussian process needs far fewer pictures than a grid. Each ask is seeded by the number of finished trials, so
    a search that was cut off and resumed asks what the uninterrupted one would have asked.
    """

    def __init__(self, space: Space, settings: Settings, journal: Path | None):
        try:
            import optuna
        except ImportError as error:
            raise DependencyError("the search needs the package optuna.", "pip install optuna") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self.space, self.settings = optuna, space, settings
        storage = None
        if journal is not None:
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

            journal.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(journal)
            # Not optuna's default lock, a symbolic link: on Windows that takes an administrator.
            storage = JournalStorage(JournalFileBackend(str(journal), JournalFileOpenLock(str(journal))))
        self._study = optuna.create_study(
            storage=storage, study_name="qsched", direction="maximize", load_if_exists=journal is not None
        )
        for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        self._distributions = {
            axis: optuna.distributions.FloatDistribution(space.low, space.high) for axis in space.axes
        }
        self._trial = None

    def finished(self) -> list[tuple[dict[str, float], float]]:
        """(point, value) of every finished trial, in order; NaN marks a failed one."""
        state = self._optuna.trial.TrialState.COMPLETE
        trials = self._study.get_trials(deepcopy=False, states=(state,))
        return [(dict(trial.params), trial.user_attrs["value"]) for trial in trials]

    def ask(self) -> dict[str, float]:
        """The next point; the first is always the identity."""
        done = len(self.finished())
        self._study.sampler = self._sampler(done)
        # A host may run us under inference mode; the Gaussian process is fitted by gradient.
        with torch.inference_mode(False), torch.enable_grad():
            self._trial = self._study.ask(self._distributions)
        return dict(self._trial.params)

    def tell(self, value: float) -> None:
        """The value of the point asked for last. A value that is not finite is kept, and ranks below all others."""
        self._trial.set_user_attr("value", value)
        worst = min((v for _, v in self.finished() if math.isfinite(v)), default=0.0)
        self._study.tell(self._trial, value if math.isfinite(value) else worst - 1.0)

    def best(self) -> tuple[Mapping[str, float], float]:
        """The best finite trial; the identity wins ties."""
        finite = [(point, value) for point, value in self.finished() if math.isfinite(value)]
        return max(finite, key=lambda item: item[1]) if finite else (self.space.identity(), math.nan)

    def _sampler(self, done: int):
        samplers, seed = self._optuna.samplers, self.settings.seed * 100_003 + done
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            if done == 0:
                return samplers.PartialFixedSampler(self.space.identity(), samplers.RandomSampler(seed=seed))
            if done <= STARTS:
                return samplers.RandomSampler(seed=seed)
            return samplers.GPSampler(seed=seed, n_startup_trials=0, deterministic_objective=True)


def _drop_torn_line(journal: Path) -> None:
    """A write that a crash cut short leaves half a line; the next one would be appended to it."""
    data = journal.read_bytes() if journal.exists() else b""
    if data and not data.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
