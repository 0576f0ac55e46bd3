"""The sheet that charts are drawn on: shapes have the place, the size and the colour that was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.plots.canvas import Canvas, padded, ticks

BLUE = (0, 114, 178)


def ink(canvas: Canvas, colour=BLUE) -> np.ndarray:
    """(height, width): how much of each pixel is covered; the paper is white."""
    picture = np.asarray(canvas.image()).astype(float)
    return ((255 - picture) @ (255 - np.array(colour))) / ((255 - np.array(colour)) ** 2).sum()


SHAPES = {
    "box": (lambda c: c.box((20, 30), (60, 80), BLUE), (20, 30, 60, 80), 40 * 50),
    "frame": (lambda c: c.frame((20, 30), (60, 80), BLUE, 2), (20, 30, 60, 80), 40 * 50 - 36 * 46),
    "level line": (lambda c: c.line((20, 50), (80, 50), BLUE, 4), (20, 48, 80, 52), 60 * 4),
    "upright line": (lambda c: c.line((50, 20), (50, 80), BLUE, 4), (48, 20, 52, 80), 60 * 4),
    "hair": (lambda c: c.line((20, 50), (80, 50), BLUE, 0.01), (20, 50, 80, 50), 60 / 3),
    "dot": (lambda c: c.dot(50, 40, 20, BLUE), (30, 20, 70, 60), math.pi * 20**2),
    "ring": (lambda c: c.ring(50, 40, 20, BLUE, 5), (30, 20, 70, 60), math.pi * (20**2 - 15**2)),
    "cross": (lambda c: c.cross(50, 40, 20, BLUE, 4), (30, 20, 70, 60), 2 * 40 * 4 - 4 * 4),
    "saltire": (lambda c: c.saltire(50, 40, 20, BLUE, 4), (30, 20, 70, 60), 2 * math.hypot(40, 40) * 4 - 4 * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_its_extent_its_area_and_its_middle(name):
    draw, (left, top, right, bottom), area = SHAPES[name]
    canvas = Canvas(100, 90)
    draw(canvas)
    cover = ink(canvas)
    assert cover.shape == (90, 100)
    rows, columns = (np.flatnonzero((cover > 0.2).any(axis)) for axis in (1, 0))
    edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    assert np.abs(np.subtract(edges, (left, top, right, bottom))).max() <= 2
    # PIL draws the last pixel too, a third of one of ours.
    assert cover.sum() == pytest.approx(area, abs=max(5, 0.1 * area))
    down, across = ((np.arange(n) + 0.5) @ cover.sum(axis) / cover.sum() for n, axis in ((90, 1), (100, 0)))
    assert (across, down) == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=0.4)


def test_a_cross_stands_upright_and_a_saltire_on_its_side():
    covers = []
    for name in ("cross", "saltire"):
        canvas = Canvas(100, 90)
        SHAPES[name][0](canvas)
        covers.append(ink(canvas))
    corners = [(40 + down, 50 + across) for down in (-15, 15) for across in (-15, 15)]
    ends = [(40 - 15, 50), (40 + 15, 50), (40, 50 - 15), (40, 50 + 15)]
    for cover, ink_at, paper_at in ((covers[0], ends, corners), (covers[1], corners, ends)):
        assert all(cover[place] > 0.9 for place in ink_at)
        assert all(cover[place] < 0.1 for place in paper_at)
    assert all(cover[40, 50] > 0.9 for cover in covers)


def test_a_frame_and_a_ring_are_hollow():
    canvas = Canvas(100, 90)
    SHAPES["frame"][0](canvas)
    SHAPES["ring"][0](canvas)
    assert ink(canvas)[40, 50] < 0.01


@pytest.mark.parametrize(("anchor", "share"), [("lm", 0), ("mm", 0.5), ("rm", 1)])
def test_writing_stands_at_its_anchor_and_its_end_follows_from_its_width(anchor, share):
    canvas = Canvas(200, 60)
    width = canvas.width("HHHHH", 20)
    assert canvas.text(100, 30, "HHHHH", 20, BLUE, anchor=anchor) == pytest.approx(100 + width)
    cover = ink(canvas)
    rows, columns = (np.flatnonzero((cover > 0.2).any(axis)) for axis in (1, 0))
    assert (columns[0], columns[-1] + 1) == pytest.approx((100 - share * width, 100 + (1 - share) * width), abs=3)
    assert (rows[0] + rows[-1] + 1) / 2 == pytest.approx(30, abs=4)
    assert 60 < width < 80, "a capital H is about as wide as it is high"
    assert canvas.width("HHHHH", 40) == pytest.approx(2 * width, rel=0.02)


def test_a_text_that_just_fits_is_not_cut():
    canvas = Canvas(10, 10)
    for text in ("a red circle", "WWWW", "i"):
        width = canvas.width(text, 14)
        assert canvas.fitted(text, 14, width) == text
        assert canvas.fitted(text, 14, width - 0.5) != text


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([2.0, 4.0, 3.0], 1.9, 4.1),
        ([-4.0, -2.0], -4.1, -1.9),
        ([-1.0, 1.0], -1.1, 1.1),
        ([1000.0, 1001.0], 999.95, 1001.05),
        ([8.0, 8.0], 7.6, 8.4),
        ([-8.0], -8.4, -7.6),
        ([0.0, 0.0], -0.05, 0.05),
        ([], -0.05, 1.05),
    ],
)
def test_an_axis_goes_a_twentieth_beyond_its_values_and_is_never_empty(values, low, high):
    assert padded(values) == pytest.approx((low, high))


def test_values_that_differ_by_their_rounding_alone_are_one_value():
    low, high = padded([1e9, 1e9 + 1e-3])
    assert high - low == pytest.approx(1e8)
    assert len(ticks(low, high, 6)) > 1


@pytest.mark.parametrize("low", [0.0, -0.37, 812.3])
@pytest.mark.parametrize("width", [1e-4, 0.03, 0.9, 1.0, 7.0, 10.0, 4.2e5])
@pytest.mark.parametrize("most", [3, 4, 6, 8])
def test_ticks_are_all_multiples_of_the_finest_round_step_that_fits(low, width, most):
    """Regression: where rounding put an end of the axis just outside of it, there was one tick too many."""
    high = low + width
    places = ticks(low, high, most)
    assert len(places) <= most
    steps = [factor * 10.0**power for power in range(-7, 7) for factor in (1, 2, 5)]
    counts = {step: math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) + 1 for step in steps}
    step = min(step for step, count in counts.items() if count <= most)
    assert len(places) == counts[step]
    assert np.allclose(np.array(places) / step, np.round(np.array(places) / step), atol=1e-6)
