"""calibrate(): search on some prompts, judge on others, and keep what was found at every moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from .core import CalibrationError, Coefficients, DependencyError
from .objective import Objective
from .progress import Progress, ProgressReport
from .result import OnReference, Result
from .search.guard import Guard, can_guard
from .search.search import Search
from .search.storage import STUDY, storage_errors
from .search.trials import Trial
from .settings import Settings
from .stages import Stages, in_whole_space, objective_of, unscored
from .task import Task
from .validate import NOTHING, REPAIR, Evaluation, Generate, Score, answer, drifts, evaluate, smallest_found
from .verdict import HeldOutRows, all_gains, on_reference

POLL_SECONDS = 0.2
"""Seconds between two looks at what other workers do."""


def calibrate(
    generate: Generate,
    score: Score,
    n_prompts: int,
    n_steps: int,
    settings: Settings = Settings(),  # noqa: B008
    *,
    judge: Score | None = None,
    reference: Generate | None = None,
    guard: Guard | None = None,
    journal: object = None,
    name: str = STUDY,
    starts: Sequence[Coefficients] = (),
    verdict_prompts: Sequence[int] = (),
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Search coefficients for ``n_steps`` steps on some of ``n_prompts`` prompts, and check them on the others.

    ``generate(coefficients, indices)`` makes pictures, ``score(pictures, indices)`` gives {"tc": (B,), "iq": (B,)}.
    Index i is prompt i mod ``n_prompts`` with noise number i div ``n_prompts``: indices run beyond ``n_prompts``, and
    the same index always means the same prompt with the same noise. ``judge`` adds metrics for the verdict alone: the
    search never calls it. ``reference`` makes the same pictures with the model that was quantised, or with as good a
    one (8 bits will do): its pictures without coefficients are made first, those with the winner's at the end, and
    what the coefficients gain there is no repair. ``guard`` says what no candidate may worsen on the search prompts
    (``calibration.search.guard``): one that does cannot win, whatever it scores. ``starts`` are candidates from
    elsewhere, such as a stranger's preset: they are tried like any other. ``verdict_prompts`` are the prompts of a
    second set; by default the settings' share is drawn.

    ``journal`` keeps every finished trial: a file, or a database's URL for several machines
    (``calibration.search.storage``); ``name`` tells studies in one database apart.
    The same call with the same journal goes on where a cancelled or killed one stopped, works with others that do so
    now, and only reads when all is done. ``on_progress`` may raise to stop; what it raises comes through.

    Raises:
        CalibrationError: too few prompts, a journal of another calibration, no picture at all could be scored, all
            were scored the same, or the reference is the model itself.
        DependencyError: ``guard`` with an optuna that knows no constraints.
    """
    if reference is generate:
        raise CalibrationError("the reference is the model itself.", "give the model before it was quantised, or none")
    if guard is not None and not can_guard():
        raise DependencyError("a guard of the search needs optuna 5 or newer.", "pip install --upgrade optuna")
    task = Task(
        generate,
        score,
        n_prompts,
        n_steps,
        settings.resolved(reference is not None),
        judge=judge,
        reference=reference,
        guard=guard,
        journal=journal,
        name=name,
        starts=tuple(starts),
        verdict_prompts=verdict_prompts,
    )
    study = _Study(task, on_progress)
    with storage_errors(journal), Stages(task) as stages:
        return study.result(stages)


class _Study:
    """One calibration: its stages of search, then the verdict."""

    def __init__(self, task: Task, on_progress: Callable[[Progress], None]):
        self.task = task
        self.report = ProgressReport(on_progress, len(task.parts.search), task.row_pictures)
        self.objective: Objective | None = None
        self.rows: HeldOutRows | None = None
        self.reference_identity: Evaluation | None = None
        self.jaqs: set[float] = set()  # different ones

    def result(self, stages: Stages) -> Result:
        repairs = []
        for search, later_trials in stages:
            self._begin(search)
            self.report.later_trials = later_trials
            repairs += [search.repair] if search.repair else []
            self._searched(search)
        self.report.search_is_over = True
        return self._judged(search, tuple(repairs))

    # --- the search

    def _begin(self, search: Search) -> None:
        if self.objective is None:
            self.objective = objective_of(self.task, search)
            self.rows = HeldOutRows(self.task, self.objective, self.report)

    def _searched(self, search: Search) -> None:
        """Goes through all points of one stage.

        Raises:
            CalibrationError: none of them could be scored, or all were scored the same.
        """
        report = self.report
        try:
            # The reference's pictures come first: the two models need not fit into memory at a time.
            if self.task.reference is not None and self.reference_identity is None:
                self.reference_identity = self.rows.reference_row(search, self.task.identity)
            self._climb(search)
        except BaseException:
            search.abandon()
            raise
        if not math.isfinite(search.best().value):
            raise unscored()
        if not report.finished:
            report.baseline = search.baseline()
        report.finished += [in_whole_space(self.task, search, trial) for trial in search.finished()]

    def _climb(self, search: Search) -> None:
        task, parts = self.task, self.task.parts
        while (point := search.ask()) is not None or search.waits():
            if point is None:
                self.report.tell(search, "waiting for other workers", None)
                time.sleep(POLL_SECONDS)
                continue
            coefficients = search.space.coefficients(point)
            groups = parts.rungs() if task.settings.races else [parts.search]
            for number, group in enumerate(groups, start=1):
                row, pictures = evaluate(task.generate, task.score, coefficients, group, self.objective)
                self._check_varies(coefficients, row)
                statistics = task.guard(pictures, group) if task.guard else {}
                guard_values = {name: dict(zip(group, values, strict=True)) for name, values in statistics.items()}
                is_beaten = search.is_beaten(dict(zip(group, row.scores["jaq"].tolist(), strict=True)), guard_values)
                if is_beaten or number == len(groups):
                    break
                self.report.tell(search, "search", pictures, group)
            # Beaten by the last group alone: it was tried on all.
            self.report.tell(search, "search", pictures, group, search.tell(whole=number == len(groups)))

    def _check_varies(self, coefficients: Coefficients, row: Evaluation) -> None:
        """A metric that sees no picture: hours of search would end in "nothing found"."""
        values = row.scores["jaq"]
        if not (coefficients.is_identity or self.jaqs):
            return  # another worker made the identity
        self.jaqs.update(values[np.isfinite(values)].tolist())
        if len(self.jaqs) == 1 and not coefficients.is_identity:
            raise CalibrationError(
                f"the metric gives all pictures the same score, {self.jaqs.pop():.4g}.",
                "choose another metric: this one does not see what changes in the pictures",
            )

    # --- the verdict

    def _judged(self, search: Search, repairs: tuple[str, ...]) -> Result:
        task, best, finished = self.task, search.best(), self.report.finished
        coefficients = search.space.coefficients(best.point)
        identity, candidate = (self.rows.row(search, each) for each in (task.identity, coefficients))
        gains = all_gains(identity, candidate, task.n_prompts, task.settings)
        reference = self._on_reference(search, identity, candidate, coefficients)
        confidence = task.settings.confidence
        drift_names = drifts(identity, gains, reference and reference.identity, confidence)
        verdict = answer(identity, candidate, gains["jaq"], reference and reference.net, drift_names)
        return Result(
            coefficients=coefficients,
            answer=verdict,
            accepted=verdict == REPAIR or verdict != NOTHING and verdict == task.settings.accept,
            jaq=candidate.mean("jaq"),
            baseline_jaq=identity.mean("jaq"),
            gains=gains,
            drifts=drift_names,
            optimism=best.value - self.report.baseline - gains["jaq"].gain,
            on_border=task.space.on_border(task.space.nearest(coefficients)),
            nfe=_pictures(task, finished) * task.n_steps,
            failed=sum(not math.isfinite(trial.value) for trial in finished),
            objective=self.objective,
            identity=identity,
            candidate=candidate,
            trace=tuple((trial.point, trial.value) for trial in finished),
            finished=tuple(finished),
            guarded=search.guarded(),
            on_reference=reference,
            repairs=repairs,
            smallest_found=smallest_found(reference.net if reference else gains["jaq"], confidence),
        )

    def _on_reference(
        self, search: Search, identity: Evaluation, candidate: Evaluation, coefficients: Coefficients
    ) -> OnReference | None:
        if self.task.reference is None:
            return None
        base = self.reference_identity
        row = base if coefficients.is_identity else self.rows.reference_row(search, coefficients)
        return on_reference(self.task, identity, candidate, base, row)


def _pictures(task: Task, trials: Sequence[Trial]) -> int:
    """Pictures behind a result, whoever made them and when."""
    units = 2 * len(task.parts.search) if task.settings.normalised else 0
    return units + sum(trial.pictures for trial in trials) + task.row_pictures
