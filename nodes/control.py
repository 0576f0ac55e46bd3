"""The table and the verdict in words: what the quantised model lost, what came back, and what is only re-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..calibration import Evaluation, Interval, Result
from ..calibration.validate import newly_broken

METRIC_TITLES = {"tc": "TC", "iq": "IQ", "jaq": "JAQ"}
_DRIFT = 0.02
"""Relative change of contrast, its interval clear of zero, that deserves a look."""


@dataclass(frozen=True)
class Row:
    """One line of the table: held-out scores of a model with some coefficients."""

    name: str
    evaluation: Evaluation
    weight_bytes: int
    seconds: float


@dataclass(frozen=True)
class Control:
    """The same two things on the full-precision model: our coefficients, and a search of its own."""

    same: Interval
    own: Result


def table(rows: list[Row]) -> dict:
    """{"columns": [...], "rows": [{"name": ..., column: value}]} in plain JSON values."""
    metrics = [METRIC_TITLES.get(metric, metric) for metric in rows[0].evaluation.scores]
    return {
        "columns": [*metrics, "weights MB", "s/picture"],
        "rows": [
            {
                "name": row.name,
                **{METRIC_TITLES.get(m, m): value for m, value in row.evaluation.means().items()},
                "weights MB": row.weight_bytes / 1e6,
                "s/picture": row.seconds,
            }
            for row in rows
        ],
    }


def verdict(result: Result, control: Control | None, held_out: str) -> list[str]:
    """The result in sentences that a sceptic accepts."""
    gain = result.gain
    lines = []
    if result.accepted:
        lines.append(f"Accepted: held-out JAQ {gain} over {held_out}.")
    elif broken := newly_broken(result.identity, result.candidate):
        lines.append(f"{broken} held-out pictures came out broken (not finite). Identity recommended.")
    elif result.coefficients.is_identity:
        lines.append("No candidate beat the stock sampler on the search prompts: identity recommended.")
    else:
        lines.append(f"No gain beyond noise: held-out JAQ {gain} over {held_out}. Identity recommended.")
    lines.append("Paired gains: " + ", ".join(f"{METRIC_TITLES.get(m, m)} {i}" for m, i in result.gains.items()))
    lines += _losses(result) + _drift(result)
    if result.on_border:
        lines.append(f"On the border of the trust region: {', '.join(result.on_border)}. The optimum may lie outside.")
    if control is not None:
        lines += _control(result, control)
    return lines


def as_json(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {metric: {"gain": i.gain, "low": i.low, "high": i.high} for metric, i in intervals.items()}


def _losses(result: Result) -> list[str]:
    """Metrics that fall for certain: what JAQ was bought with."""
    fallen = [METRIC_TITLES.get(m, m) for m, i in result.gains.items() if i.high < 0]
    return [f"What falls, clear of noise: {', '.join(fallen)}. Look before you trust it."] if fallen else []


def _drift(result: Result) -> list[str]:
    change = result.gains.get("contrast")
    if change is None:
        return []
    relative = change.gain / result.identity.mean("contrast")
    if not change.excludes_zero or abs(relative) < _DRIFT:
        return []
    return [f"Contrast, which was not optimised, drifts by {relative:+.1%}: look before you trust it."]


def _control(result: Result, control: Control) -> list[str]:
    own = control.own
    lines = [
        f"Control: the same coefficients on the full-precision model change its JAQ by {control.same}.",
        f"Control: a search of its own changes the full-precision model's JAQ by {own.gain}"
        + (" (accepted)." if own.accepted else " (not accepted)."),
    ]
    if not result.accepted:
        return lines
    retuning = max(0.0, own.gain.gain) if own.accepted else 0.0
    share = max(0.0, 1 - retuning / result.gain.gain)
    return [*lines, f"So about {share:.0%} of the gain is repair of quantisation, the rest re-tuning of the sampler."]
