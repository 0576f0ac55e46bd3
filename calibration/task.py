"""What a calibration is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .core import Coefficients
from .search.guard import Guard
from .search.space import Space
from .search.storage import STUDY
from .settings import Settings
from .split import Split, split
from .validate import Generate, Score


@dataclass(frozen=True)
class Task:
    """The arguments of ``calibrate``, with settings in which nothing is left "automatic"."""

    generate: Generate
    score: Score
    n_prompts: int
    n_steps: int
    settings: Settings
    judge: Score | None = None
    reference: Generate | None = None
    guard: Guard | None = None
    journal: object = None
    name: str = STUDY
    starts: Sequence[Coefficients] = ()
    verdict_prompts: Sequence[int] = ()

    @cached_property
    def parts(self) -> Split:
        """Indices to search on, and those that are held out."""
        return split(self.n_prompts, self.settings, self.verdict_prompts)

    @cached_property
    def space(self) -> Space:
        """Of all steps."""
        return Space(self.settings, self.n_steps)

    @property
    def identity(self) -> Coefficients:
        return Coefficients.identity(self.n_steps)

    @property
    def row_pictures(self) -> int:
        """Pictures of all rows on held-out prompts: with a reference four, else two."""
        return (2 if self.reference is None else 4) * len(self.parts.held_out)

    def digest(self) -> str:
        """A name of all that decides which candidates are asked for."""
        inputs = [self.settings.lasting(), self.n_prompts, self.n_steps, self.parts.search, self.parts.held_out]
        inputs += [[start.c_x, start.c_eps] for start in self.starts]
        inputs += ["guarded"] if self.guard else []
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
