"""Prompts as people keep them, in text, tables and lists; and which of them the search sees, which the verdict."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from .core import CalibrationError, DependencyError

FEWEST = 4
FEWEST_VERDICT = 2
MOST = 256
"""More prompts cost time and no longer change the verdict; a longer list is sampled, and the report says so."""

LONGEST = 2000
LARGEST = 4 * 1024**2
"""Bytes of a file."""
DEEPEST = 8
"""Lists and mappings inside each other in a YAML file; a list of prompts needs three."""

MANY = 100_000
"""Values in a YAML file: PyYAML takes a minute for a million."""

COLUMNS = ("prompt", "text", "caption", "positive")
"""What the prompt is called in a table or a mapping, the first of them that is there."""
VERDICT_KEYS = ("verdict", "held_out")
SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Prompts:
    """What is calibrated on. ``note`` tells what was done to the list that was given; ``verdict`` are the indices of
    the second set, which the search must not see (empty: there is none, and a share of all is held out)."""

    texts: tuple[str, ...]
    note: str
    verdict: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """sha256 of the list, and of the second set if there is one: a preset names its prompts without telling
        them."""
        told = "\n".join(self.texts)
        if self.verdict:
            # No text is empty or holds a line end: an empty line cannot be part of the list.
            told += "\n\n" + " ".join(map(str, self.verdict))
        return hashlib.sha256(told.encode()).hexdigest()


def read_prompts(text: str, seed: int = 0) -> Prompts:
    """Distinct prompts of a text, in order; at most 256, drawn with ``seed`` from a longer list.

    Raises:
        CalibrationError: fewer than 4 distinct prompts, or one of more than 2000 characters.
    """
    return select(read_lines(text), (), seed)


def read_lines(text: str) -> list[str]:
    """Prompts of a text, one per line; blank lines and # comments are left out, repeated prompts are not."""
    # Notepad starts UTF-8 files with a byte order mark.
    lines = [_one_line(line) for line in text.removeprefix("\ufeff").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def select(first: Sequence[str], second: Sequence[str] = (), seed: int = 0) -> Prompts:
    """Distinct prompts: those of ``first`` in order, then those of ``second``, on which the verdict is made. A prompt
    in both is kept for the verdict alone.

    At most 256 are kept. From longer lists ``seed`` draws: each set is sure of 128 places, and has those that the other
    leaves free.

    Raises:
        CalibrationError: fewer than 4 distinct prompts to search on, fewer than 2 in a second set, or a prompt of more
            than 2000 characters.
    """
    first, second = ([text for text in map(_one_line, texts) if text] for texts in (first, second))
    search, verdict = list(dict.fromkeys(first)), list(dict.fromkeys(second))
    notes = []
    if repeated := len(first) - len(search) + len(second) - len(verdict):
        notes.append(f"{repeated} repeated prompts left out")
    if common := set(search) & set(verdict):
        search = [text for text in search if text not in common]
        notes.append(f"{len(common)} prompts of both sets kept for the verdict alone")
    _check(search, verdict)
    places = min(len(verdict), max(MOST // 2, MOST - len(search)))
    draw = random.Random(seed)
    drawn = []
    for texts, count, name in (
        (search, MOST - places, "prompts to search on" if verdict else "prompts"),
        (verdict, places, "prompts for the verdict"),
    ):
        if len(texts) > count:
            notes.append(f"{count} of {len(texts)} {name} drawn with seed {seed}")
            texts = [texts[i] for i in sorted(draw.sample(range(len(texts)), count))]
        drawn.append(texts)
    search, verdict = drawn
    every = (*search, *verdict)
    return Prompts(every, "; ".join(notes), tuple(range(len(search), len(every))))


def select_as_given(texts: Sequence[str], second: Sequence[str] = ()) -> Prompts:
    """All of ``texts``, in order, repeated ones too: for prompts that come with something of their own, such as a
    conditioning. ``second`` names those of them that are kept for the verdict.

    Raises:
        CalibrationError: fewer than 4 texts to search on or more than 256 in all, fewer than 2 in a second set, an
            empty text, one of more than 2000 characters, or a text of the second set that is not among them.
    """
    texts, named = [_one_line(text) for text in texts], {_one_line(text) for text in second} - {""}
    if "" in texts:
        raise CalibrationError(f"text {texts.index('') + 1} is empty.", "give every conditioning its text, or none")
    if len(texts) > MOST:
        raise CalibrationError(f"{len(texts)} conditionings, at most {MOST} are used.", "plug in fewer")
    if unknown := sorted(named - set(texts)):
        raise CalibrationError(
            f"the verdict's {unknown[0][:40]!r} is not among the prompts.",
            "with conditionings, the second set names some of their texts",
            unknown=len(unknown),
        )
    verdict = tuple(i for i, text in enumerate(texts) if text in named)
    _check([text for text in texts if text not in named], [texts[i] for i in verdict])
    return Prompts(tuple(texts), "", verdict)


def parse_file(name: str, content: bytes) -> list[str]:
    """Prompts of a file that holds one set, see ``parse_sets``.

    Raises:
        CalibrationError: as ``parse_sets``, or the file has a second set.
        DependencyError: a YAML file, and PyYAML is not installed.
    """
    first, second = parse_sets(name, content)
    if second:
        raise CalibrationError(f"{_shown(name)} has a second set, too.", "leave one list in this file")
    return first


def parse_sets(name: str, content: bytes) -> tuple[list[str], list[str]]:
    """(prompts, prompts for the verdict) of a file, in order, repeated ones too; its suffix says what it is:

    .txt
        One per line, # comments.
    .csv, .tsv
        A header and rows; the column prompt, text, caption or positive, or the only one. # comments above the header.
    .yaml, .yml, .json
        A list of texts; or of mappings that have one of those names; or a mapping with such a list as ``prompts``, and
        another as ``verdict`` or ``held_out`` if there is a second set.

    UTF-8, or UTF-16 with a byte order mark.

    Raises:
        CalibrationError: another kind of file, one of more than 4 MiB, or one that cannot be read so.
        DependencyError: a YAML file, and PyYAML is not installed.
    """
    shown, kind = _shown(name), name.rpartition(".")[2].lower()
    if kind not in _PARSERS:
        raise CalibrationError(f"{shown} is no list of prompts.", "use .txt, .csv, .tsv, .yaml, .yml or .json")
    if len(content) > LARGEST:
        raise CalibrationError(f"{shown} is larger than 4 MiB.", f"give a list of prompts; {MOST} are used at most")
    return _PARSERS[kind](shown, _decoded(shown, content))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:12]}…{name[-27:]}")


def _check(search: Sequence[str], verdict: Sequence[str]) -> None:
    for text in (*search, *verdict):
        if len(text) > LONGEST:
            raise CalibrationError(
                f"a prompt has {len(text)} characters.", "write one prompt per line", start=text[:80]
            )
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise CalibrationError("a prompt holds half a character.", "write the character itself, not its code")
    if len(search) < FEWEST:
        what = "prompts to search on" if verdict else "prompts"
        raise CalibrationError(
            f"{len(search)} {what}, at least {FEWEST} are needed.", "write one prompt per line, 12 or more is good"
        )
    if 0 < len(verdict) < FEWEST_VERDICT:
        raise CalibrationError(
            f"{len(verdict)} prompts for the verdict, at least {FEWEST_VERDICT} are needed.",
            "write more, or none: half of the others is held out then",
        )


def _decoded(shown: str, content: bytes) -> str:
    """Notepad's "Unicode" is UTF-16."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{shown} is no UTF-8 text.", "save it as UTF-8", byte=error.start) from error
    if "\0" in text:
        raise CalibrationError(f"{shown} is no text.", "save it as UTF-8", byte=text.index("\0"))
    return text


def _parse_text(shown: str, text: str) -> tuple[list[str], list[str]]:
    return read_lines(text), []


def _parse_csv(shown: str, text: str) -> tuple[list[str], list[str]]:
    rows, skipped = _below_comments(text)
    try:
        # From the header alone: commas and semicolons of prompts would be counted, too.
        separator = csv.Sniffer().sniff(rows.partition("\n")[0], SEPARATORS).delimiter
    except csv.Error:
        separator = ","
    return _column(shown, rows, skipped, separator), []


def _parse_tsv(shown: str, text: str) -> tuple[list[str], list[str]]:
    return _column(shown, *_below_comments(text), "\t"), []


def _below_comments(text: str) -> tuple[str, int]:
    """The table, and how many lines stand above it. A column may be named #."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    skipped = 0
    while skipped < len(lines) - 1:
        line = lines[skipped].strip()
        if line and not (line.startswith("#") and line[1:2] not in SEPARATORS):
            break
        skipped += 1
    return "\n".join(lines[skipped:]), skipped


def _column(shown: str, text: str, skipped: int, separator: str) -> list[str]:
    """The prompts of a table."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        column = _which_column(shown, header)
        prompts = []
        for row in rows:
            # A prompt with a comma and no quotes: the rest of it would be lost.
            if any(cell.strip() for cell in row[len(header) :]):
                raise CalibrationError(
                    f"{shown} has more cells than columns in line {skipped + rows.line_num}.",
                    f"put prompts that hold {separator!r} in quotes",
                    line=skipped + rows.line_num,
                )
            prompts += row[column : column + 1]
    except csv.Error as error:
        line = skipped + rows.line_num
        raise CalibrationError(
            f"{shown} is no table in line {line}: {error}.", "check the quotes, or save it anew as CSV", line=line
        ) from error
    return [text for text in map(_one_line, prompts) if text]


def _which_column(shown: str, header: list[str]) -> int:
    names = [name.lower() for name in header]
    found = next((names.index(name) for name in COLUMNS if name in names), None)
    if found is None and len(header) > 1:
        columns = ", ".join(name[:40] for name in header)
        raise CalibrationError(
            f"{shown} has no column named prompt, text, caption or positive.",
            f"rename one of its columns: {columns[:400]}",
            columns=header,
        )
    return found or 0


def _parse_yaml(shown: str, text: str) -> tuple[list[str], list[str]]:
    try:
        import yaml
    except ImportError as error:
        raise DependencyError(
            "YAML files need PyYAML.", "pip install pyyaml, or use a .txt, .csv or .json file"
        ) from error
    depth = 0
    try:
        # Aliases and merged mappings make gigabytes of a few lines, so nothing is built before all was looked at.
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            if number > MANY:
                raise CalibrationError(f"{shown} holds more than {MANY} values.", "use a .txt file for so many prompts")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise CalibrationError(
                    f"{shown} is no plain list in line {event.start_mark.line + 1}.",
                    "write the prompts as a list, without &, *, ! and lists in lists",
                    line=event.start_mark.line + 1,
                )
        data = yaml.safe_load(text)
    # Dates that do not exist and endless numbers are plain ValueErrors.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, CalibrationError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise CalibrationError(
            f"{shown} is no YAML{where}.", "put prompts that hold : # or quotes in quotes", problem=str(error)[:200]
        ) from error
    return _sets(shown, data)


def _parse_json(shown: str, text: str) -> tuple[list[str], list[str]]:
    # Not as YAML, which JSON nearly is: pairs of \u escapes and tabs differ.
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise CalibrationError(f"{shown} is no JSON in line {line}.", "check quotes and commas", line=line) from error
    return _sets(shown, data)


def _sets(shown: str, data: object) -> tuple[list[str], list[str]]:
    if not isinstance(data, dict):
        return _entries(shown, data, "the file"), []
    if "prompts" not in data:
        keys = ", ".join(str(key)[:40] for key in data)
        raise CalibrationError(f"{shown} has no list named prompts.", f"rename one of these: {keys[:400]}")
    second = [text for key in VERDICT_KEYS for text in _entries(shown, data.get(key) or [], key)]
    return _entries(shown, data["prompts"], "prompts"), second


def _entries(shown: str, data: object, where: str) -> list[str]:
    """The texts of a list. Errors name kinds, not values, which may be large."""
    if not isinstance(data, list):
        raise CalibrationError(
            f"{shown}: {where} holds {_kind(data)}, not a list.", 'start the line of each prompt with "- "'
        )
    texts = []
    for number, entry in enumerate(data, 1):
        if isinstance(entry, dict):
            names = {str(key).lower(): value for key, value in entry.items()}
            entry = next((names[name] for name in COLUMNS if name in names), entry)
        if not isinstance(entry, str):
            raise CalibrationError(
                f"{shown}: entry {number} of {where} is {_kind(entry)}, not a prompt.",
                'put it in quotes if it is one, or name it "prompt"',
                entry=number,
            )
        texts.append(_one_line(entry))
    return [text for text in texts if text]


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
