"""Rows on held-out prompts, and what they say of the winner of a search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from .core import Coefficients
from .objective import Objective
from .progress import REFERENCE_PHASE, ProgressReport
from .result import OnReference
from .search.search import Search
from .settings import Settings
from .task import Task
from .validate import Evaluation, Generate, Interval, Score, evaluate, net_gain, paired_gain


class HeldOutRows:
    """Makes the rows of one calibration, each once: they are kept beside the trials."""

    def __init__(self, task: Task, objective: Objective, report: ProgressReport):
        self._task, self._objective, self._report = task, objective, report

    def row(self, search: Search, coefficients: Coefficients) -> Evaluation:
        """Of the model, with the judge's metrics."""
        return self._scored_row(search, coefficients, self._task.generate, "verdict", "")

    def reference_row(self, search: Search, coefficients: Coefficients) -> Evaluation:
        """Of the reference model."""
        return self._scored_row(search, coefficients, self._task.reference, REFERENCE_PHASE, REFERENCE_PHASE)

    def _scored_row(
        self, search: Search, coefficients: Coefficients, generate: Generate, phase: str, model: str
    ) -> Evaluation:
        task = self._task
        row, pictures = judged(
            generate, task.score, task.judge, coefficients, task.parts.held_out, self._objective, search, model
        )  # fmt: skip
        self._report.rows_made += len(row.indices)
        self._report.tell(search, phase, pictures, row.indices)
        return row


def on_reference(
    task: Task, identity: Evaluation, candidate: Evaluation, base: Evaluation, row: Evaluation
) -> OnReference:
    """What the coefficients bring to the reference model, by its rows ``base`` and ``row``."""
    rules = task.n_prompts, task.settings.confidence
    return OnReference(
        base, row, paired_gain(base, row, "jaq", *rules), net_gain(identity, candidate, base, row, "jaq", *rules)
    )  # fmt: skip


def judged(
    generate: Generate,
    score: Score,
    judge: Score | None,
    coefficients: Coefficients,
    indices: Sequence[int],
    objective: Objective,
    search: Search | None = None,
    model: str = "",
) -> tuple[Evaluation, object]:
    """One row of the verdict's table, the judge's metrics beside the optimised ones, and its pictures.

    A row that ``search`` has in its storage is not made again; then there are no pictures (None). ``model`` tells rows
    of several models in one storage apart.
    """
    row_key = [coefficients.c_x, coefficients.c_eps, list(indices), *([model] if model else [])]
    name = hashlib.sha256(json.dumps(row_key).encode()).hexdigest()[:32]
    if search is not None and (row_scores := search.note(name)) is not None:
        return Evaluation(tuple(indices), {metric: np.array(values) for metric, values in row_scores.items()}), None

    def both(pictures: object, batch: Sequence[int]):
        return {**score(pictures, batch), **(judge(pictures, batch) if judge else {})}

    row, pictures = evaluate(generate, both, coefficients, indices, objective)
    # A row in which nothing could be scored is made again the next time: the cause may be gone.
    if search is not None and np.isfinite(row.scores["jaq"]).any():
        search.write_note(name, {metric: values.tolist() for metric, values in row.scores.items()})
    return row, pictures


def all_gains(base: Evaluation, candidate: Evaluation, n_prompts: int, settings: Settings) -> dict[str, Interval]:
    """The paired gain of every metric both rows have."""
    return {
        metric: paired_gain(base, candidate, metric, n_prompts, settings.confidence)
        for metric in base.scores
        if metric in candidate.scores
    }
