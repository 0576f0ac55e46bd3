"""What a person reads off the map of a search, by its own axes and legend, is what it was drawn from."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.plots.canvas import BAND, FAINT, GRID, INK, PAPER
from calibration.plots.search_map import jaq_map
from qsched_core import Coefficients

sys.path.append(str(Path(__file__).parent))

from sheets import centre, near, reading, sheet_of, space, trials_of  # noqa: E402


def panels_of(sheet):
    """(the marks inside, to values of c_x, to values of c_eps) of each panel, by the numbers at its edges."""
    for box in sheet.of("box", PAPER):
        left, right, top, bottom = box.left - 0.1, box.right + 0.1, box.top - 0.1, box.bottom + 0.1
        across = [mark for mark in sheet.numbers() if left <= mark.x <= right and 0 < mark.y - bottom < 60]
        up = [mark for mark in sheet.numbers() if 0 < left - mark.x < 60 and top <= mark.y <= bottom]
        assert len({mark.y for mark in across}) == len({mark.x for mark in up}) == 1
        yield box, across, up


MAPS = [("constant", 4, 1), ("both ends", 4, 2), ("table", 16, 3)]


@pytest.mark.parametrize(("kind", "n_steps", "count"), MAPS)
def test_a_map_s_candidates_stand_at_their_coefficients(kind, n_steps, count):
    own = space(kind, n_steps)
    trials, best = trials_of(own), Coefficients.ramp(n_steps, c_x=(0.9, 1.1), c_eps=(1.15, 0.85))
    sheet = sheet_of(jaq_map, trials, own, best)
    panels = list(panels_of(sheet))
    steps = {1: (0,), 2: (0, 3), 3: (0, 8, 15)}[count]
    assert len(panels) == count
    for (box, across, up), step in zip(panels, steps, strict=True):
        c_x, c_eps = reading(across, "x"), reading(up, "y")

        def read(kind, colour, c_x=c_x, c_eps=c_eps, box=box):
            marks = [m for m in sheet.of(kind, colour) if box.left < m.x < box.right and m.y < box.bottom]
            return sorted((float(c_x(m.x)), float(c_eps(m.y))) for m in marks)

        def at_step(some, step=step):
            return sorted(own.coefficients(trial.point).at(step) for trial in some)

        scored = [trial for trial in trials[1:] if math.isfinite(trial.value)]
        assert read("dot", INK) == near(at_step(trial for trial in scored if trial.whole))
        assert read("dot", PAPER) == near(at_step(trial for trial in scored if not trial.whole))
        assert read("saltire", FAINT) == near(at_step(trial for trial in trials if math.isnan(trial.value)))
        assert read("cross", INK) == near([(1, 1)])
        assert read("ring", INK) == near([best.at(step)])


@pytest.mark.parametrize(("kind", "n_steps", "count"), MAPS)
def test_a_map_s_panel_is_the_region_with_a_grid_at_its_numbers(kind, n_steps, count):
    own = space(kind, n_steps)
    sheet = sheet_of(jaq_map, trials_of(own), own, Coefficients.identity(n_steps))
    bands = sheet.of("box", BAND)
    for (box, across, up), band in zip(panels_of(sheet), bands, strict=True):
        c_x, c_eps = reading(across, "x"), reading(up, "y")
        assert [c_x(box.left), c_x(box.right)] == near([own.low, own.high])
        assert [c_eps(box.bottom), c_eps(box.top)] == near([own.low, own.high])
        extents = {(mark.left, mark.top, mark.right, mark.bottom) for mark in sheet.of("frame")}
        assert (box.left, box.top, box.right, box.bottom) in extents
        assert centre(band) == near(centre(box))
        assert box.left - band.left == near(band.bottom - box.bottom) and box.left - band.left > 8
        grid = [line for line in sheet.of("line", GRID) if band.left < line.left <= line.right < band.right]
        upright = sorted(line.x for line in grid if (line.top, line.bottom) == (box.top, box.bottom))
        level = sorted(line.y for line in grid if (line.left, line.right) == (box.left, box.right))
        assert upright == sorted(mark.x for mark in across) and level == sorted(mark.y for mark in up)
        # Where c_x is c_eps.
        (diagonal,) = (line for line in sheet.of("line", FAINT) if line.x == box.left and line.right == box.right)
        assert (diagonal.y, diagonal.top) == (box.bottom, box.top)


def test_titles_of_a_map_stand_in_the_middle_of_their_panels():
    own = space("table", 16)
    sheet = sheet_of(jaq_map, trials_of(own), own, Coefficients.identity(16))
    middles = [centre(box)[0] for box in sheet.of("box", PAPER)]
    for name in ("step 1 of 16", "step 9 of 16", "step 16 of 16"):
        assert sheet.words(name).x == near(middles.pop(0))
    names = [mark.x for mark in sheet.of("text") if mark.text == "c_x"]
    assert names == near([centre(box)[0] for box in sheet.of("box", PAPER)])


def test_a_panel_of_a_map_that_is_small_has_fewer_numbers():
    counts = []
    for kind, n_steps, _ in MAPS:
        own = space(kind, n_steps, radius=0.25)
        sheet = sheet_of(jaq_map, trials_of(own), own, Coefficients.identity(n_steps))
        counts.append(len(next(panels_of(sheet))[1]))
    assert counts[0] == counts[1] > counts[2] > 2


def test_the_scale_of_a_map_has_its_numbers_under_their_colours():
    own = space("constant")
    trials = trials_of(own)
    sheet = sheet_of(jaq_map, trials, own, Coefficients.identity(4))
    stripes = [box for box in sheet.of("box") if box.right - box.left == 1]
    left, right = stripes[0].left, stripes[-1].right
    assert [stripe.left for stripe in stripes[1:]] == [stripe.right for stripe in stripes[:-1]], "no gaps"
    best = max(trial.value for trial in trials if math.isfinite(trial.value)) - trials[0].value
    marks = [mark for mark in sheet.of("text", FAINT) if stripes[0].bottom < mark.y < stripes[0].bottom + 20]
    # Losses take as much room as gains, and are twice as large at their end.
    gains = [
        (2 * best if place > 0.5 else 4 * best) * (place - 0.5)
        for place in ((m.x - left) / (right - left) for m in marks)
    ]
    assert [float(mark.text.removeprefix("<")) for mark in marks] == near(gains, 0.001 + 0.005 * best)
    assert [mark.text[0] for mark in marks] == ["<", "-", "0", "+"]
    ticks = [line for line in sheet.of("line", FAINT) if line.left == line.right]
    assert [line.x for line in ticks] == [mark.x for mark in marks]
    for tick, mark in zip(ticks, marks, strict=True):
        assert stripes[0].bottom <= tick.top < tick.bottom < mark.top


def test_candidates_have_the_colour_of_their_gain_on_the_scale():
    own = space("constant")
    trials = trials_of(own)
    sheet = sheet_of(jaq_map, trials, own, Coefficients.identity(4))
    ((_, across, up),) = panels_of(sheet)
    c_x, c_eps = reading(across, "x"), reading(up, "y")
    stripes = [box for box in sheet.of("box") if box.right - box.left == 1]
    scored = [trial for trial in trials[1:] if math.isfinite(trial.value)]
    best = max(trial.value for trial in scored) - trials[0].value
    dots = [m for m in sheet.of("dot") if m.y < across[0].y and m.colour not in (INK, FAINT, PAPER)]
    assert len(dots) == len(scored)
    for dot in dots:
        at = np.array([c_x(dot.x), c_eps(dot.y)])
        trial = min(scored, key=lambda trial: abs(own.coefficients(trial.point).at(0) - at).max())
        gain = trial.value - trials[0].value
        share = max(0.5 + gain / best / (2 if gain > 0 else 4), 0)
        expected = stripes[min(int(share * len(stripes)), len(stripes) - 1)].colour
        assert np.abs(np.subtract(dot.colour, expected)).max() <= 3


def test_the_legend_of_a_map_goes_on_below_where_it_is_wide():
    own = space("constant")
    sheet = sheet_of(jaq_map, trials_of(own, 2000), own, Coefficients.identity(4))
    texts = [mark for mark in sheet.of("text", INK) if mark.y > sheet.words("c_x").y][1:]
    assert len({text.y for text in texts}) == 2
    assert texts[0].x == min(text.x for text in texts if text.y > texts[0].y)
