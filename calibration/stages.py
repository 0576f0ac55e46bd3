"""The searches of a calibration: one, or with the greedy strategy one for each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from .core import CalibrationError, Coefficients
from .indices import index_of
from .objective import Objective
from .search.search import Search
from .search.space import Space
from .search.trials import Trial
from .task import Task
from .validate import evaluate


class Stages:
    """Opens one search after the other; in a ``with`` statement their storages are closed at its end."""

    def __init__(self, task: Task):
        self.task, self._searches = task, ExitStack()

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self._searches.close()

    def __iter__(self) -> Iterator[tuple[Search, int]]:
        """(A search, the trials of those after it). The caller goes through all points of one before the next."""
        task = self.task
        if task.settings.strategy != "greedy":
            yield self._open(task.space, name=task.name, starts=task.starts), 0
            return
        if isinstance(task.journal, str) and "://" in task.journal:
            raise CalibrationError("the greedy strategy is for one machine.", "use another strategy, or a journal file")
        base, trials = task.identity, max(1, task.settings.trials // task.n_steps) + 1
        for step in range(task.n_steps):
            space = Space(task.settings, task.n_steps, steps=(step,), base=base)
            name, starts = (f"{task.name} step {step + 1}", ()) if step else (task.name, task.starts)
            search = self._open(space, name=name, starts=starts, trials=trials)
            yield search, (task.n_steps - step - 1) * trials
            base = space.coefficients(search.best().point)

    def _open(self, space: Space, **more: object) -> Search:
        task = self.task
        search = Search(space, task.settings, task.journal, inputs=task.digest(), guard=task.guard, **more)
        self._searches.callback(search.close)
        search.begin_anew_if_void()
        return search


def in_whole_space(task: Task, search: Search, trial: Trial) -> Trial:
    """A trial with the numbers of all steps: a stage of the greedy strategy searches those of one."""
    if search.space.axes == task.space.axes:
        return trial
    coefficients: Coefficients = search.space.coefficients(trial.point)
    values = coefficients.c_x + coefficients.c_eps
    return replace(trial, point=dict(zip(task.space.axes, values, strict=True)))


def objective_of(task: Task, search: Search) -> Objective:
    """JAQ, in units of the scores' own noise where the settings ask for that: measured once and kept beside the trials.

    Raises:
        CalibrationError: no picture could be scored.
    """
    if not task.settings.normalised:
        return Objective(task.settings.k)
    if search.note("units") is None:
        unused = 1 + task.parts.noises  # a noise that neither the search nor the verdict sees
        rows = []
        for noise in (0, unused):
            indices = [index_of(prompt, noise, task.n_prompts) for prompt in task.parts.search]
            rows.append(evaluate(task.generate, task.score, task.identity, indices)[0])
        if not any(np.isfinite(row.scores["jaq"]).any() for row in rows):
            raise unscored()  # and nothing is kept of it: the cause may be gone the next time
        objective = Objective.normalised(task.settings.k, *(row.scores for row in rows))
        search.write_note("units", [objective.tc_unit, objective.iq_unit])
    return Objective(task.settings.k, *search.note("units"))  # perhaps another worker's, kept a moment later


def unscored() -> CalibrationError:
    return CalibrationError("not one candidate could be scored.", "check the model: its pictures are not finite")
