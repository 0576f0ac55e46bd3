"""Prompts of a table: .csv and .tsv."""

from __future__ import annotations

import csv
import io
import re

from .core import CalibrationError
from .prompt_lines import COLUMNS, MAX_VALUES, Notes, is_comment, one_line, too_many

MAX_HEADER_LENGTH = 100_000
"""Characters of a table's first line: each separator is tried on it."""

SEPARATORS = ",;\t|"

_SEP_LINE = r'(?i)"?sep=([,;\t|])"?'
"""Excel's own first line of a CSV file."""


def parse_csv(label: str, text: str, notes: Notes) -> tuple[list[str], list[str]]:
    table, above, separator = _below_comments(label, text, notes)
    return _column(label, table, above, separator or _separator(label, table), notes), []


def parse_tsv(label: str, text: str, notes: Notes) -> tuple[list[str], list[str]]:
    table, above, separator = _below_comments(label, text, notes)
    return _column(label, table, above, separator or "\t", notes), []


def _below_comments(label: str, text: str, notes: Notes) -> tuple[str, int, str]:
    """(The table, how many lines stand above it, the separator that Excel's line names or ""). A column may be
    named #."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    start = number = comments = 0
    separator = ""
    while start < len(text):
        if number > MAX_VALUES:
            raise too_many(label, "lines above its first row", MAX_VALUES)
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end].strip()
        if match := re.fullmatch(_SEP_LINE, text[start:end].strip(" ")) if not separator else None:
            separator = match[1]
        elif line and (not is_comment(line) or line[1:2] in tuple(SEPARATORS)):
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


def _column(label: str, table: str, above: int, separator: str, notes: Notes) -> list[str]:
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
                raise too_many(label, "rows", MAX_VALUES)
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
