"""calibrate(): search on some prompts, judge on others, and keep what was found at every moment."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from .core import CalibrationError, Coefficients, DependencyError
from .jaq import Objective, read_scores
from .search import Search, Trial
from .settings import Settings
from .space import Space
from .split import split
from .storage import STUDY, import_optuna, storage_errors
from .validate import Evaluation, Generate, Interval, Score, drifts, evaluate, newly_broken, paired_gain

Hold = Callable[[object, Sequence[int]], Sequence[float]]
"""hold(pictures, indices) -> (B,), lower is better."""

PAUSE = 0.2
"""Seconds between two looks at what other workers do."""


@dataclass(frozen=True)
class Progress:
    """Told after every group of pictures. ``done`` of about ``total`` pictures (candidates that are raced out make
    fewer); ``best`` is the best candidate so far and ``trial`` the one that was just finished, if one was.

    ``pictures`` are those just made, of ``indices``; None where nothing had to be made. ``finished`` are all finished
    trials, those of an earlier run among them, of ``trials`` in all.
    """

    phase: str
    done: int
    total: int
    best: Coefficients
    best_jaq: float
    identity_jaq: float
    pictures: object
    indices: tuple[int, ...] = ()
    trial: Trial | None = None
    finished: tuple[Trial, ...] = ()
    trials: int = 0


@dataclass(frozen=True)
class Result:
    """What calibration found and whether to trust it.

    ``coefficients`` is the best candidate of the search; ``accepted`` says if its held-out gain in JAQ excludes
    zero and it broke no picture, and ``recommended`` is what to use: the candidate if accepted, else the identity.
    ``drifts`` names metrics that were not optimised and fell, or contrast and saturation that moved: look before you
    trust it.

    ``gains`` hold the paired interval of every metric on held-out prompts: they are free of the winner's curse, of
    which ``optimism`` is the size: what the search's own prompts promised beyond them. ``nfe`` counts network
    evaluations (pictures × steps), ``failed`` the candidates with a picture that could not be scored. ``trace`` has
    every trial as (point, JAQ on the search prompts). ``held``: candidates were held to a distance.
    """

    coefficients: Coefficients
    accepted: bool
    jaq: float
    baseline_jaq: float
    gains: Mapping[str, Interval]
    drifts: tuple[str, ...]
    optimism: float
    on_border: tuple[str, ...]
    nfe: int
    failed: int
    objective: Objective
    identity: Evaluation
    candidate: Evaluation
    trace: tuple[tuple[Mapping[str, float], float], ...] = field(repr=False)
    finished: tuple[Trial, ...] = field(repr=False)
    held: bool = False

    @property
    def gain(self) -> Interval:
        return self.gains["jaq"]

    @property
    def recommended(self) -> Coefficients:
        return self.coefficients if self.accepted else Coefficients.identity(len(self.coefficients))


def calibrate(
    generate: Generate,
    score: Score,
    n_prompts: int,
    n_steps: int,
    settings: Settings = Settings(),  # noqa: B008
    *,
    judge: Score | None = None,
    hold: Hold | None = None,
    journal: object = None,
    name: str = STUDY,
    starts: Sequence[Coefficients] = (),
    verdict_prompts: Sequence[int] = (),
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Search coefficients for ``n_steps`` steps on some of ``n_prompts`` prompts, and check them on the others.

    ``generate`` and ``score`` as in ``calibration.validate``. ``judge`` adds metrics for the verdict alone: the
    search never calls it. ``hold`` gives a distance to something: a candidate that raises it on the search prompts
    beyond the identity's cannot win, whatever it scores. ``starts`` are candidates from elsewhere (a warm start, a
    stranger's preset): they are tried like any other. ``verdict_prompts`` are the prompts of a second set; by default
    the settings' share is drawn.

    ``journal`` keeps every finished trial: a file, or a database's URL for several machines (``calibration.storage``);
    ``name`` tells studies in one database apart.
    The same call with the same journal goes on where a cancelled or killed one stopped, works with others that do so
    now, and only reads when all is done. ``on_progress`` may raise to stop; what it raises comes through.

    Raises:
        CalibrationError: too few prompts, a journal of another calibration, or no picture at all could be scored.
        DependencyError: ``hold`` with an optuna that knows no constraints.
    """
    if hold is not None and not hasattr(import_optuna().Trial, "set_constraint"):
        raise DependencyError("holding a distance needs optuna 5 or newer.", "pip install --upgrade optuna")
    kept, asked = (journal, name), (score, judge, hold)
    study = _Study(generate, asked, n_prompts, n_steps, settings, kept, starts, verdict_prompts, on_progress)
    with storage_errors(journal), study.searches:
        return study.result()


class _Study:
    """One calibration: its stages of search, then the verdict."""

    def __init__(self, generate, asked, n_prompts, n_steps, settings, kept, starts, verdict_prompts, on_progress):
        self.generate, (self.score, self.judge, self.hold), self.on_progress = generate, asked, on_progress
        self.n_prompts, self.n_steps, self.settings = n_prompts, n_steps, settings
        self.parts = split(n_prompts, settings, verdict_prompts)
        (self.journal, self.name), self.starts = kept, tuple(starts)
        self.objective = Objective(settings.k)
        self.searches = ExitStack()
        self.finished: list[Trial] = []
        self.baseline = math.nan
        self.made = 0
        self.later_trials = 0  # of stages that have not begun

    def result(self) -> Result:
        for search in self._stages():
            try:
                self._climb(search)
            except BaseException:
                search.abandon()
                raise
            best = search.best()
            if not math.isfinite(best.value):
                raise _unscored()
            if not self.finished:
                self.baseline = search.baseline()
            self.finished += [self._completed(search, trial) for trial in search.finished()]
        coefficients = search.space.coefficients(best.point)
        identity, candidate = (
            self._judged(search, c) for c in (Coefficients.identity(self.n_steps), coefficients)
        )  # fmt: skip
        gains = all_gains(identity, candidate, self.n_prompts, self.settings)
        whole = Space(self.settings, self.n_steps)
        return Result(
            coefficients=coefficients,
            accepted=gains["jaq"].low > 0 and not newly_broken(identity, candidate) and not coefficients.is_identity,
            jaq=candidate.mean("jaq"),
            baseline_jaq=identity.mean("jaq"),
            gains=gains,
            drifts=drifts(identity, gains),
            optimism=best.value - self.baseline - gains["jaq"].gain,
            on_border=whole.on_border(whole.nearest(coefficients)),
            nfe=self.made_by_all() * self.n_steps,
            failed=sum(not math.isfinite(trial.value) for trial in self.finished),
            objective=self.objective,
            identity=identity,
            candidate=candidate,
            trace=tuple((trial.point, trial.value) for trial in self.finished),
            finished=tuple(self.finished),
            held=self.hold is not None,
        )

    # --- the search

    def _completed(self, search: Search, trial: Trial) -> Trial:
        """A stage of the greedy strategy searches a part of the table; its trials are told as the whole one's."""
        whole = Space(self.settings, self.n_steps)
        if search.space.axes == whole.axes:
            return trial
        coefficients = search.space.coefficients(trial.point)
        values = coefficients.c_x + coefficients.c_eps
        return replace(trial, point=dict(zip(whole.axes, values, strict=True)))

    def _stages(self) -> Iterator[Search]:
        """One search; of the greedy strategy one per step, each on top of what those before it found."""
        inputs = [self.settings.lasting(), self.n_prompts, self.n_steps, self.parts.search, self.parts.held_out]
        inputs += [[start.c_x, start.c_eps] for start in self.starts]
        inputs += ["held"] if self.hold else []
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        if self.settings.strategy != "greedy":
            space = Space(self.settings, self.n_steps)
            search = Search(space, self.settings, self.journal, starts=self.starts, name=self.name, inputs=digest)
            self.searches.callback(search.close)
            search.begin_anew_if_void()
            self._set_objective(search)
            yield search
            return
        if isinstance(self.journal, str) and "://" in self.journal:
            raise CalibrationError("the greedy strategy is for one machine.", "use another strategy, or a journal file")
        base, each = Coefficients.identity(self.n_steps), max(1, self.settings.trials // self.n_steps)
        for step in range(self.n_steps):
            space = Space(self.settings, self.n_steps, steps=(step,), base=base)
            name, starts = (f"{self.name} step {step + 1}" if step else self.name), () if step else self.starts
            search = Search(
                space, self.settings, self.journal, starts=starts, trials=each + 1, name=name, inputs=digest
            )  # fmt: skip
            self.searches.callback(search.close)
            search.begin_anew_if_void()
            if step == 0:
                self._set_objective(search)
            self.later_trials = (self.n_steps - step - 1) * (each + 1)
            yield search
            base = space.coefficients(search.best().point)

    def _set_objective(self, search: Search) -> None:
        if not self.settings.normalised:
            return
        units = search.kept("units")
        if units is None:
            identity = Coefficients.identity(self.n_steps)
            unused = 1 + self.settings.seeds  # a noise that neither the search nor the verdict sees
            rows = [
                evaluate(self.generate, self.score, identity, [i + self.n_prompts * noise for i in self.parts.search])[
                    0
                ]
                for noise in (0, unused)
            ]
            if not any(np.isfinite(row.scores["jaq"]).any() for row in rows):
                raise _unscored()  # and nothing is kept of it: the cause may be gone the next time
            found = Objective.normalised(self.settings.k, *(row.scores for row in rows))
            units = [found.tc_unit, found.iq_unit]
            search.keep("units", units)
            units = search.kept("units")  # perhaps another worker's, kept a moment later
        self.objective = Objective(self.settings.k, *units)

    def _climb(self, search: Search) -> None:
        while (point := search.ask()) is not None or search.waits():
            if point is None:
                self._tell(search, "waiting for other workers", None)
                time.sleep(PAUSE)
                continue
            coefficients = search.space.coefficients(point)
            groups = self.parts.rungs() if self.settings.races else [self.parts.search]
            for number, group in enumerate(groups, start=1):
                row, pictures = evaluate(self.generate, self.score, coefficients, group, self.objective)
                held = (
                    read_scores({"hold": self.hold(pictures, group)}, len(group))["hold"].tolist() if self.hold else ()
                )
                values = dict(zip(group, row.scores["jaq"].tolist(), strict=True))
                beaten = search.is_beaten(values, dict(zip(group, held, strict=False)))
                if beaten or number == len(groups):
                    break
                self._tell(search, "search", pictures, group)
            # Beaten by the last group alone: it was tried on all.
            self._tell(search, "search", pictures, group, search.tell(whole=number == len(groups)))

    # --- the verdict

    def _judged(self, search: Search, coefficients: Coefficients) -> Evaluation:
        row, pictures = judged(
            self.generate, self.score, self.judge, coefficients, self.parts.held_out, self.objective, search
        )
        self.made += len(row.indices)
        self._tell(search, "verdict", pictures, row.indices)
        return row

    def made_by_all(self) -> int:
        """Pictures behind the result, whoever made them and when."""
        units = 2 * len(self.parts.search) if self.settings.normalised else 0
        return units + sum(trial.pictures for trial in self.finished) + 2 * len(self.parts.held_out)

    def _tell(
        self, search: Search, phase: str, pictures: object, indices: Sequence[int] = (), trial: Trial | None = None
    ) -> None:
        here, best = search.finished(), search.best()
        known = self.finished + (here if phase != "verdict" else [])
        later = self.later_trials if phase != "verdict" else 0
        done = sum(item.pictures for item in known) + self.made
        left = max(0, search.trials - len(here)) if phase != "verdict" else 0
        usual = done / len(known) if known else len(self.parts.search)
        ahead = 2 * len(self.parts.held_out) - self.made
        identity = self.baseline if self.finished else search.baseline()
        self.on_progress(
            Progress(
                phase,
                done,
                done + round((left + later) * usual) + ahead,
                search.space.coefficients(best.point),
                best.value,
                identity,
                pictures,
                tuple(indices),
                trial,
                tuple(known),
                len(known) + left + later,
            )
        )


def _unscored() -> CalibrationError:
    return CalibrationError("not one candidate could be scored.", "check the model: its pictures are not finite")


def judged(
    generate: Generate,
    score: Score,
    judge: Score | None,
    coefficients: Coefficients,
    indices: Sequence[int],
    objective: Objective,
    search: Search | None = None,
) -> tuple[Evaluation, object]:
    """One row of the verdict's table, the judge's metrics beside the optimised ones, and its pictures.

    A row that ``search`` has in its storage is not made again; then there are no pictures (None).
    """
    name = hashlib.sha256(json.dumps([coefficients.c_x, coefficients.c_eps, list(indices)]).encode()).hexdigest()[:32]
    if search is not None and (kept := search.kept(name)) is not None:
        return Evaluation(tuple(indices), {metric: np.array(values) for metric, values in kept.items()}), None

    def both(pictures: object, chosen: Sequence[int]):
        return {**score(pictures, chosen), **(judge(pictures, chosen) if judge else {})}

    row, pictures = evaluate(generate, both, coefficients, indices, objective)
    # A row in which nothing could be scored is made again the next time: the cause may be gone.
    if search is not None and np.isfinite(row.scores["jaq"]).any():
        search.keep(name, {metric: values.tolist() for metric, values in row.scores.items()})
    return row, pictures


def all_gains(base: Evaluation, candidate: Evaluation, n_prompts: int, settings: Settings) -> dict[str, Interval]:
    """The paired gain of every metric both rows have."""
    return {
        metric: paired_gain(base, candidate, metric, n_prompts, settings.confidence)
        for metric in base.scores
        if metric in candidate.scores
    }
