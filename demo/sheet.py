"""Where each drawing lies on the one sheet that is kept beside the weights."""

from __future__ import annotations

WIDTHS = (40, 56, 96)
"""Pixels of a small thing, of a large one beside another, and of a large one alone."""

CELL_WIDTH, CELL_HEIGHT = sum(WIDTHS), max(WIDTHS)
COLUMNS = 6


def corner(index: int, width: int) -> tuple[int, int]:
    """(x, y) on the sheet of thing ``index``'s drawing that is ``width`` pixels wide."""
    row, column = divmod(index, COLUMNS)
    return column * CELL_WIDTH + sum(WIDTHS[: WIDTHS.index(width)]), row * CELL_HEIGHT
