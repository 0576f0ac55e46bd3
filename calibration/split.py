"""Which pictures the search sees, and which the verdict."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .core import CalibrationError
from .indices import index_of
from .settings import Settings

SEARCH_PROMPTS = 12
"""All that a search needs: what more of them would choose better, the verdict would rather have."""

VERDICT_PROMPTS = 48
"""Held-out prompts that a verdict needs. On the trained toys a candidate that repairs was told for one on 12 prompts in
half of the studies, on 24 in two of three, on 48 in five of six (``benchmarks.verdict_pictures``)."""

MAX_NOISES = 4
"""More noises of the same prompts tell no more: prompts differ more than noises do."""

MIN_RUNG_PICTURES = 3
"""One or two pictures tell nothing of a candidate, and waste a batch."""


@dataclass(frozen=True)
class Split:
    """Indices (prompt + n_prompts · noise number). No prompt and no noise number is in both. ``noises``: of each
    held-out prompt, numbered from 1."""

    search: tuple[int, ...]
    held_out: tuple[int, ...]
    noises: int

    def rungs(self) -> list[tuple[int, ...]]:
        """The search's indices in groups: a quarter of them, another quarter, the rest; a candidate that the first
        ones tell apart from the best is not tried on the others."""
        cuts = [0]
        for share in (4, 2, 1):
            cut = -(-len(self.search) // share)
            if cut == len(self.search) or (cut - cuts[-1] >= MIN_RUNG_PICTURES <= len(self.search) - cut):
                cuts.append(cut)
        return [self.search[start:end] for start, end in zip(cuts, cuts[1:], strict=False)]


def split(n_prompts: int, settings: Settings, verdict_prompts: Sequence[int] = ()) -> Split:
    """Noise 0 is for the search, the next ones are for the verdict. ``verdict_prompts`` are kept from the search; where
    there are none, a share of all is drawn with the settings' seed.

    Raises:
        CalibrationError: too few prompts to leave two on each side, or a verdict's prompt that does not exist.
    """
    order = list(range(n_prompts))
    verdict = sorted(set(verdict_prompts))
    if verdict and not 0 <= verdict[0] <= verdict[-1] < n_prompts:
        raise CalibrationError(
            f"the verdict's prompts are {verdict[0]} to {verdict[-1]} of {n_prompts}.",
            "count from 0",
            n_prompts=n_prompts,
        )
    random.Random(settings.seed).shuffle(order)
    held_out = verdict or sorted(order[: _held_out_prompts(n_prompts, settings.holdout)])
    search = sorted(set(order) - set(held_out))
    if min(len(held_out), len(search)) < 2:
        raise CalibrationError(
            f"{n_prompts} prompts leave {len(held_out)} for the verdict, {len(search)} for the search.",
            "leave 2 for each",
            n_prompts=n_prompts,
        )
    noises = settings.seeds or min(MAX_NOISES, -(-VERDICT_PROMPTS // len(held_out)))
    pictures = (index_of(prompt, 1 + noise, n_prompts) for noise in range(noises) for prompt in held_out)
    return Split(tuple(search), tuple(pictures), noises)


def _held_out_prompts(n_prompts: int, share: float) -> int:
    """Of ``n_prompts``; a share of 0 leaves the search half, or no more than it needs where the verdict needs them."""
    if share:
        return round(n_prompts * share)
    return max(n_prompts // 2, min(n_prompts - SEARCH_PROMPTS, VERDICT_PROMPTS))
