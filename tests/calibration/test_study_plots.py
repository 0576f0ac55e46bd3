"""What a person reads off plots of steps and of layers, by their axes and legends, is what they were drawn from."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.plots.canvas import BAND, FAINT, GRID, INK
from calibration.plots.sensitivity import sensitivity_plot
from calibration.plots.step_losses import step_losses

sys.path.append(str(Path(__file__).parent))

from sheets import FOUR, centre, near, reading, sheet_of, step_result, study_of_layers  # noqa: E402

# --- the steps


@pytest.mark.parametrize("steps", [1, 4, 16, 17, 50])
def test_bars_of_steps_are_as_high_as_their_distances(steps):
    result = step_result(steps)
    sheet = sheet_of(step_losses, result)
    axis = sheet.numbers(x=min(mark.x for mark in sheet.numbers()))
    distance = reading(axis, "y")
    levels = [line for line in sheet.of("line", GRID) if line.left < 100]
    assert sorted(line.y for line in levels) == sorted(mark.y for mark in axis)
    legend = {mark.text: mark for mark in sheet.of("text") if mark.text in ("w4", "w6") and mark.y < 80}
    swatches = {
        name: next(box for box in sheet.of("box") if box.bottom < 80 and 0 < text.left - box.right < 10)
        for name, text in legend.items()
    }
    assert list(swatches) == ["w4", "w6"]
    floor = max(line.y for line in levels)
    bars = [box for box in sheet.of("box") if box.bottom == floor]
    for i, swatch in enumerate(swatches.values()):
        heights = [float(distance(bar.top)) for bar in bars if bar.colour == swatch.colour]
        assert heights == near(np.sqrt(result.distances[:, i]))
    # In the order of the steps, none over another, with a gap between steps that is wider than that inside of one.
    gaps = [b.left - a.right for a, b in zip(bars, bars[1:], strict=False)]
    assert len(bars) == 2 * steps and min(gaps, default=1) >= -1e-6
    assert all(between > inside for inside, between in zip(gaps[::2], gaps[1::2], strict=False))
    assert levels[0].left <= bars[0].left and bars[-1].right <= levels[0].right
    numbers = [mark for mark in sheet.of("text", INK) if floor < mark.y < floor + 30]
    every = math.ceil(steps / 16)
    assert [int(mark.text) for mark in numbers] == list(range(1, steps + 1, every))
    for number in numbers:
        first, last = bars[2 * int(number.text) - 2 : 2 * int(number.text)]
        assert number.x == near((first.left + last.right) / 2, 1)
    middle = sheet.words("step").x
    assert middle == near((levels[0].left + levels[0].right) / 2)
    # As much room on both sides of the bars, but for the gap.
    assert bars[0].left - levels[0].left == near(levels[0].right - bars[-1].right, 1.5)


def test_a_step_that_loses_nothing_keeps_a_line_of_its_colour():
    result = step_result()
    result.distances[1, 0] = 0
    bars = [box for box in sheet_of(step_losses, result).of("box") if box.top > 100]
    assert bars[2].bottom - bars[2].top == 1


@pytest.mark.parametrize("steps", [1, 4])
def test_plans_of_steps_stand_at_their_cost_and_their_distance(steps):
    result = step_result(steps)
    sheet = sheet_of(step_losses, result)
    titles = sheet.words("Distance against cost")
    up = [mark for mark in sheet.numbers() if 0 < titles.x - mark.x < 20]
    distance = reading(up, "y")
    levels = [line for line in sheet.of("line", GRID) if line.left == titles.x]
    assert sorted(line.y for line in levels) == sorted(mark.y for mark in up)
    floor = max(line.y for line in levels)
    across = [mark for mark in sheet.numbers() if mark.y > floor]
    assert [mark.number for mark in across] == [0.25, 0.5, 0.75, 1]
    cost = reading(across, "x")
    assert float(cost(titles.x)) == near(0)

    def read(marks):
        return [(float(cost(mark.x)), float(distance(mark.y))) for mark in marks]

    def expected(plans):
        squares = [np.mean(np.square(result.rows[plan].scores["distance to full"])) for plan in plans]
        return [
            (np.mean(result.costs[list(plan)]), np.sqrt(square)) for plan, square in zip(plans, squares, strict=True)
        ]

    alike = [plan for plan in result.rows if len(set(plan)) == 1]
    rings = [mark for mark in sheet.of("ring") if mark.colour != INK]
    assert read(rings) == near(expected(alike))
    for ring, plan in zip(rings, alike, strict=True):
        (name,) = (mark for mark in sheet.of("text", ring.colour) if mark.text == result.options[plan[0]].name)
        assert name.x == ring.x and 0 < ring.top - name.bottom < 10
    mixed = [plan for plan in result.rows if len(set(plan)) > 1]
    assert read(sheet.of("dot", FAINT)) == near(np.reshape(expected(mixed), (-1, 2)).tolist())
    for kind in ("dot", "ring"):
        assert read(sheet.of(kind, INK)) == near(expected([result.plan]))
    assert len({mark.colour for mark in rings}) == 3
    about = sheet.words("mean cost of a step, the best precision is 1").x
    assert about == near((levels[0].left + levels[0].right) / 2)


def test_a_plan_that_costs_more_than_the_best_precision_is_on_the_picture():
    """The time of a coarser precision may be longer."""
    result = step_result()
    result.costs[0] = 1.6
    sheet = sheet_of(step_losses, result)
    dearest = max(mark.x for mark in sheet.of("ring"))
    assert dearest < sheet.size[0]
    floor = max(line.y for line in sheet.of("line", GRID))
    across = [mark for mark in sheet.numbers() if mark.y > floor]
    assert float(reading(across, "x")(dearest)) == near(1.6)


# --- the layers


LAYERS = [(24, ("w4a8", "w8a8")), (1, ("w4a8",)), (400, FOUR)]


@pytest.mark.parametrize(("count", "formats"), LAYERS)
def test_layers_stand_at_their_errors_in_the_network_s_order(count, formats):
    study, plan = study_of_layers(count, formats)
    sheet = sheet_of(sensitivity_plot, study, plan)
    (bottom,) = (line.y for line in sheet.of("line", FAINT) if line.y == max(b.bottom for b in error_bands(sheet)))
    numbers = [mark for mark in sheet.numbers(x=sheet.numbers()[-2].x) if mark.y <= bottom]
    error = reading(numbers, "y", math.log10)
    levels = [line for line in sheet.of("line", GRID) if line.top == line.bottom and line.left < line.right]
    assert sorted(line.y for line in levels) == sorted(mark.y for mark in numbers)
    assert {(line.left, line.right) for line in levels} == {(levels[0].left, levels[0].right)}
    rings = [mark for mark in sheet.of("dot", INK) if mark.y > 80]
    room = (levels[0].right - levels[0].left) / count
    assert [mark.x for mark in rings] == near(levels[0].left + room * (np.arange(count) + 0.5))
    inner = {(dot.x, dot.y): dot.colour for dot in sheet.of("dot") if dot.colour != INK}
    swatches = {}
    for text in (mark for mark in sheet.of("text") if mark.y == 66 and mark.left == mark.x):
        (swatch,) = (
            dot for dot in sheet.of("dot") if dot.colour != INK and dot.y == text.y and 0 < text.x - dot.x < 20
        )
        swatches[text.text.partition(",")[0]] = swatch.colour
    for ring, layer in zip(rings, study.layers, strict=True):
        form = plan.forms[layer.name]
        if form is None:
            assert ring.y == bottom, "no error"
        else:
            assert 10 ** float(error(ring.y)) == pytest.approx(layer.measure(form).error)
        assert inner[ring.x, ring.y] == swatches["left as it is" if form is None else str(form)]
        others = [dot for dot in sheet.of("dot") if dot.x == ring.x and dot.y != ring.y and dot.y > 80]
        expected = [m.error for m in layer.measures if m.form not in (None, form)]
        assert [10 ** float(error(dot.y)) for dot in others] == pytest.approx(expected)
        for dot in others:
            pale = [np.subtract(255, colour) / np.subtract(255, dot.colour).clip(1) for colour in swatches.values()]
            assert min(np.ptp(ratio) for ratio in pale) < 0.2 and sum(dot.colour) > 400
        (stem,) = (line for line in sheet.of("line", GRID) if line.left == line.right == ring.x and line not in levels)
        assert (stem.top, stem.bottom) == (min(d.y for d in [ring, *others]), max(d.y for d in [ring, *others]))


@pytest.mark.parametrize(("count", "formats"), LAYERS)
def test_the_axis_of_errors_has_all_round_numbers_that_it_reaches(count, formats):
    """Powers of ten, and over less than three of them their doubles and fives.

    Regression: where all errors are nearly the same, in a study of one format say, there was no number at all.
    """
    sheet = sheet_of(sensitivity_plot, *study_of_layers(count, formats))
    band = error_bands(sheet)[0]
    numbers = [mark for mark in sheet.numbers(x=sheet.numbers()[-2].x) if mark.y < band.bottom]
    error = reading(numbers, "y", math.log10)
    low, high = float(error(band.bottom)), float(error(band.top))
    digits = (1, 2, 5) if high - low < 3 else (1,)
    every = [digit * 10.0**power for power in range(-9, 9) for digit in digits]
    assert [mark.number for mark in numbers] == pytest.approx([x for x in every if low <= math.log10(x) <= high])


def error_bands(sheet):
    return [box for box in sheet.of("box", BAND) if box.top < 200]


@pytest.mark.parametrize(("count", "formats"), LAYERS)
def test_the_kurtosis_of_layers_is_read_off_its_own_axis(count, formats):
    study, plan = study_of_layers(count, formats)
    sheet = sheet_of(sensitivity_plot, study, plan)
    floor = max(line.y for line in sheet.of("line"))
    top = max(band.top for band in sheet.of("box", BAND))
    numbers = [mark for mark in sheet.numbers() if top <= mark.y < floor and mark.x < 76]
    assert [mark.text for mark in numbers] == ["3", str(max(10, count + 2))]
    kurtosis = reading(numbers, "y", math.log10)
    bars = [box for box in sheet.of("box") if box.colour != BAND]
    assert {bar.bottom for bar in bars} == {floor} and float(kurtosis(floor)) == near(0)
    assert [10 ** float(kurtosis(bar.top)) for bar in bars] == pytest.approx([layer.kurtosis for layer in study.layers])
    rings = [mark for mark in sheet.of("dot", INK) if mark.y > 80]
    assert [centre(bar)[0] for bar in bars] == near([ring.x for ring in rings])
    assert all(a.right < b.left for a, b in zip(bars, bars[1:], strict=False))
    assert numbers[0].y in {line.y for line in sheet.of("line", FAINT)}, "a line where weights are normal"


def test_parts_of_a_network_have_bands_and_their_blocks_lines():
    study, plan = study_of_layers()
    sheet = sheet_of(sensitivity_plot, study, plan)
    rings = [mark.x for mark in sheet.of("dot", INK) if mark.y > 80]
    room = rings[1] - rings[0]
    names = [layer.name.split(".") for layer in study.layers]
    parts = {
        part: [x for x, name in zip(rings, names, strict=True) if name[0] == part] for part in ("down", "middle", "up")
    }
    for bands in (error_bands(sheet), [box for box in sheet.of("box", BAND) if box.top > 200]):
        for band, part in zip(bands, ("down", "up"), strict=True):  # every other one
            assert (band.left, band.right) == near((parts[part][0] - room / 2, parts[part][-1] + room / 2))
    for part, xs in parts.items():
        assert centre(sheet.words(part))[0] == near((xs[0] + xs[-1]) / 2, 1)
    uprights = [line for line in sheet.of("line", GRID) if line.left == line.right and line.x not in rings]
    borders = [
        xs + room / 2
        for xs, one, other in zip(rings, names, names[1:], strict=False)
        if one[0] == other[0] and one[1] != other[1]
    ]
    assert sorted(line.x for line in uprights) == near(borders)
    (band, *_) = error_bands(sheet)
    assert {(line.top, line.bottom) for line in uprights} == {(band.top, band.bottom)}


def test_the_headings_of_layers_count_what_each_format_got():
    study, plan = study_of_layers()
    sheet = sheet_of(sensitivity_plot, study, plan)
    for name in ("w4a8/g32, 8 layers", "w8a8/channel, 8 layers", "left as it is, 8 layers"):
        assert sheet.words(name)
    bits = (4 * 8 + 8 * 8 + 16 * 8) / 24
    errors = [layer.measure(plan.forms[layer.name]).error for layer in study.layers]
    assert sheet.words(f"{bits:.2f} bits a weight,  predicted error {np.linalg.norm(errors):.3f}")
    picture = sensitivity_plot(study, plan)
    assert picture.shape == (1, 600, 1200, 3)
    assert picture.min() >= 0 and picture[0, 0, 0].tolist() == [1, 1, 1], "white paper"


@pytest.mark.parametrize("formats", [("w4a8",), ("w4a8", "w8a8"), FOUR])
def test_the_axis_of_errors_goes_a_little_beyond_them(formats):
    sheet = sheet_of(sensitivity_plot, *study_of_layers(24, formats))
    band = error_bands(sheet)[0]
    dots = [mark for mark in sheet.of("dot") if mark.y > 80 and mark.y != band.bottom]
    room = min(dot.top for dot in dots) - band.top, band.bottom - max(dot.bottom for dot in dots)
    assert 2 < min(room) and max(room) < 0.2 * (band.bottom - band.top)


def test_dots_of_layers_are_as_large_as_there_is_room():
    sizes = []
    for count in (12, 110, 180, 260):
        sheet = sheet_of(sensitivity_plot, *study_of_layers(count))
        rings = [mark for mark in sheet.of("dot", INK) if mark.y > 80]
        room = rings[1].x - rings[0].x
        sizes.append(rings[0].right - rings[0].left)
        assert 0.7 * min(room, 14) < sizes[-1] <= room
    assert sizes == sorted(sizes, reverse=True)
