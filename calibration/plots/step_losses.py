"""A study of the steps as a picture: what each step loses in each precision, and plans' distance against their cost."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from ..step_study import squared
from .canvas import COLOURS, FAINT, GRID, INK, Canvas, labels, padded, ticks

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDTH, _HEIGHT, _TOP, _BOTTOM = 1200, 460, 92, 390
_LEFT, _MIDDLE, _RIGHT = 86, 620, 1170
"""Edges of the two charts: bars of the steps from _LEFT to _MIDDLE - 70, plans from _MIDDLE to _RIGHT."""


def step_losses(result) -> Image:
    """Of a ``StepResult``. Left, for each step, the distance to the best option's pictures when that step alone has
    another option; right, plans that were measured: rings are single options, the dot is the plan of the study."""
    picture = Canvas(_WIDTH, _HEIGHT)
    picture.text(_LEFT, 26, "Distance when one step alone is coarser", 17)
    picture.text(_MIDDLE, 26, "Distance against cost", 17)
    others = [i for i in range(len(result.options)) if i != result.best]
    _bars(picture, result, others)
    _plans(picture, result)
    x = _LEFT
    for i in others:
        picture.box((x, 54), (x + 12, 66), _colour(i))
        x = picture.text(x + 18, 60, result.options[i].name, 14) + 22
    return picture.image()


def _colour(option: int):
    return COLOURS[option % len(COLOURS)]


def _height(values: list[float]):
    high = max(padded([0.0, *values])[1], 1e-9)
    return high, lambda value: _BOTTOM - value / high * (_BOTTOM - _TOP)


def _axis(picture: Canvas, left: float, right: float, high: float, height) -> None:
    marks = ticks(0.0, high, 6)
    for value, text in zip(marks, labels(marks), strict=True):
        picture.line((left, height(value)), (right, height(value)), GRID, 1)
        picture.text(left - 8, height(value), text, 13, FAINT, anchor="rm")


def _bars(picture: Canvas, result, others: list[int]) -> None:
    steps, right = len(result.distances), _MIDDLE - 70
    high, height = _height([sqrt(value) for value in result.distances.ravel()])
    _axis(picture, _LEFT, right, high, height)
    room = (right - _LEFT) / steps
    wide = 0.8 * room / max(1, len(others))
    every = -(-steps // 16)
    for step in range(steps):
        start = _LEFT + room * (step + 0.1)
        for place, option in enumerate(others):
            x = start + wide * place
            top = height(sqrt(result.distances[step, option]))
            picture.box((x, min(top, _BOTTOM - 1)), (x + max(1.0, wide - 1), _BOTTOM), _colour(option))
        if step % every == 0:
            picture.text(start + 0.4 * room, _BOTTOM + 18, str(step + 1), 13, anchor="mm")
    picture.text((_LEFT + right) / 2, _BOTTOM + 42, "step", 14, FAINT, anchor="mm")


def _plans(picture: Canvas, result) -> None:
    high, height = _height([sqrt(squared(row)) for row in result.rows.values()])
    _axis(picture, _MIDDLE, _RIGHT, high, height)
    most = max([1.0, *(result.mean_cost(plan) for plan in result.rows)])
    for plan, row in result.rows.items():
        x = _MIDDLE + result.mean_cost(plan) / most * (_RIGHT - _MIDDLE - 20)
        y = height(sqrt(squared(row)))
        if len(set(plan)) == 1:
            picture.ring(x, y, 7, _colour(plan[0]), 2.5)
            picture.text(x, y - 16, result.options[plan[0]].name, 13, _colour(plan[0]), anchor="mm")
        else:
            picture.dot(x, y, 4, FAINT)
        if plan == result.plan:
            picture.dot(x, y, 5, INK)
            picture.ring(x, y, 11, INK, 1.5)
    for value in (0.25, 0.5, 0.75, 1.0):
        x = _MIDDLE + value / most * (_RIGHT - _MIDDLE - 20)
        picture.text(x, _BOTTOM + 18, f"{value:g}", 13, FAINT, anchor="mm")
    middle = (_MIDDLE + _RIGHT) / 2
    picture.text(middle, _BOTTOM + 42, "mean cost of a step, the best precision is 1", 14, FAINT, anchor="mm")
