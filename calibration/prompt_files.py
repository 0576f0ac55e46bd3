"""Lists of prompts as people keep them, in text, tables and lists; every line that is no prompt is counted.

Files come from strangers: the work for a byte is bounded whatever stands in it, and what is too large is refused first.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from .core import CalibrationError
from .prompt_lines import BREAKS, MAX_VALUES, Notes, is_comment, lines_of, one_line, too_many
from .prompt_lists import parse_json, parse_yaml
from .prompt_tables import parse_csv, parse_tsv

MAX_FILE_BYTES = 4 * 1024**2
"""Bytes of a file: 100 000 prompts of usual length; reading them takes less than a second."""


class PromptTexts(NamedTuple):
    """What was read: ``texts`` in order, repeated ones too, those of a second set in ``verdict``, and a ``note`` that
    counts what was read and what was skipped, and why ("" where nothing has to be said)."""

    texts: list[str]
    verdict: list[str]
    note: str


def read_lines(text: str) -> PromptTexts:
    """Prompts of a text, one per line. Blank lines and # comments are left out; a number or a colour behind the # makes
    it a prompt. Only line feeds and carriage returns end a line.

    Raises:
        CalibrationError: more than 100 000 lines.
    """
    # Notepad starts UTF-8 files with a byte order mark.
    lines = lines_of(BREAKS.sub(" ", text.removeprefix("\ufeff")))
    if len(lines) > MAX_VALUES:
        raise CalibrationError(f"there are more than {MAX_VALUES} lines of prompts.", "give fewer", lines=len(lines))
    texts = [one_line(line) for line in lines if not is_comment(line)]
    notes = Notes()
    notes.skip("comment line", len(lines) - len(texts))
    return PromptTexts(texts, [], str(notes))


def parse_file(name: str, content: bytes) -> PromptTexts:
    """Prompts of a file that holds one set, see ``parse_sets``.

    Raises:
        CalibrationError: as ``parse_sets``, or the file has a second set.
        DependencyError: a YAML file, and PyYAML is not installed.
    """
    sets = parse_sets(name, content)
    if sets.verdict:
        raise CalibrationError(f"{_short_name(name)} has a second set, too.", "leave one list in this file")
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
    label, kind = _short_name(name), name.rpartition(".")[2].lower()
    if kind not in _PARSERS:
        raise CalibrationError(f"{label} is no list of prompts.", "use .txt, .csv, .tsv, .yaml, .yml or .json")
    if len(content) > MAX_FILE_BYTES:
        raise CalibrationError(f"{label} is larger than 4 MiB.", "give a part of it: no study reads so many prompts")
    notes = Notes()
    first, second = _PARSERS[kind](label, _decoded(label, content), notes)
    texts, verdict = ([text for text in texts if text] for texts in (first, second))
    notes.skip("empty prompt", len(first) + len(second) - len(texts) - len(verdict))
    # Without its name: the note goes into presets, which people share.
    count = len(texts) + len(verdict)
    notes.parts.insert(0, f"{count} prompt{'s' * (count != 1)} read from a .{kind} file")
    return PromptTexts(texts, verdict, str(notes))


def _short_name(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:12]}…{name[-27:]}")


def _decoded(label: str, content: bytes) -> str:
    """Notepad's "Unicode" is UTF-16."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{label} is no UTF-8 text.", "save it as UTF-8", byte=error.start) from error
    if "\0" in text:
        raise CalibrationError(f"{label} is no text.", "save it as UTF-8", byte=text.index("\0"))
    return BREAKS.sub(" ", text)


def _parse_text(label: str, text: str, notes: Notes) -> tuple[list[str], list[str]]:
    lines = lines_of(text)
    if len(lines) > MAX_VALUES:
        raise too_many(label, "lines", MAX_VALUES)
    texts = [one_line(line) for line in lines if not is_comment(line)]
    notes.skip("comment line", len(lines) - len(texts))
    return texts, []


_PARSERS = {
    "txt": _parse_text,
    "csv": parse_csv,
    "tsv": parse_tsv,
    "yaml": parse_yaml,
    "yml": parse_yaml,
    "json": parse_json,
}
