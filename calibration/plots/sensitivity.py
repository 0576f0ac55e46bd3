"""A sensitivity study as a picture: what each layer loses in each format, and which one it got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from math import floor, log10, sqrt

import numpy as np
import torch
from torch import Tensor

from .canvas import BAND, COLOURS, FAINT, GRID, INK, Canvas

_WIDTH, _HEIGHT = 1200, 600
"""Pixels: several hundred layers beside each other."""

_LEFT, _RIGHT, _TOP, _MIDDLE, _LOW, _BOTTOM = 76, 1176, 104, 452, 474, 552
"""Edges of the two charts: errors from _TOP to _MIDDLE, kurtosis from _LOW to _BOTTOM."""

_FLOAT_COLOUR = (90, 96, 108)
"""Of a layer that stays as it is: a grey, which no format has."""


def sensitivity_plot(study, plan) -> Tensor:
    """(1, 600, 1200, 3) in [0, 1] for a Sensitivity and one of its plans.

    Layers lie in the network's order, errors on a logarithmic axis. The format that a layer got is ringed; a layer
    that stays as it is has no error and sits on the axis. Bars are the kurtosis of its weights.
    """
    picture = Canvas(_WIDTH, _HEIGHT)
    plan_measures = study.chosen(plan)
    places = [_LEFT + (_RIGHT - _LEFT) * (i + 0.5) / len(study.layers) for i in range(len(study.layers))]
    step = (_RIGHT - _LEFT) / len(study.layers)
    forms = list(dict.fromkeys(m.form for layer in study.layers for m in layer.measures if m.form is not None))
    colours = {form: COLOURS[i % len(COLOURS)] for i, form in enumerate(forms)}
    _headings(picture, study, plan, Counter(m.form for m in plan_measures), colours)
    _blocks(picture, [layer.name for layer in study.layers], step)
    height = _error_axis(picture, [sqrt(m.damage) for layer in study.layers for m in layer.measures if m.damage > 0])
    radius = min(5.5, max(1.3, 0.32 * step))
    for layer, plan_measure, x in zip(study.layers, plan_measures, places, strict=True):
        heights = [(m, height(sqrt(m.damage)) if m.damage > 0 else _MIDDLE) for m in layer.measures]
        levels = [y for m, y in heights if m.form is not None or m is plan_measure]
        picture.line((x, min(levels)), (x, max(levels)), GRID, min(2.0, step / 3))
        for measure, y in heights:
            if measure is not plan_measure and measure.form is not None:
                picture.dot(x, y, 0.75 * radius, _pale(colours[measure.form]))
        y = next(y for m, y in heights if m is plan_measure)
        picture.dot(x, y, radius + min(1.6, radius / 2), INK)
        picture.dot(x, y, radius, _FLOAT_COLOUR if plan_measure.form is None else colours[plan_measure.form])
    _kurtosis_bars(picture, [layer.kurtosis for layer in study.layers], places, step)
    return torch.from_numpy(np.asarray(picture.image()).astype(np.float32) / 255).unsqueeze(0)


def _headings(picture: Canvas, study, plan, counts: Counter, colours: dict) -> None:
    what = "the network's output" if study.depth == "network" else "each layer's output"
    picture.text(_LEFT, 30, f"Relative error of {what}, one layer quantised at a time", 19, anchor="lm")
    totals = f"{study.bits(plan):.2f} bits a weight,  predicted error {study.predicted(plan):.3f}"
    picture.text(_RIGHT, 30, totals, 16, anchor="rm")
    x = _LEFT + 6
    entries = [*colours.items()] + ([(None, _FLOAT_COLOUR)] if counts[None] else [])
    for form, colour in entries:
        picture.dot(x, 66, 6.5, INK)
        picture.dot(x, 66, 5, colour)
        name = f"{'left as it is' if form is None else form}, {counts[form]} layer{'s' * (counts[form] != 1)}"
        x = picture.text(x + 14, 66, name, 15, anchor="lm") + 30
    picture.text(_RIGHT, 66, "ringed: chosen    pale: tried", 14, FAINT, anchor="rm")


def _blocks(picture: Canvas, names: list[str], step: float) -> None:
    """Bands and names of the network's parts, below a line for each of their repeated blocks."""
    x, free, dark = float(_LEFT), 0.0, False
    for part, layers in groupby(names, lambda name: name.split(".")[0]):
        members = list(layers)
        end = x + step * len(members)
        if dark := not dark:
            picture.box((x, _TOP), (end, _MIDDLE), BAND)
            picture.box((x, _LOW), (end, _BOTTOM), BAND)
        edge = x
        for _, block in groupby(members, lambda name: name.split(".")[:2]):
            if edge > x:
                picture.line((edge, _TOP), (edge, _MIDDLE), GRID, 0.7)
            edge += step * len(list(block))
        width = picture.width(part, 14)
        left = max((x + end) / 2 - width / 2, free)
        if left + width <= _RIGHT + 8 and left < end:
            picture.text(left, _BOTTOM + 20, part, 14, INK, anchor="lm")
            free = left + width + 14
        x = end


def _error_axis(picture: Canvas, errors: list[float]):
    """Draws the axis; gives the height of an error."""
    low, high = (log10(value) for value in (min(errors, default=0.01), max(errors, default=0.1)))
    # Two numbers at least: from 2 over 5 to 10 are 0.7 powers of ten.
    margin = max(0.08 * (high - low + 0.5), (0.7 - (high - low)) / 2)
    low, high = low - margin, high + margin

    def height(error: float) -> float:
        return _MIDDLE - (log10(error) - low) / (high - low) * (_MIDDLE - _TOP)

    for value in _ticks(low, high):
        y = height(value)
        picture.line((_LEFT, y), (_RIGHT, y), GRID, 1)
        picture.text(_LEFT - 10, y, f"{value:.12g}", 14, FAINT, anchor="rm")
    picture.line((_LEFT, _MIDDLE), (_RIGHT, _MIDDLE), FAINT, 1)
    return height


def _ticks(low: float, high: float) -> Iterator[float]:
    """Powers of ten, with their doubles and fives where those are few."""
    steps = (1, 2, 5) if high - low < 3 else (1,)
    for power in range(floor(low), floor(high) + 1):
        yield from (step * 10.0**power for step in steps if low <= log10(step) + power <= high)


def _kurtosis_bars(picture: Canvas, values: list[float], places: list[float], step: float) -> None:
    """Logarithmic, from 1 (the least there is) up; a line marks normal weights."""
    top = log10(max(10.0, *values))

    def height(value: float) -> float:
        return _BOTTOM - log10(max(1.0, value)) / top * (_BOTTOM - _LOW)

    half = min(9.0, 0.36 * step)
    for x, value in zip(places, values, strict=True):
        picture.box((x - half, height(value)), (x + half, _BOTTOM), (167, 176, 190))
    picture.line((_LEFT, height(3.0)), (_RIGHT, height(3.0)), FAINT, 0.8)
    picture.line((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM), FAINT, 1)
    picture.text(_LEFT - 10, height(3.0), "3", 14, FAINT, anchor="rm")
    picture.text(_LEFT - 10, height(10**top), f"{10**top:.0f}", 14, FAINT, anchor="rm")
    picture.text(_RIGHT, _BOTTOM + 38, "bars: kurtosis of the weights, 3 is normal", 13, FAINT, anchor="rm")


def _pale(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(round(0.42 * value + 0.58 * 255) for value in colour)
