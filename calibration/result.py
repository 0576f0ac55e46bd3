"""What a calibration gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .core import Coefficients
from .objective import Objective
from .search.trials import Trial
from .validate import Evaluation, Interval


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
