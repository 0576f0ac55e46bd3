"""What came of the attacks of one kind."""

from __future__ import annotations

import importlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field

MOST_EXAMPLES = 5


@dataclass
class Tally:
    """``outcomes`` counts what is right, by name: refused, loaded, … ``harm`` is what must never happen."""

    outcomes: Counter = field(default_factory=Counter)
    harm: int = 0
    examples: list[str] = field(default_factory=list)
    """Of the harm, the first few."""
    figures: dict[str, object] = field(default_factory=dict)
    """What else was measured."""

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def hurt(self, what: str) -> None:
        self.harm += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(what[:400])

    def as_json(self) -> dict[str, object]:
        attacks = sum(self.outcomes.values()) + self.harm
        return {
            "attacks": attacks,
            "harm": self.harm,
            **dict(sorted(self.outcomes.items())),
            **self.figures,
            **({"examples": self.examples} if self.examples else {}),
        }


def memory_folder() -> str | None:
    """A folder in memory, where the system has one: thousands of small studies that write through to a disk wait for
    it two thirds of their time, and say nothing about it. For ``tempfile``, whose own place is what None means."""
    return next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None)


def run_kind(name: str) -> dict[str, object]:
    """The counts of one module of this folder, and the seconds it took."""
    start = time.perf_counter()
    tally = importlib.import_module(f"{__package__}.{name}").run()
    return {**tally.as_json(), "seconds": round(time.perf_counter() - start, 1)}
