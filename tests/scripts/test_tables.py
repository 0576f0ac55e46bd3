"""Plain-text tables."""

import pytest

from scripts.tables import format_cell, format_table


def test_a_table_is_aligned_and_complete():
    rows = [
        {"name": "full precision", "TC": 0.91249, "weights MB": 9.2},
        {"name": "quantised", "TC": 0.7, "weights MB": 1234.56},
        {"name": "other", "TC": None},
    ]
    assert format_table(["TC", "weights MB"], rows).splitlines() == [
        "                   TC  weights MB",
        "---------------------------------",
        "full precision  0.912       9.200",
        "quantised       0.700     1,234.6",
        "other               –           –",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500"), (-3.14159, "-3.142"), (123.456, "123.5"), (12, "12"), (9876543, "9,876,543"), (True, "yes")],
)
def test_cells(value, text):
    assert format_cell(value) == text


def test_text_stays_as_it_is():
    assert format_cell("W4A8") == "W4A8"
