"""A white sheet to draw charts on, smooth and colour-blind safe. PIL is imported when one is made."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 1000
"""Of a chart, in pixels."""

LOSS, GAIN = (213, 94, 0), (0, 114, 178)
"""Colours of what lost and what gained, told apart by every kind of eye."""

PAPER, BAND, GRID, FAINT, INK = (255, 255, 255), (246, 247, 249), (226, 229, 234), (128, 134, 145), (33, 37, 46)
"""Greys, from the sheet to its writing."""

COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
"""Okabe and Ito's: told apart by colour-blind people too."""

_FINE = 3
"""Drawn as many times as large and scaled down: PIL's lines and dots are not smooth themselves."""

_GLYPHS = frozenset(map(chr, range(32, 127))) | set("©«°±´·»‘’“”…‹›\u2044™")
"""What PIL's own font can draw; all else would come out as empty boxes."""


class Canvas:
    """The picture, in the coordinates of its final size."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.size = (width, height)
        self._image = Image.new("RGB", (width * _FINE, height * _FINE), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._fonts: dict[float, object] = {}

    def text(self, x: float, y: float, text: str, size: float, colour=INK, anchor: str = "lm") -> float:
        """The x where it ends, of text that starts at ``x``."""
        self._draw.text((x * _FINE, y * _FINE), text, fill=colour, font=self._font(size), anchor=anchor)
        return x + self.width(text, size)

    def width(self, text: str, size: float) -> float:
        return self._draw.textlength(text, font=self._font(size)) / _FINE

    def fitted(self, text: str, size: float, width: float) -> str:
        """What can be drawn of a stranger's text in ``width``: any characters, any length."""
        text = drawable(text[: round(width)])  # no letter is narrower than a pixel
        if self.width(text, size) <= width:
            return text
        fits, too_many = 0, len(text)  # letters that fit, and that do not
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            is_short = self.width(text[:middle].rstrip() + "…", size) <= width
            fits, too_many = (middle, too_many) if is_short else (fits, middle)
        return text[:fits].rstrip() + "…"

    def line(self, start: tuple[float, float], end: tuple[float, float], colour, width: float) -> None:
        points = [(x * _FINE, y * _FINE) for x, y in (start, end)]
        self._draw.line(points, fill=colour, width=max(1, round(width * _FINE)))

    def box(self, start: tuple[float, float], end: tuple[float, float], colour) -> None:
        self._draw.rectangle([value * _FINE for value in (*start, *end)], fill=colour)

    def frame(self, start: tuple[float, float], end: tuple[float, float], colour, width: float) -> None:
        self._draw.rectangle([v * _FINE for v in (*start, *end)], outline=colour, width=round(width * _FINE))

    def dot(self, x: float, y: float, radius: float, colour) -> None:
        self._draw.ellipse(self._around(x, y, radius), fill=colour)

    def ring(self, x: float, y: float, radius: float, colour, width: float) -> None:
        """``radius`` is the outer one."""
        self._draw.ellipse(self._around(x, y, radius), outline=colour, width=round(width * _FINE))

    def cross(self, x: float, y: float, radius: float, colour, width: float) -> None:
        """Upright: a plus."""
        self.line((x - radius, y), (x + radius, y), colour, width)
        self.line((x, y - radius), (x, y + radius), colour, width)

    def saltire(self, x: float, y: float, radius: float, colour, width: float) -> None:
        """A cross on its side: an x."""
        self.line((x - radius, y - radius), (x + radius, y + radius), colour, width)
        self.line((x - radius, y + radius), (x + radius, y - radius), colour, width)

    def image(self) -> Image:
        """RGB, in its final size."""
        from PIL.Image import Resampling

        return self._image.resize(self.size, Resampling.LANCZOS)

    def _around(self, x: float, y: float, radius: float) -> list[float]:
        return [value * _FINE for value in (x - radius, y - radius, x + radius, y + radius)]

    def _font(self, size: float):
        if size not in self._fonts:
            from PIL import ImageFont

            self._fonts[size] = ImageFont.load_default(size * _FINE)
        return self._fonts[size]


def drawable(text: str) -> str:
    """Letters without their accents, a run of what the font does not have as one ellipsis, blanks as one blank."""
    letters = (c for c in unicodedata.normalize("NFKD", " ".join(text.split())) if not unicodedata.combining(c))
    return re.sub("…[… ]*…", "…", "".join(c if c in _GLYPHS else "…" for c in letters))


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` round numbers in [low, high], evenly spaced by 1, 2 or 5 times a power of ten."""
    if not low < high:
        return [low]
    # The division's rounding must not lose the ends.
    ranges = (
        (step, range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)) for step in _steps((high - low) / most)
    )
    return next([i * step for i in places] for step, places in ranges if len(places) <= most)


def padded(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """The range of an axis: a little more than its values, and never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    largest = max(abs(low), abs(high))
    margin = share * (high - low if high - low > 1e-9 * largest else largest or 1.0)
    return low - margin, high + margin


def labels(values: Sequence[float]) -> list[str]:
    """Ticks as text, all with as many decimals as the one that needs most."""
    digits = max((len(f"{value:.9f}".rstrip("0").partition(".")[2]) for value in values), default=0)
    return [f"{value:.{digits}f}" for value in values]


def _steps(least: float) -> Iterator[float]:
    power = floor(log10(least))
    for exponent in range(power, power + 3):
        yield from (factor * 10.0**exponent for factor in (1, 2, 5))


def report_sheet(images: Sequence[Image]) -> Image:
    """Pictures below each other on one sheet."""
    from PIL.Image import new

    sheet = new("RGB", (max(image.width for image in images), sum(image.height for image in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, ((sheet.width - image.width) // 2, top))
        top += image.height
    return sheet
