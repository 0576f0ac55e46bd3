"""What came of the attacks of one kind."""

from __future__ import annotations

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
