"""Plain-text tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"


def format_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out `rows` under `columns`; each row's "name" stands first. What a row does not have is shown as a dash."""
    cells = [["", *columns]]
    cells += [[str(row["name"]), *(format_cell(row.get(column)) for column in columns)] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [_aligned(line, widths) for line in cells]
    return "\n".join([lines[0], "-" * sum(widths, 2 * len(columns)), *lines[1:]])


def format_cell(value: Any) -> str:
    """Numbers below 100 with three decimals, larger ones with one; whole numbers and text as they are."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *values = cells
    return "  ".join([name.ljust(widths[0]), *(v.rjust(w) for v, w in zip(values, widths[1:], strict=True))]).rstrip()
