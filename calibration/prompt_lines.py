"""Lines of prompts: what a comment is, and what a report says of what was skipped."""

from __future__ import annotations

import re

from .core import CalibrationError

MAX_VALUES = 100_000
"""Lines, rows or values of a file."""

COLUMNS = ("prompt", "text", "caption", "positive")
"""What the prompt is called in a table or a mapping, the first of them that is there."""

BREAKS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Python's ``splitlines`` and YAML end a line at these; in a prompt they were pasted with a text."""

_HASH_PROMPT = r"(?i)#(?:\d|([0-9a-f])\1{2,7}\b|(?=[a-f]*\d)[0-9a-f]{3,8}\b)"
"""A number or a colour at the start of a prompt: "#1 fan", "#ff0000 car", "#fff dress"; "#facade" is a comment."""


class Notes:
    """What a report has to say of a list: how many entries of which kind were skipped, and remarks."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def skip(self, what: str, count: int) -> None:
        if count:
            self.parts.append(f"{count} {what}{'s' * (count != 1)} skipped")

    def __str__(self) -> str:
        return ", ".join(self.parts)


def one_line(text: str) -> str:
    """A prompt without line ends and repeated blanks."""
    return " ".join(text.split())


def lines_of(text: str) -> list[str]:
    """Those that hold something. Not ``splitlines``: it ends lines at eight more characters."""
    return [*filter(None, map(str.strip, text.replace("\r", "\n").split("\n")))]


def is_comment(line: str) -> bool:
    return line.startswith("#") and not re.match(_HASH_PROMPT, line)


def too_many(label: str, what: str, most: int) -> CalibrationError:
    return CalibrationError(f"{label} holds more than {most} {what}.", "give a part of it, or use a .txt file")
