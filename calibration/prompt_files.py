"""Lists of prompts as people keep them, in text, tables and lists; every line that is no prompt is counted.

Files come from strangers: the work for a byte is bounded whatever stands in it, and what is too large is refused first.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from .core import CalibrationError, DependencyError

MAX_FILE_BYTES = 4 * 1024**2
"""Bytes of a file: 100 000 prompts of usual length; reading them takes less than a second."""
MAX_SLOW_YAML_BYTES = 512 * 1024
"""Where PyYAML comes without libyaml it takes a second for a megabyte."""
MAX_VALUES = 100_000
"""Lines, rows or values of a file."""
MAX_SLOW_YAML_VALUES = 30_000
"""As ``MAX_VALUES``, without libyaml: 70 000 values take it a second."""
MAX_YAML_DEPTH = 8
"""Lists and mappings inside each other in a YAML file; a list of prompts needs three."""
MAX_YAML_DIRECTIVES = 8
"""Lines of a YAML file that begin with %; libyaml compares each with all before it. A list of prompts needs none."""
MAX_HEADER_LENGTH = 100_000
"""Characters of a table's first line: each separator is tried on it."""

COLUMNS = ("prompt", "text", "caption", "positive")
"""What the prompt is called in a table or a mapping, the first of them that is there."""
VERDICT_KEYS = ("verdict", "held_out")
SEPARATORS = ",;\t|"

_BREAKS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Python's ``splitlines`` and YAML end a line at these; in a prompt they were pasted with a text."""
_HASH_PROMPT = r"(?i)#(?:\d|([0-9a-f])\1{2,7}\b|(?=[a-f]*\d)[0-9a-f]{3,8}\b)"
"""A number or a colour at the start of a prompt: "#1 fan", "#ff0000 car", "#fff dress"; "#facade" is a comment."""
_DIRECTIVE = re.compile(r"(?:\A|[\r\n])%")
_SEP_LINE = r'(?i)"?sep=([,;\t|])"?'
"""Excel's own first line of a CSV file."""
_YAML_COMMENT = re.compile(r"(?:(?<=\s)|\A)#[^\r\n]*")
_LONGEST_SCALAR = 100
"""Characters of a YAML value that may be a number or a date."""


class PromptTexts(NamedTuple):
    """What was read: ``texts`` in order, repeated ones too, those of a second set in ``verdict``, and a ``note`` that
    counts what was read and what was skipped, and why ("" where nothing has to be said)."""

    texts: list[str]
    verdict: list[str]
    note: str


class _Notes:
    """What a report has to say of a list: how many entries of which kind were skipped, and remarks."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def skip(self, what: str, count: int) -> None:
        if count:
            self.parts.append(f"{count} {what}{'s' * (count != 1)} skipped")

    def __str__(self) -> str:
        return ", ".join(self.parts)


def read_lines(text: str) -> PromptTexts:
    """Prompts of a text, one per line. Blank lines and # comments are left out; a number or a colour behind the # makes
    it a prompt. Only line feeds and carriage returns end a line.

    Raises:
        CalibrationError: more than 100 000 lines.
    """
    # Notepad starts UTF-8 files with a byte order mark.
    lines = _lines(_BREAKS.sub(" ", text.removeprefix("\ufeff")))
    if len(lines) > MAX_VALUES:
        raise CalibrationError(f"there are more than {MAX_VALUES} lines of prompts.", "give fewer", lines=len(lines))
    texts = [one_line(line) for line in lines if not _is_comment(line)]
    notes = _Notes()
    notes.skip("comment line", len(lines) - len(texts))
    return PromptTexts(texts, [], str(notes))


def one_line(text: str) -> str:
    """A prompt without line ends and repeated blanks."""
    return " ".join(text.split())


def parse_file(name: str, content: bytes) -> PromptTexts:
    """Prompts of a file that holds one set, see ``parse_sets``.

    Raises:
        CalibrationError: as ``parse_sets``, or the file has a second set.
        DependencyError: a YAML file, and PyYAML is not installed.
    """
    sets = parse_sets(name, content)
    if sets.verdict:
        raise CalibrationError(f"{_shown(name)} has a second set, too.", "leave one list in this file")
    return sets


def parse_sets(name: str, content: bytes) -> PromptTexts:
    """Prompts, and prompts for the verdict, of a file; its suffix says what it is:

    .txt
        One per line, # comments, see ``read_lines``.
    .csv, .tsv
        Rows below a header with a column prompt, text, caption or positive; or one column without a header. # comments
        above the first row, and Excel's line "sep=;".
    .yaml, .yml, .json
        A list of texts; or of mappings that have one of those names; or a mapping with such a list as ``prompts``, and
        another as ``verdict`` or ``held_out`` if there is a second set.

    UTF-8, or UTF-16 with a byte order mark.

    Raises:
        CalibrationError: another kind of file, one of more than 4 MiB or 100 000 values, or one that cannot be read so.
        DependencyError: a YAML file, and PyYAML is not installed.
    """
    label, kind = _shown(name), name.rpartition(".")[2].lower()
    if kind not in _PARSERS:
        raise CalibrationError(f"{label} is no list of prompts.", "use .txt, .csv, .tsv, .yaml, .yml or .json")
    if len(content) > MAX_FILE_BYTES:
        raise CalibrationError(f"{label} is larger than 4 MiB.", "give a part of it: no study reads so many prompts")
    notes = _Notes()
    first, second = _PARSERS[kind](label, _decoded(label, content), notes)
    texts, verdict = ([text for text in texts if text] for texts in (first, second))
    notes.skip("empty prompt", len(first) + len(second) - len(texts) - len(verdict))
    # Without its name: the note goes into presets, which people share.
    notes.parts.insert(0, f"{len(texts) + len(verdict)} prompts read from a .{kind} file")
    return PromptTexts(texts, verdict, str(notes))


def _lines(text: str) -> list[str]:
    """Those that hold something. Not ``splitlines``: it ends lines at eight more characters."""
    return [*filter(None, map(str.strip, text.replace("\r", "\n").split("\n")))]


def _is_comment(line: str) -> bool:
    return line.startswith("#") and not re.match(_HASH_PROMPT, line)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:12]}…{name[-27:]}")


def _too_many(label: str, what: str, most: int) -> CalibrationError:
    return CalibrationError(f"{label} holds more than {most} {what}.", "give a part of it, or use a .txt file")


def _decoded(label: str, content: bytes) -> str:
    """Notepad's "Unicode" is UTF-16."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{label} is no UTF-8 text.", "save it as UTF-8", byte=error.start) from error
    if "\0" in text:
        raise CalibrationError(f"{label} is no text.", "save it as UTF-8", byte=text.index("\0"))
    return _BREAKS.sub(" ", text)


def _parse_text(label: str, text: str, notes: _Notes) -> tuple[list[str], list[str]]:
    lines = _lines(text)
    if len(lines) > MAX_VALUES:
        raise _too_many(label, "lines", MAX_VALUES)
    texts = [one_line(line) for line in lines if not _is_comment(line)]
    notes.skip("comment line", len(lines) - len(texts))
    return texts, []


# --- tables


def _parse_csv(label: str, text: str, notes: _Notes) -> tuple[list[str], list[str]]:
    table, above, separator = _below_comments(label, text, notes)
    return _column(label, table, above, separator or _separator(label, table), notes), []


def _parse_tsv(label: str, text: str, notes: _Notes) -> tuple[list[str], list[str]]:
    table, above, separator = _below_comments(label, text, notes)
    return _column(label, table, above, separator or "\t", notes), []


def _below_comments(label: str, text: str, notes: _Notes) -> tuple[str, int, str]:
    """(The table, how many lines stand above it, the separator that Excel's line names or ""). A column may be
    named #."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    start = number = comments = 0
    separator = ""
    while start < len(text):
        if number > MAX_VALUES:
            raise _too_many(label, "lines above its first row", MAX_VALUES)
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end].strip()
        if match := re.fullmatch(_SEP_LINE, text[start:end].strip(" ")) if not separator else None:
            separator = match[1]
        elif line and (not _is_comment(line) or line[1:2] in tuple(SEPARATORS)):
            break
        elif line:
            comments += 1
        start, number = end + 1, number + 1
    notes.skip("comment line", comments)
    return text[start:], number, separator


def _separator(label: str, table: str) -> str:
    """From the first row alone: commas and semicolons of prompts would be counted, too. That one which makes a known
    column of it, else the commonest."""
    header = table.partition("\n")[0]
    if len(header) > MAX_HEADER_LENGTH:
        raise CalibrationError(f"{label} has a first line of {len(header)} characters.", "write one prompt per line")
    for separator in SEPARATORS:
        try:
            row = next(csv.reader(io.StringIO(table, newline=""), delimiter=separator, skipinitialspace=True), [])
        except csv.Error:
            continue
        if len(row) > 1 and _known_column(row) is not None:
            return separator
    return max(SEPARATORS, key=header.count)


def _column(label: str, table: str, above: int, separator: str, notes: _Notes) -> list[str]:
    """The prompts of a table whose first line is line ``above`` + 1 of the file."""
    rows = csv.reader(io.StringIO(table, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        header = next(rows, [])
        column = _which_column(label, header)
        prompts: list[str] = []
        if column is None:  # one column without a header
            column, prompts = 0, header[:1]
            if header:
                notes.parts.append(f'the first line is read as a prompt (a header would be named "{COLUMNS[0]}")')
        for row in rows:
            if not row:
                continue
            # A prompt with a comma and no quotes: the rest of it would be lost.
            if len(row) > len(header) and "".join(row[len(header) :]).strip():
                raise CalibrationError(
                    f"{label} has more cells than columns in line {above + rows.line_num}.",
                    f"put prompts that hold {separator!r} in quotes",
                    line=above + rows.line_num,
                )
            if "".join(row).strip():
                prompts.append(row[column] if column < len(row) else "")
            if len(prompts) > MAX_VALUES:
                raise _too_many(label, "rows", MAX_VALUES)
    except csv.Error as error:
        line = above + rows.line_num
        raise CalibrationError(
            f"{label} is no table in line {line}: {error}.", "check the quotes, or save it anew as CSV", line=line
        ) from error
    return [one_line(text) for text in prompts]


def _known_column(header: list[str]) -> int | None:
    names = [name.strip().lower() for name in header]
    return next((names.index(name) for name in COLUMNS if name in names), None)


def _which_column(label: str, header: list[str]) -> int | None:
    """None: there is one column, and what it is called is not known."""
    column = _known_column(header)
    if column is None and len(header) > 1:
        columns = ", ".join(name.strip()[:40] for name in header[:40])
        raise CalibrationError(
            f"{label} has no column named prompt, text, caption or positive.",
            f"rename one of its columns: {columns[:400]}",
            columns=header[:40],
        )
    return column


# --- lists


def _parse_yaml(label: str, text: str, notes: _Notes) -> tuple[list[str], list[str]]:
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


def _built(label: str, text: str, events: Iterable, most: int, notes: _Notes) -> object:
    """The file's only document, from PyYAML's events of ``text``. Its own constructor would follow aliases and merged
    mappings, which make gigabytes of a few lines, and reads 1:1:1:… as one number, digit by digit."""
    import yaml

    top: list = []
    stack: list[tuple[Any, list]] = [(None, top)]  # (the mapping or list, what was read of it)
    last_end = comments = 0
    for number, event in enumerate(events):
        if number > most:
            raise _too_many(label, "values", most)
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


def _parse_json(label: str, text: str, notes: _Notes) -> tuple[list[str], list[str]]:
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


def _sets(label: str, data: object, notes: _Notes) -> tuple[list[str], list[str]]:
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
        raise _too_many(label, "prompts", MAX_VALUES)
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


_PARSERS = {
    "txt": _parse_text,
    "csv": _parse_csv,
    "tsv": _parse_tsv,
    "yaml": _parse_yaml,
    "yml": _parse_yaml,
    "json": _parse_json,
}
