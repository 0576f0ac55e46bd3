"""Every error the pack raises on purpose: what is wrong, with the value in it, and what to do."""

from __future__ import annotations

MAX_FIRST_LINE = 90
"""What the host's error box shows of a message without scrolling."""

MIN_NAME_LENGTH = 16
"""Characters of a name by which a person still knows it."""


class QSchedError(Exception):
    """First line at most 90 characters: "<what>. Fix: <action>". ``fields`` hold the values the text speaks of.

    Where a long value leaves no room, the way out moves to a second line, and the longest word loses its middle.
    """

    def __init__(self, what: str, fix: str = "", **fields: object):
        self.what, self.fix, self.fields = what, fix, fields
        super().__init__(_message(" ".join(f"Q-Sched: {what}".split()), f"Fix: {fix}" if fix else ""))


class CoefficientError(QSchedError, ValueError):
    """Coefficients that are not finite, not positive, of unequal length, or of the wrong number of steps."""


class PresetError(QSchedError, ValueError):
    """A preset file that cannot be trusted, or that does not fit what it is applied to."""


class QuantizationError(QSchedError, ValueError):
    """A model, layer or format that cannot be quantised."""


class SamplingError(QSchedError, RuntimeError):
    """A sampler that Q-Sched cannot drive exactly, or a latent that stopped being finite."""


class CalibrationError(QSchedError, ValueError):
    """Settings or prompts from which no calibration can be made."""


class VoteError(QSchedError, ValueError):
    """Pictures that cannot be compared, or a vote that cannot be counted."""


class DependencyError(QSchedError, ImportError):
    """An optional package is missing."""


def _message(what: str, fix: str) -> str:
    line = f"{what} {fix}".strip()
    if len(line) <= MAX_FIRST_LINE:
        return line
    return f"{_fitted(what)}\n{fix}".strip()


def _fitted(what: str) -> str:
    """At most MAX_FIRST_LINE characters. A long name or path loses its middle, so that what is said of it stays."""
    if len(what) <= MAX_FIRST_LINE:
        return what
    longest = max(what.split(" "), key=len)
    room = len(longest) - (len(what) - MAX_FIRST_LINE) - 1
    if room < MIN_NAME_LENGTH:
        return f"{what[: MAX_FIRST_LINE - 1]}…"
    begin = room // 2
    return what.replace(longest, f"{longest[:begin]}…{longest[begin - room :]}", 1)
