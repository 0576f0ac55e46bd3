"""What each held-out prompt gained, as a picture for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..indices import prompt_of
from ..numbers import decimals
from ..report import METRIC_TITLES, lower_is_better
from ..validate import Evaluation, Interval, paired_gain
from .canvas import BAND, FAINT, GAIN, GRID, INK, LOSS, PAPER, WIDTH, Canvas, labels, padded, ticks

if TYPE_CHECKING:
    from PIL.Image import Image

_ROW_HEIGHT, _THIN_ROW_HEIGHT, _END_LABELS, _MAX_LABELS = 23, 3, 12, 40
"""Heights of a prompt's row with and without its text. Of more than _MAX_LABELS rows only the
_END_LABELS best and worst have one."""


@dataclass(frozen=True)
class _PromptRow:
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
    sheet = _Sheet(Canvas(WIDTH, top + body + 206), metric, sign, top, top + body)
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


def _line(identity: Evaluation, candidate: Evaluation, metric: str, n_prompts: int, prompt: int) -> _PromptRow:
    of_prompt = prompt_of(np.asarray(identity.indices), n_prompts) == prompt
    before, after = identity.scores[metric][of_prompt], candidate.scores[metric][of_prompt]
    is_scored = np.isfinite(before) & np.isfinite(after)
    if not is_scored.any():
        return _PromptRow(prompt, math.nan, math.nan)
    # The verdict's own gain, which counts a broken picture as none: all lines together make the mean below them.
    rows = (Evaluation((prompt,) * len(before), {metric: scores}) for scores in (before, after))
    return _PromptRow(prompt, float(before[is_scored].mean()), paired_gain(*rows, metric, n_prompts, 0.5).gain)


class _Sheet:
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
        low, high = padded(values)
        self.low, self.width = low, high - low
        marks = ticks(low, high, 8)
        for value, text in zip(marks, labels(marks), strict=True):
            x = self.place(value)
            self.picture.line((x, self.top - 6), (x, self.bottom + 4), GRID, 1)
            self.picture.text(x, self.bottom + 18, text, 14, FAINT, anchor="mm")

    def place(self, value: float) -> float:
        return self.LEFT + (value - self.low) / self.width * (self.RIGHT - self.LEFT)

    def label(self, line: _PromptRow, y: float, prompts: Sequence[str], digits: int) -> None:
        """Number, text and gain."""
        picture = self.picture
        picture.text(44, y, str(line.prompt + 1), 13, FAINT, anchor="rm")
        text = prompts[line.prompt] if line.prompt < len(prompts) else ""
        picture.text(54, y, picture.fitted(text, 14, self.LEFT - 54 - 22), 14)
        has_gain = math.isfinite(line.gain)
        gain = f"{line.gain:+.{digits}f}" if has_gain else "not scored"
        picture.text(WIDTH - 24, y, gain, 13, self.colour(line.gain) if has_gain else FAINT, anchor="rm")

    def line(self, line: _PromptRow, y: float, thin: bool) -> None:
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
        self.low, high = padded([*values, *ends, 0.0])
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
