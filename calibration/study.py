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
from .indices import index_of
from .objective import Objective
from .search.guard import Guard, can_guard
from .search.search import Search, Trial
from .search.space import Space
from .search.storage import STUDY, storage_errors
from .settings import Settings
from .split import split
from .validate import (
    NOTHING,
    REPAIR,
    Evaluation,
    Generate,
    Interval,
    Score,
    answer,
    drifts,
    evaluate,
    net_gain,
    paired_gain,
    smallest_found,
)

REFERENCE_PHASE = "reference"
"""Of a Progress: pictures of the reference model, before the search and at the end."""

POLL_SECONDS = 0.2
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
class OnReference:
    """The same coefficients on the reference model, on the same held-out pictures.

    ``same`` is the gain in JAQ that they bring there; ``net`` is the quantised model's gain less that one: repair.
    """

    identity: Evaluation
    candidate: Evaluation
    same: Interval
    net: Interval


@dataclass(frozen=True)
class Result:
    """What calibration found and whether to trust it.

    ``coefficients`` is the best candidate of the search. ``answer`` is the verdict on it: "repair", "re-tuning" or
    "nothing found" (``calibration.validate.answer``); ``accepted`` says if that is what the settings accept, and
    ``recommended`` is what to use: the candidate if accepted, else the identity. ``drifts`` names metrics that were not
    optimised and got worse: nothing is accepted with a drift. ``on_reference`` is None without a reference model.

    ``gains`` hold the paired interval of every metric on held-out prompts: they are free of the winner's curse, of
    which ``optimism`` is the size: what the search's own prompts promised beyond them. ``nfe`` counts network
    evaluations (pictures × steps), ``failed`` the candidates with a picture that could not be scored. ``trace`` has
    every trial as (point, JAQ on the search prompts). ``guarded`` names what no winner could worsen on them.
    ``repairs`` say what was done to a damaged journal. ``smallest_found`` is the net gain in JAQ (without a reference
    the gain) that so many prompts tell from none four times in five.
    """

    coefficients: Coefficients
    answer: str
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
    guarded: tuple[str, ...] = ()
    on_reference: OnReference | None = None
    repairs: tuple[str, ...] = ()
    smallest_found: float = math.nan

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
    elsewhere (a warm start, a stranger's preset): they are tried like any other. ``verdict_prompts`` are the prompts of
    a second set; by default the settings' share is drawn.

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
    storage, callables = (journal, name), (score, judge, guard, reference)
    settings = settings.resolved(reference is not None)
    study = _Study(generate, callables, n_prompts, n_steps, settings, storage, starts, verdict_prompts, on_progress)
    with storage_errors(journal), study.searches:
        return study.result()


class _Study:
    """One calibration: its stages of search, then the verdict."""

    def __init__(
        self, generate, callables, n_prompts, n_steps, settings, storage, starts, verdict_prompts, on_progress
    ):
        self.generate, self.on_progress = generate, on_progress
        self.score, self.judge, self.guard, self.reference = callables
        self.n_prompts, self.n_steps, self.settings = n_prompts, n_steps, settings
        self.parts = split(n_prompts, settings, verdict_prompts)
        (self.journal, self.name), self.starts = storage, tuple(starts)
        self.objective = Objective(settings.k)
        self.searches = ExitStack()
        self.finished: list[Trial] = []
        self.baseline = math.nan
        self.reference_identity: Evaluation | None = None
        self.row_pictures = 0
        self.jaqs: set[float] = set()  # different ones
        self.later_trials = 0  # of stages that have not begun
        self.repairs: list[str] = []

    def result(self) -> Result:
        for search in self._stages():
            self.repairs += [search.repair] if search.repair else []
            try:
                self._start_reference(search)
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
        on_reference = self._on_reference(search, identity, candidate, coefficients)
        drift_names = drifts(identity, gains, on_reference and on_reference.identity, self.settings.confidence)
        verdict = answer(identity, candidate, gains["jaq"], on_reference and on_reference.net, drift_names)
        whole = Space(self.settings, self.n_steps)
        return Result(
            coefficients=coefficients,
            answer=verdict,
            accepted=verdict == REPAIR or verdict != NOTHING and verdict == self.settings.accept,
            jaq=candidate.mean("jaq"),
            baseline_jaq=identity.mean("jaq"),
            gains=gains,
            drifts=drift_names,
            optimism=best.value - self.baseline - gains["jaq"].gain,
            on_border=whole.on_border(whole.nearest(coefficients)),
            nfe=self.made_by_all() * self.n_steps,
            failed=sum(not math.isfinite(trial.value) for trial in self.finished),
            objective=self.objective,
            identity=identity,
            candidate=candidate,
            trace=tuple((trial.point, trial.value) for trial in self.finished),
            finished=tuple(self.finished),
            guarded=search.guarded(),
            on_reference=on_reference,
            repairs=tuple(self.repairs),
            smallest_found=smallest_found(on_reference.net if on_reference else gains["jaq"], self.settings.confidence),
        )

    # --- the reference

    def _start_reference(self, search: Search) -> None:
        """Its pictures without coefficients, before the search: the two models need not fit into memory at a time."""
        if self.reference is not None and self.reference_identity is None:
            identity = Coefficients.identity(self.n_steps)
            self.reference_identity = self._judged(search, identity, self.reference)

    def _on_reference(
        self, search: Search, identity: Evaluation, candidate: Evaluation, coefficients: Coefficients
    ) -> OnReference | None:
        if self.reference is None:
            return None
        base = self.reference_identity
        row = base if coefficients.is_identity else self._judged(search, coefficients, self.reference)
        rules = self.n_prompts, self.settings.confidence
        return OnReference(
            base,
            row,
            paired_gain(base, row, "jaq", *rules),
            net_gain(identity, candidate, base, row, "jaq", *rules),
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
        inputs += ["guarded"] if self.guard else []
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        if self.settings.strategy != "greedy":
            space = Space(self.settings, self.n_steps)
            search = Search(
                space, self.settings, self.journal, starts=self.starts, name=self.name, inputs=digest, guard=self.guard
            )
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
                space, self.settings, self.journal, starts=starts, trials=each + 1, name=name, inputs=digest,
                guard=self.guard,
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
            rows = []
            for noise in (0, unused):
                indices = [index_of(prompt, noise, self.n_prompts) for prompt in self.parts.search]
                rows.append(evaluate(self.generate, self.score, identity, indices)[0])
            if not any(np.isfinite(row.scores["jaq"]).any() for row in rows):
                raise _unscored()  # and nothing is kept of it: the cause may be gone the next time
            objective = Objective.normalised(self.settings.k, *(row.scores for row in rows))
            units = [objective.tc_unit, objective.iq_unit]
            search.keep("units", units)
            units = search.kept("units")  # perhaps another worker's, kept a moment later
        self.objective = Objective(self.settings.k, *units)

    def _climb(self, search: Search) -> None:
        while (point := search.ask()) is not None or search.waits():
            if point is None:
                self._tell(search, "waiting for other workers", None)
                time.sleep(POLL_SECONDS)
                continue
            coefficients = search.space.coefficients(point)
            groups = self.parts.rungs() if self.settings.races else [self.parts.search]
            for number, group in enumerate(groups, start=1):
                row, pictures = evaluate(self.generate, self.score, coefficients, group, self.objective)
                self._check_varies(coefficients, row)
                statistics = self.guard(pictures, group) if self.guard else {}
                guard_values = {name: dict(zip(group, values, strict=True)) for name, values in statistics.items()}
                is_beaten = search.is_beaten(dict(zip(group, row.scores["jaq"].tolist(), strict=True)), guard_values)
                if is_beaten or number == len(groups):
                    break
                self._tell(search, "search", pictures, group)
            # Beaten by the last group alone: it was tried on all.
            self._tell(search, "search", pictures, group, search.tell(whole=number == len(groups)))

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

    def _judged(self, search: Search, coefficients: Coefficients, reference: Generate | None = None) -> Evaluation:
        """A row of the verdict; with ``reference``, of that model."""
        row, pictures = judged(
            reference or self.generate,
            self.score,
            self.judge,
            coefficients,
            self.parts.held_out,
            self.objective,
            search,
            REFERENCE_PHASE if reference else "",
        )
        self.row_pictures += len(row.indices)
        self._tell(search, REFERENCE_PHASE if reference else "verdict", pictures, row.indices)
        return row

    @property
    def _verdict_pictures(self) -> int:
        return (2 if self.reference is None else 4) * len(self.parts.held_out)

    def made_by_all(self) -> int:
        """Pictures behind the result, whoever made them and when."""
        units = 2 * len(self.parts.search) if self.settings.normalised else 0
        return units + sum(trial.pictures for trial in self.finished) + self._verdict_pictures

    def _tell(
        self, search: Search, phase: str, pictures: object, indices: Sequence[int] = (), trial: Trial | None = None
    ) -> None:
        here, best = search.finished(), search.best()
        is_over = phase == "verdict" or (phase == REFERENCE_PHASE and self.reference_identity is not None)
        trials = self.finished + ([] if is_over else here)
        later = 0 if is_over else self.later_trials
        trial_pictures = sum(item.pictures for item in trials)
        done = trial_pictures + self.row_pictures
        left = 0 if is_over else max(0, search.trials - len(here))
        usual = trial_pictures / len(trials) if trials else len(self.parts.search)
        ahead = self._verdict_pictures - self.row_pictures
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
                tuple(trials),
                len(trials) + left + later,
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
    model: str = "",
) -> tuple[Evaluation, object]:
    """One row of the verdict's table, the judge's metrics beside the optimised ones, and its pictures.

    A row that ``search`` has in its storage is not made again; then there are no pictures (None). ``model`` tells rows
    of several models in one storage apart.
    """
    row_key = [coefficients.c_x, coefficients.c_eps, list(indices), *([model] if model else [])]
    name = hashlib.sha256(json.dumps(row_key).encode()).hexdigest()[:32]
    if search is not None and (row_scores := search.kept(name)) is not None:
        return Evaluation(tuple(indices), {metric: np.array(values) for metric, values in row_scores.items()}), None

    def both(pictures: object, batch: Sequence[int]):
        return {**score(pictures, batch), **(judge(pictures, batch) if judge else {})}

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
