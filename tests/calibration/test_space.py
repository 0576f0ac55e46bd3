"""Few numbers -> coefficients: ends, pins, one step, and the border of the trust region."""

from __future__ import annotations

import numpy as np
import pytest

from calibration import Settings
from calibration.choices import SPACES
from calibration.search.space import Space
from qsched_core import Coefficients

AXES = {
    "both ends": ("c_x_first", "c_x_last", "c_eps_first", "c_eps_last"),
    "first step": ("c_x_first", "c_eps_first"),
    "last step": ("c_x_last", "c_eps_last"),
    "constant": ("c_x", "c_eps"),
    "table": ("c_x_1", "c_x_2", "c_x_3", "c_x_4", "c_eps_1", "c_eps_2", "c_eps_3", "c_eps_4"),
}
POINT = {
    "c_x": 1.1,
    "c_eps": 0.9,
    "c_x_first": 1.02,
    "c_x_last": 0.96,
    "c_eps_first": 0.94,
    "c_eps_last": 1.1,
}


def space(name: str, steps: int = 4, radius: float = 0.2) -> Space:
    return Space(Settings(space=name, radius=radius), steps)


def point(name: str, steps: int = 4) -> dict[str, float]:
    return {axis: POINT[axis] for axis in space(name, steps).axes}


TABLE = Coefficients((1.02, 0.97, 1.1, 0.9), (0.94, 1.05, 1.0, 1.15))


def test_every_space_is_tested_here():
    assert set(AXES) == set(SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_the_axes_and_their_bounds(name):
    result = space(name, radius=0.15)
    assert result.axes == AXES[name]
    assert (result.low, result.high) == (0.85, 1.15)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("steps", [2, 3, 16])
def test_two_steps_have_the_axes_of_many(name, steps):
    table = tuple(f"{curve}_{step}" for curve in ("c_x", "c_eps") for step in range(1, steps + 1))
    assert space(name, steps).axes == (table if name == "table" else AXES[name])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_identity_of_every_space_is_the_stock_sampler(name, steps):
    result = space(name, steps)
    assert set(result.identity()) == set(result.axes)
    assert result.coefficients(result.identity()) == Coefficients.identity(steps)


def test_both_ends_are_straight_lines():
    result = space("both ends").coefficients(point("both ends"))
    # By hand: 1.02 - 0.02·i and 0.94 + i·0.16/3. 1e-15: a few roundings of numbers near 1.
    assert result.c_x == pytest.approx((1.02, 1.0, 0.98, 0.96), abs=1e-15)
    assert result.c_eps == pytest.approx((0.94, 0.94 + 0.16 / 3, 0.94 + 0.32 / 3, 1.1), abs=1e-15)


def test_the_first_step_is_searched_and_the_last_is_one():
    """The paper's form."""
    result = space("first step").coefficients(point("first step"))
    assert (result.at(0), result.at(3)) == ((1.02, 0.94), (1.0, 1.0))


def test_the_last_step_is_searched_and_the_first_is_one():
    result = space("last step").coefficients(point("last step"))
    assert (result.at(0), result.at(3)) == ((1.0, 1.0), (0.96, 1.1))


def test_constant_is_one_pair_for_all_steps():
    assert space("constant").coefficients(point("constant")) == Coefficients((1.1,) * 4, (0.9,) * 4)


@pytest.mark.parametrize(
    ("name", "axes", "pair"),
    [
        ("both ends", ("c_x_first", "c_eps_first"), (1.02, 0.94)),
        ("first step", ("c_x_first", "c_eps_first"), (1.02, 0.94)),
        ("last step", ("c_x_last", "c_eps_last"), (0.96, 1.1)),
        ("constant", ("c_x", "c_eps"), (1.1, 0.9)),
    ],
)
def test_over_one_step_every_axis_left_does_something(name, axes, pair):
    """A line over one step is a point: nobody should search for an end that has no effect."""
    result = space(name, steps=1)
    assert result.axes == axes
    assert result.coefficients(point(name, steps=1)).at(0) == pair


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_axis_changes_the_coefficients(name, steps):
    result = space(name, steps)
    for axis in result.axes:
        assert not result.coefficients({**result.identity(), axis: 1.1}).is_identity


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("radius", [0.01, 0.5])
def test_the_corners_of_the_trust_region_are_coefficients(name, radius):
    result = space(name, radius=radius)
    for edge in (result.low, result.high):
        assert len(result.coefficients(dict.fromkeys(result.axes, edge))) == 4


def test_the_border_is_two_percent_of_the_width():
    result = space("first step", radius=0.25)  # 0.75 … 1.25, margin 0.01
    cases = {0.75: True, 0.7599: True, 0.7601: False, 1.0: False, 1.2399: False, 1.2401: True, 1.25: True}
    assert {value: bool(result.on_border({"c_x_first": value, "c_eps_first": 1.0})) for value in cases} == cases


def test_the_axes_on_the_border_are_named():
    result = space("both ends")
    assert result.on_border({**result.identity(), "c_eps_last": 1.2}) == ("c_eps_last",)
    assert result.on_border(dict.fromkeys(result.axes, 0.8)) == result.axes
    assert result.on_border(result.identity()) == ()


def test_a_table_has_two_numbers_per_step():
    result = space("table")
    numbers = dict(zip(result.axes, TABLE.c_x + TABLE.c_eps, strict=True))
    assert result.coefficients(numbers) == TABLE
    assert result.on_border({**numbers, "c_x_2": 0.8}) == ("c_x_2",)


def test_some_steps_of_a_table_stand_on_the_others():
    result = Space(Settings(space="table", radius=0.2), 4, steps=(2,), base=TABLE)
    assert result.axes == ("c_x_3", "c_eps_3")
    assert result.coefficients({"c_x_3": 0.95, "c_eps_3": 1.2}) == Coefficients(
        (1.02, 0.97, 0.95, 0.9), (0.94, 1.05, 1.2, 1.15)
    )


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_nearest_point_to_a_space_s_own_curves_is_theirs(name, steps):
    result = space(name, steps)
    values = {axis: 0.9 + 0.03 * number for number, axis in enumerate(result.axes)}
    # 1e-12: least squares of a handful of numbers.
    assert result.nearest(result.coefficients(values)) == pytest.approx(values, abs=1e-12)


def test_the_nearest_point_to_other_curves_is_the_least_squares_line_inside_the_region():
    nearest = space("both ends").nearest(TABLE)
    line = np.polyfit(range(4), TABLE.c_x, 1)
    # 1e-12: two ways to the same line.
    assert (nearest["c_x_first"], nearest["c_x_last"]) == pytest.approx(np.polyval(line, [0, 3]), abs=1e-12)
    far = space("constant").nearest(Coefficients((1.5,) * 4, (0.2,) * 4))
    assert far == {"c_x": 1.2, "c_eps": 0.8}
