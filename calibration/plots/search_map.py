"""A calibration as pictures for people: where it searched, what each prompt gained, and the curves it found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core import Coefficients
from ..indices import prompt_of
from ..numbers import decimals
from ..report import METRIC_TITLES, lower_is_better
from ..search.search import Trial
from ..search.space import Space
from ..validate import Evaluation, Interval, paired_gain
from .canvas import BAND, FAINT, GRID, INK, PAPER, Canvas, labels, ticks
from .gains import gains_of, share_of, unit_of

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 1000

LOSS, GAIN = (213, 94, 0), (0, 114, 178)

_SCALE = ((140, 54, 0), (213, 94, 0), (247, 186, 132), (238, 238, 238), (143, 197, 232), (0, 114, 178), (0, 58, 108))
"""From the worst through none, in the middle, to the best: light to dark on both sides, for every kind of eye."""

_ROW_HEIGHT, _THIN_ROW_HEIGHT, _END_LABELS, _MAX_LABELS = 23, 3, 12, 40
"""Heights of a prompt's row with and without its text. Of more than _MAX_LABELS rows only the
_END_LABELS best and worst have one."""


# --- the map


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


# --- prompt by prompt


@dataclass(frozen=True)
class _Line:
    """One prompt: its number, its mean score without Q-Sched and its gain; NaN where nothing could be scored."""

    prompt: int
    before: float
    gain: float


def paired_plot(
    identity: Evaluation,
    candidate: Evaluation,
    n_prompts: int,
    prompts: Sequence[str] = (),
    metric: str = "jaq",
    confidence: float = 0.95,
) -> Image:
    """Each held-out prompt from its score without Q-Sched to that with it, the best gain first, and below
    all gains with their mean and its interval. Both rows are of the same indices.

    ``prompts`` are all ``n_prompts`` texts, or none; they may be anybody's. Of more than 40 held-out prompts the middle
    ones are drawn without their texts.
    """
    sign = -1 if lower_is_better(metric) else 1
    prompt_numbers = sorted({prompt_of(index, n_prompts) for index in identity.indices})
    lines = [_line(identity, candidate, metric, n_prompts, prompt) for prompt in prompt_numbers]
    lines.sort(key=lambda line: (math.isnan(line.gain), -sign * line.gain))
    scored_lines = [line for line in lines if math.isfinite(line.gain)]
    total = paired_gain(identity, candidate, metric, n_prompts, confidence)
    has_label = [
        len(lines) <= _MAX_LABELS or not _END_LABELS <= i < len(lines) - _END_LABELS for i in range(len(lines))
    ]
    heights = [_ROW_HEIGHT if name else _THIN_ROW_HEIGHT for name in has_label]
    top, body = 94, sum(heights)
    sheet = _Pairs(Canvas(WIDTH, top + body + 206), metric, sign, top, top + body)
    sheet.headings(total)
    sheet.axis([value for line in scored_lines for value in (line.before, line.before + line.gain)])
    digits, y = decimals([line.gain for line in scored_lines]), top
    for line, name, height in zip(lines, has_label, heights, strict=True):
        if name:
            sheet.label(line, y + height / 2, prompts, digits)
        sheet.line(line, y + height / 2, thin=not name)
        y += height
    if not all(has_label):
        sheet.middle(len(lines) - 2 * _END_LABELS)
    sheet.gains([line.gain for line in scored_lines], total, confidence)
    return sheet.picture.image()


def _line(identity: Evaluation, candidate: Evaluation, metric: str, n_prompts: int, prompt: int) -> _Line:
    of_prompt = prompt_of(np.asarray(identity.indices), n_prompts) == prompt
    before, after = identity.scores[metric][of_prompt], candidate.scores[metric][of_prompt]
    is_scored = np.isfinite(before) & np.isfinite(after)
    if not is_scored.any():
        return _Line(prompt, math.nan, math.nan)
    # The verdict's own gain, which counts a broken picture as none: all lines together make the mean below them.
    rows = (Evaluation((prompt,) * len(before), {metric: scores}) for scores in (before, after))
    return _Line(prompt, float(before[is_scored].mean()), paired_gain(*rows, metric, n_prompts, 0.5).gain)


class _Pairs:
    """The parts of a paired plot: rows from ``top`` to ``bottom``, gains below."""

    LEFT, RIGHT = 352, 900

    def __init__(self, picture: Canvas, metric: str, sign: int, top: float, bottom: float):
        self.picture, self.sign, self.top, self.bottom = picture, sign, top, bottom
        self.title = METRIC_TITLES.get(metric, metric)

    def headings(self, total: Interval) -> None:
        picture = self.picture
        title = picture.fitted(self.title[:1].upper() + self.title[1:], 19, 300)
        lower = ", lower is better" if self.sign < 0 else ""
        prompts = f"{total.prompts} held-out prompt{'s' * (total.prompts != 1)}"
        picture.text(24, 28, f"{title} of {prompts}, without and with Q-Sched{lower}", 19)
        x, y = 30, 62
        self.without(x, y)
        x = picture.text(x + 14, y, "without", 14) + 30
        for colour, name in ((GAIN, "with, better"), (LOSS, "with, worse")):
            picture.dot(x, y, 5.5, colour)
            x = picture.text(x + 14, y, name, 14) + 30
        picture.text(WIDTH - 24, y, "change" if self.sign < 0 else "gain", 14, FAINT, anchor="rm")

    def axis(self, values: Sequence[float]) -> None:
        low, high = _padded(values)
        self.low, self.width = low, high - low
        marks = ticks(low, high, 8)
        for value, text in zip(marks, labels(marks), strict=True):
            x = self.place(value)
            self.picture.line((x, self.top - 6), (x, self.bottom + 4), GRID, 1)
            self.picture.text(x, self.bottom + 18, text, 14, FAINT, anchor="mm")

    def place(self, value: float) -> float:
        return self.LEFT + (value - self.low) / self.width * (self.RIGHT - self.LEFT)

    def label(self, line: _Line, y: float, prompts: Sequence[str], digits: int) -> None:
        """Number, text and gain."""
        picture = self.picture
        picture.text(44, y, str(line.prompt + 1), 13, FAINT, anchor="rm")
        text = prompts[line.prompt] if line.prompt < len(prompts) else ""
        picture.text(54, y, picture.fitted(text, 14, self.LEFT - 54 - 22), 14)
        has_gain = math.isfinite(line.gain)
        gain = f"{line.gain:+.{digits}f}" if has_gain else "not scored"
        picture.text(WIDTH - 24, y, gain, 13, self.colour(line.gain) if has_gain else FAINT, anchor="rm")

    def line(self, line: _Line, y: float, thin: bool) -> None:
        if math.isnan(line.gain):
            return
        colour = self.colour(line.gain)
        start, end = self.place(line.before), self.place(line.before + line.gain)
        self.picture.line((start, y), (end, y), colour, 1.2 if thin else 3)
        if not thin:
            self.without(start, y)
        self.picture.dot(end, y, 1.5 if thin else 5.5, colour)

    def middle(self, count: int) -> None:
        y = (self.top + self.bottom) / 2
        self.picture.text(54, y, f"{count} more prompts", 14, FAINT)

    def gains(self, values: Sequence[float], total: Interval, confidence: float) -> None:
        """All gains on an axis of their own, and what they make together."""
        picture, top = self.picture, self.bottom + 60
        ends = [end for end in (total.low, total.high) if math.isfinite(end)]
        self.low, high = _padded([*values, *ends, 0.0])
        self.width = high - self.low
        picture.box((self.LEFT - 12, top), (self.RIGHT + 12, top + 88), BAND)
        marks = ticks(self.low, high, 8)
        for value, text in zip(marks, labels(marks), strict=True):
            x = self.place(value)
            picture.line((x, top), (x, top + 88), GRID, 1)
            picture.text(x, top + 104, text, 14, FAINT, anchor="mm")
        picture.line((self.place(0.0), top), (self.place(0.0), top + 88), INK, 1.4)
        picture.text(54, top + 26, "Gain of each prompt", 15)
        for value in values:
            x = self.place(value)
            picture.line((x, top + 14), (x, top + 38), self.colour(value), 1.6)
        y = top + 62
        picture.text(54, y, f"Mean, {100 * confidence:.3g} % interval", 15)
        colour = FAINT if not total.excludes_zero else self.colour(total.gain)
        if len(ends) == 2:
            picture.line((self.place(total.low), y), (self.place(total.high), y), colour, 4)
            for end in ends:
                picture.line((self.place(end), y - 8), (self.place(end), y + 8), colour, 2.4)
        picture.dot(self.place(total.gain), y, 7.5, INK)
        picture.dot(self.place(total.gain), y, 6, colour)
        digits = decimals([total.gain, *ends])
        text = f"{total.gain:+.{digits}f}"
        text += (
            f"  [{total.low:+.{digits}f}, {total.high:+.{digits}f}]" if len(ends) == 2 else "  one prompt: no interval"
        )
        picture.text(54, top + 84, text, 15, colour)

    def without(self, x: float, y: float) -> None:
        self.picture.dot(x, y, 5, FAINT)
        self.picture.dot(x, y, 3.4, PAPER)

    def colour(self, gain: float):
        return FAINT if gain == 0 else GAIN if self.sign * gain > 0 else LOSS


# --- the curves


def curves(coefficients: Coefficients, sigmas: Sequence[float] = ()) -> Image:
    """c_x and c_eps over the steps, with the sigma that each step starts from."""
    left, right, top, bottom = 70, 930, 56, 272
    picture = Canvas(WIDTH, bottom + (74 if len(sigmas) else 50))
    count = len(coefficients)
    low, high = _padded([*coefficients.c_x, *coefficients.c_eps, 0.97, 1.03], 0.14)
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


def _padded(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """The range of an axis: a little more than its values, and never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    largest = max(abs(low), abs(high))
    margin = share * (high - low if high - low > 1e-9 * largest else largest or 1.0)
    return low - margin, high + margin


def report_sheet(images: Sequence[Image]) -> Image:
    """Pictures below each other on one sheet."""
    from PIL.Image import new

    sheet = new("RGB", (max(image.width for image in images), sum(image.height for image in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, ((sheet.width - image.width) // 2, top))
        top += image.height
    return sheet
