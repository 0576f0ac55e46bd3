"""Prompts of a list: .yaml and .json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from .core import CalibrationError, DependencyError
from .prompt_lines import COLUMNS, MAX_VALUES, Notes, one_line, too_many

MAX_SLOW_YAML_BYTES = 512 * 1024
"""Where PyYAML comes without libyaml it takes a second for a megabyte."""

MAX_SLOW_YAML_VALUES = 30_000
"""As ``MAX_VALUES``, without libyaml: 70 000 values take it a second."""

MAX_YAML_DEPTH = 8
"""Lists and mappings inside each other in a YAML file; a list of prompts needs three."""

MAX_YAML_DIRECTIVES = 8
"""Lines of a YAML file that begin with %; libyaml compares each with all before it. A list of prompts needs none."""

VERDICT_KEYS = ("verdict", "held_out")
"""What a second set is called."""

_DIRECTIVE = re.compile(r"(?:\A|[\r\n])%")
_YAML_COMMENT = re.compile(r"(?:(?<=\s)|\A)#[^\r\n]*")
_LONGEST_SCALAR = 100
"""Characters of a YAML value that may be a number or a date."""


def parse_yaml(label: str, text: str, notes: Notes) -> tuple[list[str], list[str]]:
    try:
        import yaml
    except ImportError as error:
        raise DependencyError(
            "YAML files need PyYAML.", "pip install pyyaml, or use a .txt, .csv or .json file"
        ) from error
    has_libyaml = hasattr(yaml, "CSafeLoader")
    if not has_libyaml and len(text) > MAX_SLOW_YAML_BYTES:
        raise CalibrationError(f"{label} is too long for this PyYAML.", "use a .txt, .csv or .json file")
    if len(_DIRECTIVE.findall(text)) > MAX_YAML_DIRECTIVES:
        raise CalibrationError(
            f"{label} is no plain list: it has many % directives.", "leave out lines that begin with %"
        )
    try:
        events = yaml.parse(text, Loader=yaml.CSafeLoader if has_libyaml else yaml.SafeLoader)
        data = _built(label, text, events, MAX_VALUES if has_libyaml else MAX_SLOW_YAML_VALUES, notes)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise CalibrationError(
            f"{label} is no YAML{where}.", "put prompts that hold : # or quotes in quotes", problem=str(error)[:200]
        ) from error
    return _sets(label, data, notes)


def _built(label: str, text: str, events: Iterable, most: int, notes: Notes) -> object:
    """The file's only document, from PyYAML's events of ``text``. Its own constructor would follow aliases and merged
    mappings, which make gigabytes of a few lines, and reads 1:1:1:… as one number, digit by digit."""
    import yaml

    top: list = []
    stack: list[tuple[Any, list]] = [(None, top)]  # (the mapping or list, what was read of it)
    last_end = comments = 0
    for number, event in enumerate(events):
        if number > most:
            raise too_many(label, "values", most)
        # Between two events stand blanks, signs and comments: of "- a fox #1 fan" YAML reads the fox.
        start = event.start_mark.index
        if start > last_end + 1:
            comments += len(_YAML_COMMENT.findall(text, last_end, start))
        if event.end_mark.index > last_end:
            last_end = event.end_mark.index
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent) and top:
            raise CalibrationError(f"{label} is no YAML in line {line}: a second document.", "leave one", line=line)
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append((dict if isinstance(event, yaml.MappingStartEvent) else list, []))
        if len(stack) > MAX_YAML_DEPTH + 1 or isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise CalibrationError(
                f"{label} is no plain list in line {line}.",
                "write the prompts as a list, without &, *, ! and lists in lists",
                line=line,
            )
        if isinstance(event, yaml.ScalarEvent):
            stack[-1][1].append(_scalar(event, stack[-1]))
        elif isinstance(event, yaml.CollectionEndEvent):
            kind, items = stack.pop()
            stack[-1][1].append(_mapping(label, zip(items[::2], items[1::2], strict=True)) if kind is dict else items)
    notes.skip("comment", comments)
    return top[0] if top else None


def _scalar(event, place: tuple[Any, list]) -> object:
    """A text; or what says that there was none: a number, yes or no, nothing, a date. Names in a mapping are texts."""
    import yaml

    kind, items = place
    is_name = kind is dict and not len(items) % 2
    if is_name or not event.implicit[0] or len(event.value) > _LONGEST_SCALAR:
        return event.value
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in (*resolvers.get(event.value[:1], ()), *resolvers.get(None, ())):
        if pattern.match(event.value):
            return _VALUES.get(tag.rpartition(":")[2], _NO_TEXT)
    return event.value


_NO_TEXT = object()
_VALUES = {"int": 0, "float": 0.0, "bool": True, "null": None}


def _mapping(label: str, pairs: Iterable[tuple[object, object]]) -> dict:
    """Of two values of one name, readers keep the last, and a list of prompts would be lost."""
    items: dict = {}
    for key, value in pairs:
        if isinstance(key, (dict, list)):
            raise CalibrationError(f"{label} has a list for a name.", "write the prompts as a list")
        if key in items:
            raise CalibrationError(f"{label} has two values named {str(key)[:40]!r}.", "rename one, or join them")
        items[key] = value
    return items


def parse_json(label: str, text: str, notes: Notes) -> tuple[list[str], list[str]]:
    # Not as YAML, which JSON nearly is: pairs of \u escapes and tabs differ. What a number is does not matter, and
    # older Pythons take minutes for one of a million digits.
    try:
        data = json.loads(
            text,
            object_pairs_hook=lambda pairs: _mapping(label, pairs),
            parse_int=len,
            parse_float=len,
            parse_constant=len,
        )
    except CalibrationError:
        raise
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise CalibrationError(f"{label} is no JSON in line {line}.", "check quotes and commas", line=line) from error
    return _sets(label, data, notes)


def _sets(label: str, data: object, notes: Notes) -> tuple[list[str], list[str]]:
    if not isinstance(data, dict):
        return _entries(label, data, "the file"), []
    if "prompts" not in data:
        keys = ", ".join(str(key)[:40] for key in list(data)[:40])
        raise CalibrationError(f"{label} has no list named prompts.", f"rename one of these: {keys[:400]}")
    second = [text for key in VERDICT_KEYS for text in _entries(label, data.get(key) or [], key)]
    if others := [repr(str(key)[:40].replace("<", "")) for key in data if key not in ("prompts", *VERDICT_KEYS)]:
        notes.parts.append(f"not read: {', '.join(others[:8])}{', …' * (len(others) > 8)}")
    return _entries(label, data["prompts"], "prompts"), second


def _entries(label: str, data: object, where: str) -> list[str]:
    """The texts of a list. Errors name kinds, not values, which may be large."""
    if not isinstance(data, list):
        raise CalibrationError(
            f"{label}: {where} holds {_kind(data)}, not a list.", 'start the line of each prompt with "- "'
        )
    if len(data) > MAX_VALUES:
        raise too_many(label, "prompts", MAX_VALUES)
    texts = []
    for number, entry in enumerate(data, 1):
        if isinstance(entry, dict):
            names = {str(key).lower(): value for key, value in entry.items()}
            entry = next((names[name] for name in COLUMNS if name in names), entry)
        if not isinstance(entry, str):
            raise CalibrationError(
                f"{label}: entry {number} of {where} is {_kind(entry)}, not a prompt.",
                'put it in quotes if it is one, or name it "prompt"',
                entry=number,
            )
        texts.append(one_line(entry))
    return texts


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "yes or no", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "no text")
