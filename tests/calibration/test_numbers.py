"""Numbers as people read them: as many decimals as the largest needs for its digits."""

from __future__ import annotations

import pytest

from calibration.numbers import decimals


@pytest.mark.parametrize(
    ("largest", "text"),
    [
        (0.012345, "0.0123"),
        (0.1, "0.100"),
        (0.98765, "0.988"),
        (1.0, "1.00"),
        (9.8765, "9.88"),
        (98.765, "98.8"),
        (987.65, "988"),
        (98765.4, "98765"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_number_has_three_digits_that_count(largest, text, sign):
    values = [0.0, largest / 50, sign * largest, -largest / 3]
    assert f"{largest:.{decimals(values)}f}" == text
    assert decimals(values, 2) == max(0, decimals(values) - 1) and decimals(values, 4) >= decimals(values)


def test_nothing_but_zero_has_as_many_decimals_as_digits():
    assert (decimals([]), decimals([0.0]), decimals([0.0], 2)) == (3, 3, 2)


def test_no_number_is_longer_than_a_line():
    assert f"{1e-300:.{decimals([1e-300])}f}" == "0.000000000"
