"""Where a calibration has searched, as a picture for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core import Coefficients
from ..numbers import decimals
from ..search.space import Space
from ..search.trials import Trial
from .canvas import BAND, FAINT, GRID, INK, PAPER, Canvas, labels, ticks
from .gains import gains_of, share_of, unit_of

if TYPE_CHECKING:
    from PIL.Image import Image


_SCALE = ((140, 54, 0), (213, 94, 0), (247, 186, 132), (238, 238, 238), (143, 197, 232), (0, 114, 178), (0, 58, 108))
"""From the worst through none, in the middle, to the best: light to dark on both sides, for every kind of eye."""


def jaq_map(trials: Sequence[Trial], space: Space, best: Coefficients) -> Image:
    """Every candidate in the plane c_x against c_eps, coloured by its JAQ above that of the identity.

    ``trials`` in the order they were asked for, the identity first. A straight line with two free ends has a panel
    for each, a table for its first, middle and last step. Losses of more than twice the best gain look alike.
    """
    panels = _panels(space)
    side, gap = {1: (560, 0), 2: (410, 74), 3: (270, 66)}[len(panels)]
    left, top = 74, 92
    width = left + len(panels) * (side + gap) - gap + 32
    identity = trials[0].value if trials else math.nan
    gains = gains_of([trial.value for trial in trials], identity)
    marks = _Marks(unit_of(gains), min(1.0, side / (17 * math.sqrt(max(1, len(trials))))))
    picture = Canvas(width, top + side + 178)
    picture.text(left, 26, "Candidates by their JAQ on the search's prompts", 19)
    for number, (title, step, axis) in enumerate(panels):
        panel = _Panel(picture, left + number * (side + gap), top, side, space)
        panel.draw(title)
        candidates = [(t, g) for t, g in zip(trials, gains, strict=True) if axis in t.point and not _is_identity(t)]
        # What counts lies on top: those that were tried on all prompts, and the good ones.
        for trial, gain in sorted(candidates, key=lambda item: (item[0].whole, np.nan_to_num(item[1], nan=-math.inf))):
            marks.candidate(picture, *panel.place(*space.coefficients(trial.point).at(step)), trial, gain)
        marks.identity(picture, *panel.place(1.0, 1.0))
        marks.best(picture, *panel.place(*best.at(step)))
    legend = top + side + 68
    _scale(picture, left, legend, marks.unit, "the identity" if math.isfinite(identity) else "the median")
    marks.legend(picture, left, legend + 54, width - left, trials)
    return picture.image()


def _panels(space: Space) -> list[tuple[str, int, str]]:
    """(title, step, an axis that is searched there)"""
    names = [axis.removeprefix("c_x_") for axis in space.axes if axis.startswith("c_x")]
    count = space.n_steps
    if names == ["c_x"]:
        return [("every step", 0, "c_x")]
    steps = {"first": 0, "last": count - 1}
    if names[0] in steps:
        return [(f"{name} step of {count}" if count > 1 else "one step", steps[name], f"c_x_{name}") for name in names]
    places = sorted({int(name) for name in (names[0], names[len(names) // 2], names[-1])})
    return [(f"step {place} of {count}", place - 1, f"c_x_{place}") for place in places]


def _is_identity(trial: Trial) -> bool:
    return all(value == 1.0 for value in trial.point.values())


def _colour(gain: float, unit: float) -> tuple[int, int, int]:
    """From -2 units over 0 to +1 unit."""
    place = (1 + share_of(gain, unit)) / 2 * (len(_SCALE) - 1)
    low = min(int(place), len(_SCALE) - 2)
    pairs = zip(_SCALE[low], _SCALE[low + 1], strict=True)
    return tuple(round(a + (place - low) * (b - a)) for a, b in pairs)


def _scale(picture: Canvas, x: float, y: float, unit: float, zero: str) -> None:
    """The colours with their numbers."""
    end = picture.text(x, y, f"JAQ gain over {zero}", 15)
    if unit == 0:
        picture.text(end + 14, y, "all candidates score alike", 15, FAINT)
        return
    left, width = end + 22, 264
    for i in range(width):
        share = -1 + 2 * i / (width - 1)
        picture.box((left + i, y - 8), (left + i + 1, y + 8), _colour(share * unit * (2 if share < 0 else 1), unit))
    digits = decimals([unit], 2)
    for place, gain in ((0, -2 * unit), (0.25, -unit), (0.5, 0.0), (1, unit)):
        text = f"{gain:+.{digits}f}" if gain else "0"
        at = left + place * width
        picture.line((at, y + 8), (at, y + 13), FAINT, 1)
        picture.text(at, y + 22, f"< {text}" if place == 0 else text, 13, FAINT, anchor="mm")


class _Panel:
    """One plane: from pairs of coefficients to places on the picture."""

    def __init__(self, picture: Canvas, left: float, top: float, side: float, space: Space):
        self.picture, self.left, self.top, self.side = picture, left, top, side
        self.low, self.high = space.low, space.high
        margin = 0.06 * (self.high - self.low)
        self._start, self._width = self.low - margin, self.high - self.low + 2 * margin

    def place(self, c_x: float, c_eps: float) -> tuple[float, float]:
        x, y = ((value - self._start) / self._width * self.side for value in (c_x, c_eps))
        return self.left + x, self.top + self.side - y

    def draw(self, title: str) -> None:
        picture, right, bottom = self.picture, self.left + self.side, self.top + self.side
        picture.text(self.left + self.side / 2, self.top - 18, title, 16, anchor="mm")
        picture.box((self.left, self.top), (right, bottom), BAND)
        (x0, y1), (x1, y0) = self.place(self.low, self.low), self.place(self.high, self.high)
        picture.box((x0, y0), (x1, y1), PAPER)
        values = ticks(self.low, self.high, 6 if self.side > 300 else 4)
        for value, text in zip(values, labels(values), strict=True):
            x, y = self.place(value, value)
            picture.line((x, y0), (x, y1), GRID, 1)
            picture.line((x0, y), (x1, y), GRID, 1)
            picture.text(x, bottom + 14, text, 14, FAINT, anchor="mm")
            picture.text(self.left - 8, y, text, 14, FAINT, anchor="rm")
        picture.line((x0, y1), (x1, y0), FAINT, 0.7)
        picture.frame((x0, y0), (x1, y1), FAINT, 1)
        picture.text((self.left + right) / 2, bottom + 36, "c_x", 15, anchor="mm")
        picture.text(self.left - 8, self.top - 2, "c_eps", 15, anchor="rm")


@dataclass(frozen=True)
class _Marks:
    """What the map's signs look like, in the panels and in their legend; ``size`` is less where there are many."""

    unit: float
    size: float

    def candidate(self, picture: Canvas, x: float, y: float, trial: Trial, gain: float) -> None:
        if not math.isfinite(trial.value):
            picture.saltire(x, y, 4.5 * self.size, FAINT, 1.8 * self.size)
        elif trial.whole:
            picture.dot(x, y, 7.2 * self.size, INK)
            picture.dot(x, y, 6.4 * self.size, _colour(gain, self.unit))
        else:
            picture.dot(x, y, 5.4 * self.size, FAINT)
            picture.dot(x, y, 4.8 * self.size, _colour(gain, self.unit))
            picture.dot(x, y, 2.2 * self.size, PAPER)

    def identity(self, picture: Canvas, x: float, y: float) -> None:
        picture.cross(x, y, 10, PAPER, 5.5)
        picture.cross(x, y, 9, INK, 2.4)

    def best(self, picture: Canvas, x: float, y: float) -> None:
        picture.ring(x, y, 13.5, PAPER, 5.5)
        picture.ring(x, y, 12.5, INK, 2.6)

    def legend(self, picture: Canvas, x: float, y: float, width: float, trials: Sequence[Trial]) -> None:
        """Only the signs that are there."""
        kinds: dict[str, list[Trial]] = {"tried on all prompts": [], "dropped early": [], "not scored": []}
        for trial in trials:
            if not _is_identity(trial):
                has_score = math.isfinite(trial.value)
                name = "not scored" if not has_score else "tried on all prompts" if trial.whole else "dropped early"
                kinds[name].append(trial)
        entries: list[tuple[str, Trial | None]] = [("best", None), ("identity", None)]
        entries += [(f"{len(kind)} {name}", kind[0]) for name, kind in kinds.items() if kind]
        start = x
        for text, trial in entries:
            if x + 26 + picture.width(text, 14) > start + width:
                x, y = start, y + 28
            if trial is not None:
                self.candidate(picture, x + 13, y, trial, self.unit / 2)
            else:
                (self.best if text == "best" else self.identity)(picture, x + 13, y)
            x = picture.text(x + 33, y, text, 14) + 22
