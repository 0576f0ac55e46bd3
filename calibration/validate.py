"""The verdict: paired differences on prompts and noises that the search has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .core import Coefficients
from .indices import prompt_of
from .objective import Objective, Scores, read_scores

Generate = Callable[[Coefficients, Sequence[int]], object]
"""generate(coefficients, indices) -> pictures (B, H, W, 3) in [0, 1]. Index i is prompt i mod n_prompts with noise
number i div n_prompts; the same index always means the same prompt and the same noise."""

REPAIR, RETUNING, NOTHING = "repair", "re-tuning", "nothing found"
ANSWERS = (REPAIR, RETUNING, NOTHING)
"""What a verdict can say. A repair gains what quantising took: the same coefficients do not help the reference model as
much. A re-tuning raises the score of either model, or of nobody knows which: the user's taste decides."""

STATISTICS = ("contrast", "saturation", "sharpness", "noise")
"""Pixel statistics have no better direction by themselves: they are right where they are the reference's."""

UNGUIDED_STATISTICS = ("contrast", "saturation")
"""Those that may not move where no reference says what is right: sharpness and noise move with a repair too."""

MEAN_DRIFT = 0.02
"""Relative change of a pixel statistic or a distance that is tolerated. A person sees about 2 % of contrast side by
side."""

POWER = 0.8
"""Share of the studies in which the smallest gain that a verdict claims to find is found; the usual one."""

OPTIMISED = ("tc", "iq", "jaq")

Score = Callable[[object, Sequence[int]], Scores]
"""score(pictures, indices) -> {"tc": (B,), "iq": (B,), …}"""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one row of the table: arrays (n,) per metric, "jaq" among them, in the order of ``indices``."""

    indices: tuple[int, ...]
    scores: dict[str, np.ndarray]

    def mean(self, metric: str) -> float:
        """Over the pictures that could be scored; NaN when there is none."""
        values = self.scores[metric]
        values = values[np.isfinite(values)]
        return float(values.mean()) if len(values) else math.nan

    def means(self) -> dict[str, float]:
        return {metric: self.mean(metric) for metric in self.scores}


@dataclass(frozen=True)
class Interval:
    """A paired gain with its confidence interval; ``prompts`` independent prompts stand behind it."""

    gain: float
    low: float
    high: float
    prompts: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def is_zero(self) -> bool:
        """In the four digits that are shown."""
        return max(abs(value) for value in (self.gain, self.low, self.high)) < 0.5e-4

    def __str__(self) -> str:
        return f"{self.gain:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def evaluate(
    generate: Generate,
    score: Score,
    coefficients: Coefficients,
    indices: Sequence[int],
    objective: Objective = Objective(2.0),  # noqa: B008
) -> tuple[Evaluation, object]:
    """Generate and score pictures. They are handed back to be shown; nobody here keeps them.

    Raises:
        CalibrationError: scores that are not one number per picture.
    """
    pictures = generate(coefficients, indices)
    scores = read_scores(score(pictures, indices), len(indices))
    return Evaluation(tuple(indices), {**scores, "jaq": objective(scores)}), pictures


def paired_gain(base: Evaluation, candidate: Evaluation, metric: str, n_prompts: int, confidence: float) -> Interval:
    """Mean of candidate - base over the same prompts and noises, with Student's t interval over prompts.

    Pictures of one prompt are not independent, so each prompt is one observation. A picture that was not scored
    in either row counts as no gain: a broken picture must not be able to help. (A percentile bootstrap in place of
    t finds a gain in pure noise 23 % of the time with 2 prompts, 4 % with 12; t the promised 2.5 %.)
    """
    return _interval(_differences(base, candidate, metric), base.indices, n_prompts, confidence)


def smallest_found(interval: Interval, confidence: float) -> float:
    """The gain that an interval as wide as this one lies above zero for in ``POWER`` of the studies (the noncentral t
    distribution of such a gain); inf for one prompt."""
    half, freedom = interval.high - interval.gain, interval.prompts - 1
    if not math.isfinite(half):
        return math.inf
    from scipy.special import nctdtrinc, stdtrit

    quantile = float(stdtrit(freedom, (1 + confidence) / 2))
    return half / quantile * float(nctdtrinc(freedom, 1 - POWER, quantile))


def net_gain(
    base: Evaluation,
    candidate: Evaluation,
    reference_base: Evaluation,
    reference_candidate: Evaluation,
    metric: str,
    n_prompts: int,
    confidence: float,
) -> Interval:
    """The paired gain, less what the same coefficients bring on the reference model: what is left is repair.

    All four rows are of the same prompts and noises in the same order; the interval is ``paired_gain``'s.
    """
    here = _differences(base, candidate, metric)
    there = _differences(reference_base, reference_candidate, metric)
    return _interval(here - there, base.indices, n_prompts, confidence)


def _differences(base: Evaluation, candidate: Evaluation, metric: str) -> np.ndarray:
    before, after = base.scores[metric], candidate.scores[metric]
    scored = np.isfinite(before) & np.isfinite(after)
    return np.where(scored, after, 0.0) - np.where(scored, before, 0.0)


def _interval(differences: np.ndarray, indices: Sequence[int], n_prompts: int, confidence: float) -> Interval:
    prompts = prompt_of(np.asarray(indices), n_prompts)
    per_prompt = np.array([differences[prompts == p].mean() for p in np.unique(prompts)])
    count, gain = len(per_prompt), float(per_prompt.mean())
    half = math.inf
    if count > 1:
        from scipy.special import stdtrit  # as slow to import as all the rest of the pack together

        half = float(stdtrit(count - 1, (1 + confidence) / 2) * per_prompt.std(ddof=1)) / math.sqrt(count)
    return Interval(gain, gain - half, gain + half, count)


def drifts(
    base: Evaluation, gains: Mapping[str, Interval], reference: Evaluation | None = None, confidence: float = 0.95
) -> tuple[str, ...]:
    """Metrics that nobody optimised and that got worse by more than is tolerated.

    A distance gets worse by growing, a pixel statistic by going away from that of the ``reference`` model's pictures;
    all others by falling. Without a reference contrast and saturation may not move either way; sharpness and noise
    may, because a repair moves them too. Statistics and distances are tolerated ``MEAN_DRIFT`` of what they are.

    All metrics are one family: the chance that any of them is named although none got worse is at most 1 -
    ``confidence``. (Each tested by itself, nine metrics name one in one true repair of five.) One-sided t tests of
    the paired differences over prompts, by Holm's step-down procedure, which holds for dependent metrics too (Holm,
    A simple sequentially rejective multiple test procedure, 1979). ``gains`` are intervals at ``confidence``.
    """
    chances = {}
    for metric, change in gains.items():
        worse_by = None if metric in OPTIMISED else _beyond_tolerance(metric, change.gain, base, reference)
        if worse_by is not None:
            chances[metric] = _chance(worse_by, change, confidence)
    names = set()
    for rank, metric in enumerate(sorted(chances, key=chances.__getitem__)):
        if not chances[metric] <= (1 - confidence) / (len(chances) - rank):
            break
        names.add(metric)
    return tuple(metric for metric in gains if metric in names)


def _beyond_tolerance(metric: str, gain: float, base: Evaluation, reference: Evaluation | None) -> float | None:
    """How much worse a metric got than is tolerated, in its own unit; None where nobody knows what is worse."""
    before = base.mean(metric)
    if metric not in STATISTICS:
        is_distance = metric.startswith("distance")
        return gain - MEAN_DRIFT * max(before, 0.0) if is_distance else -gain
    if reference is None and metric not in UNGUIDED_STATISTICS:
        return None
    right = before if reference is None else reference.mean(metric)
    return away(before, before + gain, right) - MEAN_DRIFT * abs(right)


def _chance(worse_by: float, change: Interval, confidence: float) -> float:
    """Of seeing a metric as much worse or more where it is not worse at all: Student's t with the interval's error."""
    half = change.high - change.gain
    if not worse_by > 0 or not math.isfinite(half):
        return 1.0
    if half == 0:
        return 0.0
    from scipy.special import stdtr, stdtrit

    freedom = change.prompts - 1
    return float(stdtr(freedom, -worse_by / half * stdtrit(freedom, (1 + confidence) / 2)))


def away(before: float, after: float, right: float) -> float:
    """How much farther from what is right a value is than before; below 0: nearer."""
    return abs(after - right) - abs(before - right)


def answer(
    base: Evaluation, candidate: Evaluation, gain: Interval, net: Interval | None, drift_names: Sequence[str]
) -> str:
    """One of ``ANSWERS``. ``gain`` and ``net`` are JAQ's on held-out prompts; ``net`` is None without a reference.

    Nothing is found where the gain's interval holds zero, where anything that was not optimised got worse, and where
    a picture came out broken. Without a reference, repair cannot be told from re-tuning.
    """
    if not gain.low > 0 or drift_names or newly_broken(base, candidate):
        return NOTHING
    return REPAIR if net is not None and net.low > 0 else RETUNING


def newly_broken(base: Evaluation, candidate: Evaluation) -> int:
    """Pictures whose JAQ is NaN in the candidate's row alone."""
    return int((np.isnan(candidate.scores["jaq"]) & ~np.isnan(base.scores["jaq"])).sum())
