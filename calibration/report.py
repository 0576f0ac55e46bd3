"""The table and the verdict in words: what the quantised model lost, what came back, and what is only re-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .numbers import decimals
from .result import Result
from .validate import NOTHING, REPAIR, RETUNING, STATISTICS, Evaluation, Interval, newly_broken

METRIC_TITLES = {"tc": "TC", "iq": "IQ", "jaq": "JAQ"}

_LINE_LENGTH = 110
"""Characters a line, where a list can be broken."""

_MIN_LUCK_SHARE = 0.1
"""Share of the promised gain that has to be luck before a sentence is spent on it."""

_MAX_BORDER_AXES = 4
"""Axes on the border that are listed by name: a table over many steps has dozens."""


@dataclass(frozen=True)
class Row:
    """One line of the table: held-out scores of a model with some coefficients, and its cost where that is known."""

    name: str
    evaluation: Evaluation
    weight_bytes: int | None = None
    seconds: float | None = None


def lower_is_better(metric: str) -> bool:
    """Distances are named so; every other metric is better when it is higher."""
    return metric.startswith("distance")


def table(rows: Sequence[Row]) -> dict:
    """{"columns": [...], "rows": [{"name": ..., column: value}]} in plain JSON values; a value that is not known is
    None, a column that nobody knows is left out."""
    titles = list(dict.fromkeys(_title(metric) for row in rows for metric in row.evaluation.scores))
    lines = []
    for row in rows:
        means = {_title(metric): _plain(value) for metric, value in row.evaluation.means().items()}
        size = None if row.weight_bytes is None else row.weight_bytes / 1e6
        lines.append({"name": row.name, **means, "weights MB": size, "s/picture": row.seconds})
    costs = [cost for cost in ("weights MB", "s/picture") if any(line[cost] is not None for line in lines)]
    return {
        "columns": [*titles, *costs],
        "rows": [{c: line.get(c) for c in ("name", *titles, *costs)} for line in lines],
    }


def describe(result: Result) -> str:
    """The verdict in one short line."""
    prompts = f"{result.gain.prompts} held-out prompts"
    if result.answer != NOTHING:
        outcome = "accepted" if result.accepted else "identity recommended"
        return f"{result.answer}, {outcome}: JAQ {result.gain} on {prompts}"
    if result.drifts and result.gain.low > 0:
        return f"identity recommended: JAQ {result.gain}, but drifts in {', '.join(map(_title, result.drifts))}"
    if breaks := newly_broken(result.identity, result.candidate):
        return f"identity recommended: the candidate breaks {_counted(breaks, 'held-out picture')}"
    if result.coefficients.is_identity:
        return "identity recommended: no candidate beat the stock sampler"
    return f"identity recommended: JAQ {result.gain} on {prompts}"


def preset_verdict(result: Result) -> str:
    """What the preset's card says: one of ``qsched_core.preset.VERDICTS``."""
    if not result.accepted:
        return "identity recommended"
    return "accepted as re-tuning" if result.answer == RETUNING else "accepted"


def verdict(result: Result) -> list[str]:
    """The result in sentences that a sceptic accepts, the answer first."""
    lines = [_headline(result)]
    lines += _drifts(result) + _on_reference(result)
    lines += _power(result) + _gains(result) + _bought(result) + _luck(result) + _border(result)
    return [*lines, *_guarded(result), *_effort(result), _objective(result)]


def remarks(result: Result) -> list[str]:
    """Sentences about this machine's run, for its user; not for the preset, which is shared."""
    return list(result.repairs)


def as_json(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Plain JSON values: an end that is not finite is None."""
    return {
        metric: {"gain": _plain(i.gain), "low": _plain(i.low), "high": _plain(i.high)}
        for metric, i in intervals.items()
    }  # fmt: skip


def _headline(result: Result) -> str:
    gain = f"held-out JAQ {result.gain} over {_held_out(result)}"
    if result.answer == REPAIR:
        return f"Accepted, repair: {gain}."
    if result.answer == RETUNING and result.accepted:
        return f"Accepted, re-tuning: {gain}."
    if result.answer == RETUNING:
        return f"Re-tuning, identity recommended: {gain}."
    if breaks := newly_broken(result.identity, result.candidate):
        return f"{_counted(breaks, 'held-out picture')} came out broken (not finite). Identity recommended."
    if result.coefficients.is_identity:
        return "No candidate beat the stock sampler on the search prompts: identity recommended."
    if result.gain.low > 0:
        return f"The score rises, but something else gets worse: {gain}. Identity recommended."
    if result.gain.high < 0:
        return f"Worse than the stock sampler: {gain}. Identity recommended."
    return f"No gain beyond noise: {gain}. Identity recommended."


def _held_out(result: Result) -> str:
    prompts = result.gain.prompts
    noises = len(result.identity.indices) // max(1, prompts)
    return f"{_counted(prompts, 'prompt')} x {_counted(noises, 'noise')}"


def _drifts(result: Result) -> list[str]:
    if not result.drifts:
        return []
    names = ", ".join(f"{_title(metric)} ({_drift(result, metric)})" for metric in result.drifts)
    return [f"The candidate drifts in {names}: that is never accepted."]


def _drift(result: Result, metric: str) -> str:
    change = result.gains[metric].gain
    if metric in STATISTICS and (before := result.identity.mean(metric)) > 0:
        return f"{100 * change / before:+.1f} %"
    return f"{change:+.{decimals([change], 2)}f}"


def _gains(result: Result) -> list[str]:
    """Every metric with its interval: those of JAQ, then those that nobody optimised; nothing where the stock sampler
    is compared with itself."""
    if result.coefficients.is_identity:
        return []
    objective_gains = [f"{_title(m)} {result.gains[m]}" for m in ("tc", "iq", "jaq") if m in result.gains]
    others = {m: interval for m, interval in result.gains.items() if m not in ("tc", "iq", "jaq")}
    still = [_title(m) for m, interval in others.items() if interval.is_zero]
    moving = [
        f"{_title(m)}{' (lower is better)' if lower_is_better(m) else ''} {interval}"
        for m, interval in others.items()
        if not interval.is_zero
    ]
    lines = [*_listed("Paired gains: ", objective_gains), *_listed("Not optimised: ", moving)]
    return [*lines, *_listed("Not optimised and unchanged: ", still)]


def _bought(result: Result) -> list[str]:
    """JAQ is a sum: one of its terms may pay for the other."""
    losses = [
        f"{_title(m)} {result.gains[m].gain:+.4f}"
        for m in ("tc", "iq")
        if m in result.gains and result.gains[m].high < 0
    ]
    return [f"What falls, clear of noise: {', '.join(losses)}. Look before you trust it."] if losses else []


def _luck(result: Result) -> list[str]:
    gain, luck = result.gain.gain, result.optimism
    promise = gain + luck
    if not (math.isfinite(promise) and luck > _MIN_LUCK_SHARE * promise > 0):
        return []
    digits = decimals([promise, gain])
    promise, gain, luck = (f"{value:{sign}.{digits}f}" for value, sign in ((promise, "+"), (gain, "+"), (luck, "")))
    return [f"The search's own prompts promised {promise}, held-out ones give {gain}: {luck} was luck."]


def _border(result: Result) -> list[str]:
    if not result.on_border:
        return []
    more = len(result.on_border) - _MAX_BORDER_AXES
    names = ", ".join(result.on_border[:_MAX_BORDER_AXES]) + (f" and {more} more" if more > 0 else "")
    return [f"On the border of the trust region: {names}. The optimum may lie outside."]


def _on_reference(result: Result) -> list[str]:
    """What the same coefficients do where there is nothing to repair, and what is left of the gain without that."""
    there = result.on_reference
    if there is None:
        lines = ["There is no reference model: re-tuning cannot be told from repair here."]
        return lines if result.answer == RETUNING else []
    if result.coefficients.is_identity:
        return []
    lines = [
        f"Control: the same coefficients change the reference model's JAQ by {there.same}.",
        f"Net of that: JAQ {there.net}.",
    ]
    if result.answer == RETUNING:
        lines.append("So the gain is re-tuning of the sampler: the reference model gains as much. Your taste decides.")
    return lines


def _power(result: Result) -> list[str]:
    """What was not found may still be there: how small a gain so many prompts can show."""
    unclear = result.answer == RETUNING or (result.answer == NOTHING and result.gain.low <= 0 <= result.gain.high)
    if not unclear or result.coefficients.is_identity or not 0 < result.smallest_found < math.inf:
        return []
    gain = f"{result.smallest_found:.{decimals([result.smallest_found], 2)}f}"
    return [f"A repair of JAQ {gain} would be found four times in five on so many prompts; more find smaller ones."]


def _guarded(result: Result) -> list[str]:
    names = ", ".join(map(_title, result.guarded))
    return [f"No candidate could win that worsens: {names}."] if names else []


def _effort(result: Result) -> list[str]:
    candidates = [trial for trial in result.finished if any(value != 1.0 for value in trial.point.values())]
    most = max((trial.pictures for trial in result.finished), default=0)
    out = [trial for trial in candidates if not trial.whole and math.isfinite(trial.value)]
    race_losses = sum(trial.pictures < most for trial in out)
    pictures, steps = result.nfe // len(result.coefficients), len(result.coefficients)
    lines = [
        f"Cost: {_counted(len(candidates), 'candidate')}"
        + (f", {race_losses} of them dropped after a part of the prompts" if race_losses else "")
        + (f", {len(out) - race_losses} held back" if len(out) > race_losses else "")
        + f"; {_counted(pictures, 'picture')} of {_counted(steps, 'step')}."
    ]
    if result.failed:
        lines.append(f"{_counted(result.failed, 'candidate')} made pictures that could not be scored.")
    if result.finished and not math.isfinite(result.finished[0].value):
        lines.append("One of them is the stock sampler itself: the search had nothing to compare with.")
    return lines


def _objective(result: Result) -> str:
    k, tc, iq = result.objective.k, result.objective.tc_unit, result.objective.iq_unit
    if tc == iq == 1.0:
        return f"JAQ = TC + {k:g} IQ."
    return f"JAQ = TC / {tc:.3g} + {k:g} IQ / {iq:.3g}: each in units of what the noise alone moves it by."


def _listed(start: str, items: Iterable[str]) -> list[str]:
    """Items behind ``start``, on as many lines as they need."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 3 <= _LINE_LENGTH:
            lines[-1] += f", {item}"
        else:
            lines.append(start + item)
    return [f"{line}." for line in lines]


def _title(metric: str) -> str:
    return METRIC_TITLES.get(metric, metric)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
