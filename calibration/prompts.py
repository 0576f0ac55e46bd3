"""Prompts as people keep them: one per line, blank lines and # comments ignored."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from .core import CalibrationError

FEWEST = 4
MOST = 256
"""More prompts cost time and no longer change the verdict; a longer list is sampled, and the report says so."""

LONGEST = 2000


@dataclass(frozen=True)
class Prompts:
    """What is calibrated on. ``note`` tells what was done to the list that was given."""

    texts: tuple[str, ...]
    note: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """sha256 of the list: a preset names its prompts without telling them."""
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()


def read_prompts(text: str, seed: int = 0) -> Prompts:
    """Distinct prompts of a text, in order; at most 256, drawn with ``seed`` from a longer list.

    Raises:
        CalibrationError: fewer than 4 distinct prompts, or one of more than 2000 characters.
    """
    # Notepad starts UTF-8 files with a byte order mark.
    lines = [" ".join(line.split()) for line in text.removeprefix("\ufeff").splitlines()]
    given = [line for line in lines if line and not line.startswith("#")]
    distinct = list(dict.fromkeys(given))
    for line in distinct:
        if len(line) > LONGEST:
            raise CalibrationError(
                f"a prompt has {len(line)} characters.", "write one prompt per line", start=line[:80]
            )
    if len(distinct) < FEWEST:
        raise CalibrationError(
            f"{len(distinct)} prompts, at least {FEWEST} are needed.", "write one prompt per line, 12 or more is good"
        )
    notes = []
    if len(distinct) < len(given):
        notes.append(f"{len(given) - len(distinct)} repeated prompts left out")
    if len(distinct) > MOST:
        kept = sorted(random.Random(seed).sample(range(len(distinct)), MOST))
        notes.append(f"{MOST} of {len(distinct)} prompts drawn with seed {seed}")
        distinct = [distinct[i] for i in kept]
    return Prompts(tuple(distinct), "; ".join(notes))
