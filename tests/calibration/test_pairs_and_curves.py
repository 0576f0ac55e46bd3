"""What a person reads off plots of prompts and of coefficients, by their own axes, is what they were drawn from."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration import validate
from calibration.plots.canvas import BAND, FAINT, GAIN, GRID, INK, LOSS
from calibration.plots.curves import curves
from calibration.plots.paired_gains import paired_plot
from qsched_core import Coefficients

sys.path.append(str(Path(__file__).parent))

from sheets import GAINS, RAMP, centre, near, reading, rows, sheet_of  # noqa: E402

# --- prompt by prompt


def row_of_numbers(sheet) -> float:
    """Where the axis of the scores is."""
    heights = [mark.y for mark in sheet.numbers()]
    return next(height for height in heights if heights.count(height) > 2)


def test_pairs_stand_at_their_scores_on_the_line_of_their_prompt():
    prompts = [f"prompt {name}" for name in "abcdef"]
    identity, candidate = rows(GAINS)
    sheet = sheet_of(paired_plot, identity, candidate, 6, prompts=prompts)
    axis = row_of_numbers(sheet)
    score = reading(sheet.numbers(y=axis), "x")
    lines = [line for line in sheet.of("line") if line.top == line.bottom and line.y < axis]
    order = [5, 0, 3, 2, 1]  # the best gain first; prompt 4 could not be scored
    assert len(lines) == len(order)
    for line, prompt in zip(lines, order, strict=True):
        before, after = identity.scores["jaq"][prompt], candidate.scores["jaq"][prompt]
        dots = [mark for mark in sheet.of("dot") if mark.y == line.y]
        assert [float(score(mark.x)) for mark in dots] == near([before, before, after])
        assert [float(score(line.left)), float(score(line.right))] == near(sorted((before, after)))
        assert sheet.words(prompts[prompt]).y == line.y
        (number,) = (mark for mark in sheet.numbers(y=line.y) if mark.x < 60)
        assert int(number.text) == prompt + 1
        (gain,) = (mark for mark in sheet.of("text") if mark.y == line.y and mark.text[0] in "+-")
        assert float(gain.text) == near(GAINS[prompt], 0.0005) and gain.colour == line.colour
    assert sheet.words("not scored").y == sheet.words(prompts[4]).y


def test_a_pair_starts_at_the_pictures_that_were_scored_both_before_and_after():
    identity, candidate = rows((0.3, -0.2, 0.1))
    identity.scores["jaq"][:3] = candidate.scores["jaq"][:3] = 0.9, 0.8, 0.7
    candidate.scores["jaq"][0] = math.nan
    identity.scores["jaq"][1] = math.nan
    sheet = sheet_of(paired_plot, identity, candidate, 3)
    axis = row_of_numbers(sheet)
    score = reading(sheet.numbers(y=axis), "x")
    starts = {}
    for line in (line for line in sheet.of("line") if line.top == line.bottom and line.y < axis):
        (number,) = (mark.text for mark in sheet.numbers(y=line.y) if mark.x < 60)
        starts[int(number)] = [float(score(place)) for place in (line.x, line.left + line.right - line.x)]
    # A picture that was not scored in either row is no gain: half of the other one's is left.
    assert starts[1] == near((0.5, 0.5 + 0.3 / 2)) and starts[2] == near((0.51, 0.51 - 0.2 / 2))
    assert starts[3] == near(((0.7 + 0.52) / 2, (0.7 + 0.52) / 2 + 0.1 / 2))


def test_gains_of_pairs_stand_at_their_values_with_their_mean_and_its_interval():
    gains = [gain for gain in GAINS if math.isfinite(gain)]
    identity, candidate = rows(gains)
    total = validate.paired_gain(identity, candidate, "jaq", len(gains), 0.9)
    sheet = sheet_of(paired_plot, identity, candidate, len(gains), confidence=0.9)
    (band,) = sheet.of("box", BAND)
    numbers = [mark for mark in sheet.numbers() if mark.y > band.bottom]
    value = reading(numbers, "x")
    inside = [mark for mark in sheet.of("line") if band.top <= mark.top and mark.bottom <= band.bottom]
    strokes = [line for line in inside if line.left == line.right]
    full = [line for line in strokes if (line.top, line.bottom) == (band.top, band.bottom)]
    assert sorted(line.x for line in full if line.colour == GRID) == sorted(mark.x for mark in numbers)
    assert [float(value(line.x)) for line in full if line.colour == INK] == near([0])
    own_strokes = [line for line in strokes if line not in full and line.bottom < centre(band)[1]]
    assert sorted(float(value(line.x)) for line in own_strokes) == near(sorted(gains))
    for line in own_strokes:
        gain = float(value(line.x))
        assert line.colour == (FAINT if abs(gain) < 1e-9 else GAIN if gain > 0 else LOSS)
    (interval,) = (line for line in inside if line.top == line.bottom)
    assert [float(value(interval.left)), float(value(interval.right))] == near([total.low, total.high])
    ends = [line.x for line in strokes if line.top < interval.y < line.bottom and line not in full]
    assert ends == [interval.left, interval.right]
    assert [float(value(dot.x)) for dot in sheet.of("dot") if dot.y == interval.y] == near([total.gain] * 2)
    # The band goes beyond the axis on both sides alike.
    values = [*gains, total.low, total.high, 0.0]
    middle = (min(values) + max(values)) / 2
    assert float(value(centre(band)[0])) == near(middle)
    assert value(band.left) < min(values) and max(values) < value(band.right)


def test_what_stands_beside_the_gains_of_pairs_is_level_with_them():
    sheet = sheet_of(paired_plot, *rows(GAINS[:3]), 3)
    strokes = [line for line in sheet.of("line", GAIN) if line.left == line.right]
    (interval,) = (line for line in sheet.of("line", FAINT) if line.top == line.bottom and line.y > strokes[0].y)
    assert sheet.words("Gain of each prompt").y == centre(strokes[0])[1]
    assert sheet.words("Mean, 95 % interval").y == interval.y


def test_pairs_that_are_many_have_thin_lines_without_texts_in_the_middle():
    count = 60
    gains = np.linspace(-0.3, 0.4, count)
    sheet = sheet_of(paired_plot, *rows(gains), count, prompts=[f"prompt {i:02}" for i in range(count)])
    bottom = sheet.of("box", BAND)[0].top
    heights = [line.y for line in sheet.of("line") if line.top == line.bottom and line.y < bottom]
    assert len(heights) == count and heights == sorted(heights)
    texts = {mark.text: mark.y for mark in sheet.of("text") if mark.text.startswith("prompt ")}
    assert sorted(texts.values()) == heights[:12] + heights[-12:]
    assert list(texts) == [f"prompt {i:02}" for i in (*range(59, 47, -1), *range(11, -1, -1))]
    assert sheet.words("36 more prompts").y == near((heights[0] + heights[-1]) / 2)
    sizes = {
        line.y: mark.right - mark.left for line in sheet.of("line") for mark in sheet.of("dot") if mark.y == line.y
    }
    assert all(sizes[y] <= heights[13] - heights[12] for y in heights[12:-12]), "beside each other, not over"
    assert all(sizes[y] == sizes[heights[0]] for y in heights[:12] + heights[-12:])


# --- the curves


@pytest.mark.parametrize("steps", [1, 2, 12, 13, 40])
def test_curves_stand_at_their_values_over_their_steps(steps):
    coefficients = Coefficients.ramp(steps, c_x=(0.8, 1.0), c_eps=(1.3, 1.05))
    sigmas = np.geomspace(14.6, 0.03, steps + 1)
    sheet = sheet_of(curves, coefficients, sigmas)
    axis = [mark for mark in sheet.numbers() if mark.right <= mark.x + 1 and mark.x < 70]
    value = reading(axis, "y")
    places = {}
    for colour, expected in ((LOSS, coefficients.c_x), (GAIN, coefficients.c_eps)):
        dots = sheet.of("dot", colour)
        assert [float(value(dot.y)) for dot in dots] == near(expected)
        places[colour] = [dot.x for dot in dots]
        lines = [((line.left, line.right), sorted((line.top, line.bottom))) for line in sheet.of("line", colour)]
        pairs = zip(dots, dots[1:], strict=False)
        assert lines == [((a.x, b.x), sorted((a.y, b.y))) for a, b in pairs]
    assert places[LOSS] == places[GAIN] == near(np.linspace(places[GAIN][0], places[GAIN][-1], steps))
    levels = [line for line in sheet.of("line", GRID) if line.top == line.bottom]
    assert sorted(line.y for line in levels) == sorted(mark.y for mark in axis)
    (one,) = sheet.of("line", FAINT)
    assert float(value(one.y)) == near(1)
    assert {(line.left, line.right) for line in levels} == {(one.left, one.right)}
    # As much room left of the first step as right of the last.
    assert places[GAIN][0] - one.left == near(one.right - places[GAIN][-1])
    row = sheet.words("step").y
    for number in (mark for mark in sheet.of("text", INK) if mark.y == row):
        assert number.x == places[GAIN][int(number.text) - 1]
        (sigma,) = (mark for mark in sheet.of("text") if mark.x == number.x and mark.y == sheet.words("sigma").y)
        assert float(sigma.text) == pytest.approx(sigmas[int(number.text) - 1], rel=0.005)


@pytest.mark.parametrize(("steps", "every"), [(16, 1), (17, 2), (32, 2), (33, 3), (1000, 63)])
def test_curves_of_many_steps_have_at_most_16_numbers(steps, every):
    sheet = sheet_of(curves, Coefficients.identity(steps))
    row = sheet.words("step").y
    numbers = [int(mark.text) for mark in sheet.of("text", INK) if mark.y == row]
    assert numbers == list(range(1, steps + 1, every)) and len(numbers) <= 16


def test_values_of_curves_stand_beside_their_dots_the_higher_one_above():
    for coefficients in (RAMP, Coefficients((0.9, 1.1), (1.1, 0.9)), Coefficients.identity(3)):
        sheet = sheet_of(curves, coefficients)
        for colour, values in ((LOSS, coefficients.c_x), (GAIN, coefficients.c_eps)):
            texts = [mark for mark in sheet.of("text", colour) if mark.number is not None]
            dots = sheet.of("dot", colour)
            assert [mark.number for mark in texts] == near(values, 0.0005)
            for i, (text, dot) in enumerate(zip(texts, dots, strict=True)):
                is_higher = (values[i], colour == GAIN) > ((coefficients.c_x[i] + coefficients.c_eps[i]) / 2, False)
                assert text.x == dot.x and 10 < abs(text.y - dot.y) < 20
                assert (text.y < dot.y) == is_higher


@pytest.mark.parametrize(("steps", "count"), [(11, 11), (12, 12), (13, 0)])
def test_values_stand_at_curves_of_at_most_12_steps(steps, count):
    sheet = sheet_of(curves, Coefficients.ramp(steps, c_x=(0.8, 1.0), c_eps=(1.3, 1.05)))
    for colour in (LOSS, GAIN):
        assert sum(mark.number is not None for mark in sheet.of("text", colour)) == count


@pytest.mark.parametrize("gap", [0.3, 0.02, 0.0, -0.02, -0.3])
def test_names_of_curves_stand_at_their_ends_in_their_order(gap):
    sheet = sheet_of(curves, Coefficients((1.0, 1.0 + gap / 2), (1.0, 1.0 - gap / 2)))
    c_x, c_eps = sheet.words("c_x"), sheet.words("c_eps")
    assert (c_x.colour, c_eps.colour) == (LOSS, GAIN)
    ends = [sheet.of("dot", colour)[-1] for colour in (LOSS, GAIN)]
    assert c_x.x == c_eps.x > ends[0].right
    assert abs(c_x.y - c_eps.y) > 15
    assert c_x.y + c_eps.y == near(ends[0].y + ends[1].y)
    if abs(gap) > 0.1:
        assert (c_x.y, c_eps.y) == (ends[0].y, ends[1].y)
    if gap:
        assert (c_x.y < c_eps.y) == (gap > 0)
