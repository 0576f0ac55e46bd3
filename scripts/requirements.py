"""Just enough of requirement files to ask: does this interpreter already have all of this?

Installing is pip's business. The answer here only decides whether pip is needed at all, so whatever is not understood
(markers, URLs, unusual versions) counts as missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import metadata

Version = tuple[int, ...]

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)$")
_CLAUSE = re.compile(r"^(==|>=|<=|~=|!=|>|<)\s*([0-9][0-9.]*)$")


def lines(text: str) -> list[str]:
    """The requirements in a file's text, without comments and empty lines."""
    stripped = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [line for line in stripped if line]


def missing(requirements: Iterable[str], version_of: Callable[[str], str | None]) -> list[str]:
    """Those `requirements` that `version_of(name)` (a version, or None when absent) does not meet."""
    return [line for line in requirements if not _is_met(line, version_of)]


def installed_version(name: str) -> str | None:
    """The version of distribution `name` in the running interpreter, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_met(line: str, version_of: Callable[[str], str | None]) -> bool:
    match = _REQUIREMENT.match(line)
    if match is None:
        return False
    have = version_of(match[1])
    if have is None:
        return False
    clauses = [clause.strip() for clause in match[2].split(",") if clause.strip()]
    return all(_clause_is_met(clause, _release(have)) for clause in clauses)


def _clause_is_met(clause: str, have: Version) -> bool:
    match = _CLAUSE.match(clause)
    if match is None:
        return False
    operator, bound = match[1], _release(match[2])
    if operator == "~=":
        return have >= bound and have[: len(bound) - 1] == bound[:-1]
    width = max(len(have), len(bound))
    have, bound = _padded(have, width), _padded(bound, width)
    return {
        "==": have == bound,
        "!=": have != bound,
        ">=": have >= bound,
        "<=": have <= bound,
        ">": have > bound,
        "<": have < bound,
    }[operator]


def _release(version: str) -> Version:
    """The numeric part: "2.11.0+cu128" -> (2, 11, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _padded(version: Version, width: int) -> Version:
    return version + (0,) * (width - len(version))
