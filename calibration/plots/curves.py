"""A preset's two curves over the steps, as a picture for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core import Coefficients
from .canvas import FAINT, GAIN, GRID, LOSS, WIDTH, Canvas, labels, padded, ticks

if TYPE_CHECKING:
    from PIL.Image import Image


def curves(coefficients: Coefficients, sigmas: Sequence[float] = ()) -> Image:
    """c_x and c_eps over the steps, with the sigma that each step starts from."""
    left, right, top, bottom = 70, 930, 56, 272
    picture = Canvas(WIDTH, bottom + (74 if len(sigmas) else 50))
    count = len(coefficients)
    low, high = padded([*coefficients.c_x, *coefficients.c_eps, 0.97, 1.03], 0.14)
    room = (right - left) / count

    def place(step: int, value: float) -> tuple[float, float]:
        return left + room * (step + 0.5), bottom - (value - low) / (high - low) * (bottom - top)

    picture.text(left, 26, "Coefficients over the steps", 17)
    marks = ticks(low, high, 6)
    for value, text in zip(marks, labels(marks), strict=True):
        y = place(0, value)[1]
        picture.line((left, y), (right, y), GRID, 1)
        picture.text(left - 10, y, text, 14, FAINT, anchor="rm")
    picture.line((left, place(0, 1.0)[1]), (right, place(0, 1.0)[1]), FAINT, 1.2)
    every = math.ceil(count / 16)
    picture.text(left - 10, bottom + 20, "step", 14, FAINT, anchor="rm")
    if len(sigmas):
        picture.text(left - 10, bottom + 44, "sigma", 14, FAINT, anchor="rm")
    for step in range(0, count, every):
        x = place(step, 1.0)[0]
        picture.text(x, bottom + 20, str(step + 1), 14, anchor="mm")
        if step < len(sigmas):
            picture.text(x, bottom + 44, f"{sigmas[step]:.3g}", 14, FAINT, anchor="mm")
    both = (("c_x", coefficients.c_x, coefficients.c_eps, LOSS), ("c_eps", coefficients.c_eps, coefficients.c_x, GAIN))
    for name, values, others, colour in both:
        _curve(picture, [place(i, value) for i, value in enumerate(values)], colour, hollow=name == "c_eps")
        for i, (value, other) in enumerate(zip(values, others, strict=True)):
            above = value > other or (value == other and name == "c_eps")
            if count <= 12:
                x, y = place(i, value)
                picture.text(x, y + (-16 if above else 16), f"{value:.3f}", 13, colour, anchor="mm")
    _names(picture, coefficients, place)
    return picture.image()


def _curve(picture: Canvas, points: Sequence[tuple[float, float]], colour, hollow: bool) -> None:
    """Equal curves stay two: one lies in the middle of the other."""
    radius = min(1.0, 24 / len(points))
    for start, end in zip(points, points[1:], strict=False):
        picture.line(start, end, colour, 1.6 if hollow else 3.4)
    for x, y in points:
        picture.dot(x, y, (4 if hollow else 6.5) * radius, colour)


def _names(picture: Canvas, coefficients: Coefficients, place) -> None:
    """At the right end of each curve, kept apart."""
    last = len(coefficients) - 1
    (x, c_x), (_, c_eps) = (place(last, values[last]) for values in (coefficients.c_x, coefficients.c_eps))
    if abs(c_x - c_eps) < 20:
        middle, side = (c_x + c_eps) / 2, 1 if c_x >= c_eps else -1
        c_x, c_eps = middle + 10 * side, middle - 10 * side
    picture.text(x + 20, c_x, "c_x", 16, LOSS)
    picture.text(x + 20, c_eps, "c_eps", 16, GAIN)
