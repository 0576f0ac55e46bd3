"""What a preset says of the study behind it: written by the node and by the command line, read for cards and pages."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from .votes import Votes

if TYPE_CHECKING:  # cards read records at ComfyUI's start: the study is imported when one is written
    from .result import Result
    from .settings import Settings

MAX_GAIN = 1e6
"""A stranger's file may hold any number: no JAQ is near this one, and longer numbers would not fit a card."""

MAX_VOTES = 1_000_000
"""Votes of a kind in a stranger's file: counting an interval of more takes time, and nobody casts as many."""


def study_record(
    result: Result, settings: Settings, *, metric: str, n_prompts: int, digest: str, lines: Sequence[str]
) -> dict:
    """Plain JSON values. ``digest`` is the prompts' sha256, ``lines`` the verdict in sentences. "control" is there only
    where the study had a reference model."""
    from .metrics.reference import DISTANCE
    from .report import as_json

    gains = as_json(result.gains)
    record = {
        "metric": metric,
        "objective": asdict(result.objective),
        "settings": {**asdict(settings), "stay near": DISTANCE in result.guarded},
        "prompts": n_prompts,
        "prompts sha256": digest,
        "network evaluations": result.nfe,
        "failed candidates": result.failed,
        "answer": result.answer,
        "gain": gains["jaq"],
        "gains": gains,
        "drifts": list(result.drifts),
        "optimism": result.optimism if math.isfinite(result.optimism) else None,
        "candidate": {"c_x": result.coefficients.c_x, "c_eps": result.coefficients.c_eps},
        "on border": list(result.on_border),
        "verdict": list(lines),
        "date": time.strftime("%Y-%m-%d"),
    }
    if (there := result.on_reference) is not None:
        record["control"] = as_json({"same": there.same, "net": there.net})
    return record


def unfinished_record(best_jaq: float, identity_jaq: float) -> dict:
    """Of a study that was stopped: what the best candidate and the identity scored on the search's own prompts, as far
    as they were scored."""
    scores = {"search JAQ": best_jaq, "search JAQ of identity": identity_jaq}
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def read_gain(record: Mapping) -> tuple[float, float, float] | None:
    """(gain, low, high): the JAQ gain on held-out prompts with its interval; None where none was measured, or where a
    stranger's file holds something else."""
    gain = record.get("gain")
    values = [gain.get(key) for key in ("gain", "low", "high")] if isinstance(gain, dict) else [None]
    if not all(isinstance(value, (int, float)) and abs(value) < MAX_GAIN for value in values):
        return None
    return tuple(map(float, values))


def with_votes(record: Mapping, votes: Votes) -> dict:
    """The record with the result of a blind vote, in place of an earlier one."""
    return {**record, "votes": votes.record()}


def read_votes(record: Mapping) -> Votes | None:
    """The result of a blind vote, counted anew from the file's numbers; None where there was none."""
    votes = record.get("votes")
    counts = [votes.get(key) for key in ("wins", "losses", "skips")] if isinstance(votes, dict) else [None]
    if not all(type(count) is int and 0 <= count < MAX_VOTES for count in counts):
        return None
    return Votes(*counts)
