"""Parameters of a test where any two of three meet, and not any three: a third of the runs, or half of them."""

from __future__ import annotations

from collections.abc import Sequence


def pairs(rows: Sequence, columns: Sequence, others: Sequence) -> list[tuple]:
    """Every row with every column, and ``others`` in turn."""
    return [
        (row, column, others[(i + j) % len(others)]) for i, row in enumerate(rows) for j, column in enumerate(columns)
    ]
