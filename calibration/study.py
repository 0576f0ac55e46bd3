"""calibrate(): search on some prompts, judge on others, and keep what was found at every moment."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .core import CalibrationError, Coefficients
from .search import Search
from .settings import Settings
from .space import Space
from .validate import Evaluation, Generate, Interval, Score, evaluate, newly_broken, paired_gain


@dataclass(frozen=True)
class Progress:
    """Told after every evaluation. ``done`` of ``total`` pictures; ``best`` is the best candidate so far."""

    phase: str
    done: int
    total: int
    best: Coefficients
    best_jaq: float
    identity_jaq: float
    pictures: object


@dataclass(frozen=True)
class Result:
    """What calibration found and whether to trust it.

    ``coefficients`` is the best candidate of the search; ``accepted`` says if its held-out gain in JAQ excludes
    zero and it broke no picture, and ``recommended`` is what to use: the candidate if accepted, else the identity.
    ``nfe`` counts network evaluations (pictures × steps). ``gains`` hold the paired interval of every metric;
    ``trace`` every trial as (c_x…, c_eps… point, JAQ) on the search prompts.
    """

    coefficients: Coefficients
    accepted: bool
    jaq: float
    baseline_jaq: float
    gains: Mapping[str, Interval]
    on_border: tuple[str, ...]
    nfe: int
    identity: Evaluation
    candidate: Evaluation
    trace: tuple[tuple[Mapping[str, float], float], ...] = field(repr=False)

    @property
    def gain(self) -> Interval:
        return self.gains["jaq"]

    @property
    def recommended(self) -> Coefficients:
        return self.coefficients if self.accepted else Coefficients.identity(len(self.coefficients))


@dataclass(frozen=True)
class Split:
    """Which indices the search sees and which the verdict. No prompt and no noise number is in both."""

    search: tuple[int, ...]
    held_out: tuple[int, ...]


def split(n_prompts: int, settings: Settings) -> Split:
    """Shuffle prompts with the settings' seed; noise 0 is for the search, 1 … seeds for the verdict.

    Raises:
        CalibrationError: too few prompts to leave two on each side.
    """
    order = list(range(n_prompts))
    random.Random(settings.seed).shuffle(order)
    kept = round(n_prompts * settings.holdout)
    if not 2 <= kept <= n_prompts - 2:
        raise CalibrationError(
            f"{n_prompts} prompts leave {kept} for the verdict, {n_prompts - kept} for the search.",
            "leave 2 for each",
            n_prompts=n_prompts,
        )
    held_out, search = sorted(order[:kept]), sorted(order[kept:])
    return Split(tuple(search), tuple(p + n_prompts * (1 + s) for s in range(settings.seeds) for p in held_out))


def calibrate(
    generate: Generate,
    score: Score,
    n_prompts: int,
    n_steps: int,
    settings: Settings = Settings(),  # noqa: B008
    *,
    judge: Score | None = None,
    journal: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Search coefficients for ``n_steps`` steps on some of ``n_prompts`` prompts, and check them on the others.

    ``generate`` and ``score`` as in ``calibration.validate``. ``judge`` adds metrics for the verdict alone: the
    search never calls it. ``journal`` keeps every finished trial; the same call with the same journal goes on
    where a cancelled or killed one stopped. ``on_progress`` may raise to stop; what it raises comes through.

    Raises:
        CalibrationError: too few prompts, or no picture at all could be scored.
    """
    space = Space(settings, n_steps)
    parts = split(n_prompts, settings)
    search = Search(space, settings, journal)
    per_trial, per_check = len(parts.search), len(parts.held_out)
    trials = settings.trials + 1
    total = trials * per_trial + 2 * per_check

    def told(phase: str, done: int, pictures: object) -> None:
        finished = search.finished()
        point, best = search.best()
        identity = finished[0][1] if finished else math.nan
        on_progress(Progress(phase, done, total, space.coefficients(point), best, identity, pictures))

    for number in range(len(search.finished()), trials):
        point = search.ask()
        row, pictures = evaluate(generate, score, space.coefficients(point), parts.search, settings.k)
        search.tell(float(np.mean(row.scores["jaq"])))
        told("search", (number + 1) * per_trial, pictures)

    point, value = search.best()
    if not math.isfinite(value):
        raise CalibrationError("not one candidate could be scored.", "check the model: its pictures are not finite")
    coefficients = space.coefficients(point)
    rows = []
    for candidate in (Coefficients.identity(n_steps), coefficients):
        row, pictures = judged(generate, score, judge, candidate, parts.held_out, settings.k)
        rows.append(row)
        told("verdict", trials * per_trial + len(rows) * per_check, pictures)
    identity, best = rows
    gains = all_gains(identity, best, n_prompts, settings)
    return Result(
        coefficients=coefficients,
        accepted=gains["jaq"].low > 0 and not newly_broken(identity, best) and not coefficients.is_identity,
        jaq=best.mean("jaq"),
        baseline_jaq=identity.mean("jaq"),
        gains=gains,
        on_border=space.on_border(point),
        nfe=(trials * per_trial + 2 * per_check) * n_steps,
        identity=identity,
        candidate=best,
        trace=tuple(search.finished()),
    )


def judged(
    generate: Generate, score: Score, judge: Score | None, coefficients: Coefficients, indices: Sequence[int], k: float
) -> tuple[Evaluation, object]:
    """One row of the verdict's table, the judge's metrics beside the optimised ones, and its pictures."""

    def both(pictures: object, chosen: Sequence[int]):
        return {**score(pictures, chosen), **(judge(pictures, chosen) if judge else {})}

    return evaluate(generate, both, coefficients, indices, k)


def all_gains(base: Evaluation, candidate: Evaluation, n_prompts: int, settings: Settings) -> dict[str, Interval]:
    """The paired gain of every metric both rows have."""
    return {
        metric: paired_gain(base, candidate, metric, n_prompts, settings.confidence)
        for metric in base.scores
        if metric in candidate.scores
    }
