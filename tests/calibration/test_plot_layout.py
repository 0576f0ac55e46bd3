"""What holds for every plot: nothing is cut off, no writing covers other writing, and it is as it was looked at."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from calibration.plots.canvas import FAINT, INK

sys.path.append(str(Path(__file__).parent))

from sheets import PLOTS  # noqa: E402


@pytest.fixture(params=PLOTS, scope="module")
def sheet(request):
    return PLOTS[request.param]()


def overlap(one, other) -> bool:
    """More than the edges."""
    wide = min(one.right, other.right) - max(one.left, other.left)
    return wide > 0 and min(one.bottom, other.bottom) - max(one.top, other.top) > 0


def test_everything_lies_inside_the_picture(sheet):
    width, height = sheet.size
    assert sheet.marks
    for mark in sheet.marks:
        assert 0 <= mark.left and 0 <= mark.top and mark.right <= width and mark.bottom <= height, mark


def test_no_writing_covers_other_writing(sheet):
    texts = sheet.of("text")
    covers = [(a.text, b.text) for i, a in enumerate(texts) for b in texts[:i] if overlap(a, b)]
    assert covers == []


def test_no_sign_covers_writing(sheet):
    """Dots and the like: those of a legend stand beside their texts, those of the data beside their values."""
    signs = [mark for mark in sheet.marks if mark.kind in ("dot", "ring", "cross", "saltire")]
    assert [(text.text, sign) for text in sheet.of("text") for sign in signs if overlap(text, sign)] == []


def test_the_heading_comes_first_and_stands_above_all(sheet):
    heading, *others = sheet.marks
    assert heading.kind == "text" and len(heading.text) > 15
    assert all(heading.y <= other.y for other in others)
    assert all(heading.bottom < other.top for other in others if other.y > heading.y)


def test_writing_beside_other_writing_stands_on_one_line(sheet):
    # Without what stands at a value of the data, in its colour.
    heights = sorted({mark.y for colour in (INK, FAINT) for mark in sheet.of("text", colour)})
    assert all(high - low > 1.5 for low, high in zip(heights, heights[1:], strict=False))


def test_what_is_beside_a_text_of_the_legend_has_its_height(sheet):
    texts = [mark for mark in sheet.of("text") if mark.left == mark.x]
    for sign in (mark for mark in sheet.marks if mark.kind in ("dot", "ring", "cross", "saltire", "box")):
        for text in texts:
            if 0 < text.left - sign.right < 12 and text.top < sign.bottom and sign.top < text.bottom:
                assert (sign.top + sign.bottom) / 2 == pytest.approx(text.y)


LOOKED_AT = ("map", "map of two steps", "pairs", "pairs of a distance", "curves", "steps", "layers")
GOLDEN = Path(__file__).parents[1] / "golden" / "plots.json"


NEAR = 0.6
"""Pixels: another version of the font is a little wider."""


def marks_of(sheet) -> list[list]:
    """[kind, colour, text, size, places …] of each mark; of writing the place alone, for its extent is the font's."""
    marks = [["sheet", "", "", 0, *sheet.size]]
    for mark in sheet.marks:
        extent = () if mark.kind == "text" else (mark.left, mark.top, mark.right, mark.bottom)
        places = [round(float(place), 2) for place in (mark.x, mark.y, *extent)]
        marks.append([mark.kind, bytes(mark.colour).hex(), mark.text, round(float(mark.size), 3), *places])
    return marks


@pytest.fixture(scope="module")
def golden() -> dict:
    """QSCHED_WRITE_GOLDEN=1 writes anew."""
    if os.environ.get("QSCHED_WRITE_GOLDEN"):
        plots = {name: marks_of(PLOTS[name]()) for name in LOOKED_AT}
        lists = [
            f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, marks)) + "\n]" for name, marks in plots.items()
        ]
        GOLDEN.write_text("{\n" + ",\n".join(lists) + "\n}\n", "utf-8")
    return json.loads(GOLDEN.read_text("utf-8"))


@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_plot_is_the_one_that_was_looked_at(name, golden):
    """It is changed on purpose, and looked at then."""
    marks = marks_of(PLOTS[name]())
    assert [mark[:4] for mark in marks] == [mark[:4] for mark in golden[name]]
    for mark, expected in zip(marks, golden[name], strict=True):
        assert mark[4:] == pytest.approx(expected[4:], abs=NEAR), expected
