"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10


def decimals(values: Sequence[float], digits: int = 3) -> int:
    """How many decimals show the largest of ``values`` with ``digits`` significant digits."""
    largest = max(map(abs, values), default=0.0)
    return min(9, max(0, digits - 1 - floor(log10(largest)))) if largest > 0 else digits
