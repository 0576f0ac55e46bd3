"""What a blind comparison of picture pairs can say: wins among the decided votes, with an exact interval."""

from __future__ import annotations

from dataclasses import dataclass

from .core import CalibrationError

CONFIDENCE = 0.95
"""Of the interval, as the verdict's."""

MIN_VOTES = 6
"""Decided votes from which a claim is possible at all: six of six happen by chance in 2 / 2^6 = 3.1 % of all cases,
five of five in 6.3 %."""


@dataclass(frozen=True)
class Votes:
    """``wins`` and ``losses`` of the preset in blind pairs; ``skips`` were looked at and not decided.

    Raises:
        CalibrationError: a count below zero.
    """

    wins: int = 0
    losses: int = 0
    skips: int = 0

    def __post_init__(self) -> None:
        if min(self.wins, self.losses, self.skips) < 0:
            raise CalibrationError(f"{self.wins}, {self.losses}, {self.skips} are no votes.", "count from 0")

    @property
    def decided(self) -> int:
        return self.wins + self.losses

    @property
    def share(self) -> float | None:
        """Of the wins among the decided votes; None where there are none."""
        return self.wins / self.decided if self.decided else None

    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the share (Clopper and Pearson): never narrower than it says."""
        from scipy.special import betaincinv  # scipy.stats takes a second to import

        tail = (1 - CONFIDENCE) / 2
        low = betaincinv(self.wins, self.losses + 1, tail) if self.wins else 0.0
        high = betaincinv(self.wins + 1, self.losses, 1 - tail) if self.losses else 1.0
        return float(low), float(high)

    @property
    def verdict(self) -> str:
        """ "better", "worse", "no difference seen" or "too few votes"; the first two only where the interval of the
        share excludes one half."""
        low, high = self.interval()
        if low > 0.5:
            return "better"
        if high < 0.5:
            return "worse"
        return "too few votes" if self.decided < MIN_VOTES else "no difference seen"

    def record(self) -> dict:
        """Plain JSON values, as a preset keeps them."""
        low, high = self.interval()
        return {
            "wins": self.wins,
            "losses": self.losses,
            "skips": self.skips,
            "share": self.share,
            "low": low,
            "high": high,
            "confidence": CONFIDENCE,
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        skips_text = f"; {self.skips} skipped" if self.skips else ""
        if not self.decided:
            return f"Blind vote: nothing was decided{skips_text}."
        low, high = self.interval()
        verdict = {
            "better": "better with the preset",
            "worse": "worse with the preset",
            "too few votes": "too few votes to say",
        }.get(self.verdict, self.verdict)
        text = f"Blind vote: {verdict}. The preset won {self.wins} of {self.decided} decided votes"
        text += f", {self.share:.1%} [{low:.1%}, {high:.1%}]".replace("%", " %") + skips_text
        if self.decided < MIN_VOTES:
            return f"{text}; at least {MIN_VOTES - self.decided} more are needed."
        if self.verdict == "no difference seen":
            fewest_wins = wins_needed(self.decided)
            return f"{text}. {fewest_wins} of {self.decided} would show a gain, {self.decided - fewest_wins} a loss."
        return f"{text}."


def wins_needed(count: int) -> int | None:
    """The fewest wins among ``count`` decided votes that show a gain; None where even all of them do not."""
    enough = (wins for wins in range(count + 1) if Votes(wins, count - wins).verdict == "better")
    return next(enough, None)
