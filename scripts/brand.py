"""Draws the pack's icon and banner: `python -m scripts.brand` writes docs/icon.png and docs/banner.png.

A picture in four sampling steps, from coarse to fine, and over it the two coefficients, which come back to 1.
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .layout import ROOT

ICON, BANNER = ROOT / "docs" / "icon.png", ROOT / "docs" / "banner.png"
FINE = 3
"""Drawn so many times larger: Pillow's lines have no smooth edges."""

NIGHT, GROUND, LINE = (13, 17, 27), (22, 29, 44), (70, 84, 112)
TEAL, WARM, LIGHT = (0, 191, 165), (255, 143, 64), (236, 241, 250)

Point = tuple[float, float]
Box = tuple[float, float, float, float]


def icon(size: int = 400) -> Image.Image:
    """Square, in pixels."""
    wide = size * FINE
    image = Image.new("RGB", (wide, wide), NIGHT)
    unit = wide / 100
    mask = Image.new("L", (wide, wide), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, wide - 1, wide - 1), 18 * unit, fill=255)
    draw = ImageDraw.Draw(image)
    for step, cells in enumerate((4, 8, 16, 48)):
        _scene(draw, (0, 0, wide, wide), cells, (step / 4, (step + 1) / 4), dim=0.5)
    _curves(draw, (13 * unit, 24 * unit, 87 * unit, 76 * unit), 4, 3.6 * unit, 5 * unit)
    image.putalpha(mask)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def banner(width: int = 1680, height: int = 720) -> Image.Image:
    """21 : 9, in pixels."""
    wide, tall = width * FINE, height * FINE
    image = Image.new("RGB", (wide, tall), NIGHT)
    unit = tall / 100
    _glow(image, (wide * 0.66, tall * 0.5), tall * 0.75)
    draw = ImageDraw.Draw(image)
    left, side, gap = 96 * unit, 28 * unit, 4 * unit
    for step, cells in enumerate((3, 6, 12, 48)):
        x = left + step * (side + gap)
        _scene(draw, (x, 58 * unit, x + side, 58 * unit + side), cells)
        draw.rectangle((x, 58 * unit, x + side, 58 * unit + side), outline=LINE, width=round(0.2 * unit))
    right = left + 4 * side + 3 * gap
    _curves(draw, (left + side / 2, 12 * unit, right - side / 2, 50 * unit), 4, 1.1 * unit, 1.7 * unit)
    draw.text((9 * unit, 30 * unit), "Q-Sched", font=_font(21 * unit), fill=LIGHT)
    for row, text in enumerate(("Few-step diffusion in four bits,", "with the quality calibrated back.")):
        draw.text((9.6 * unit, (57 + 7.4 * row) * unit), text, font=_font(5 * unit), fill=(150, 166, 196))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _curves(draw: ImageDraw.ImageDraw, box: Box, steps: int, width: float, dot: float) -> None:
    """c_x below and c_eps above the line at 1, both ending on it, with a dot per step."""
    left, top, right, bottom = box
    middle, reach = (top + bottom) / 2, (bottom - top) / 2
    draw.line([(left - width, middle), (right + width, middle)], fill=LINE, width=max(1, round(width / 2)))
    for colour, sign in ((WARM, -1), (TEAL, 1)):

        def at(t: float, sign: int = sign) -> Point:
            bend = (1 - t) ** 1.25 + 0.2 * math.sin(2 * math.pi * t)
            return left + (right - left) * t, middle - sign * reach * bend

        for i in range(1201):  # Pillow's own thick lines have notches
            x, y = at(i / 1200)
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=colour)
        for step in range(steps):
            _dot(draw, at(step / (steps - 1)), dot, colour)


def _dot(draw: ImageDraw.ImageDraw, centre: Point, radius: float, colour: tuple[int, int, int]) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=NIGHT)
    inner = 0.68 * radius
    draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=colour)


def _scene(
    draw: ImageDraw.ImageDraw, box: Box, cells: int, columns: tuple[float, float] = (0, 1), dim: float = 1.0
) -> None:
    """A sun over hills in ``cells`` x ``cells`` squares, each the mean of what it covers; ``columns`` is the part that
    is drawn, as fractions of the width."""
    left, top, right, bottom = box
    cell, fine = (right - left) / cells, max(1, 48 // cells)
    for row in range(cells):
        for column in range(round(columns[0] * cells), round(columns[1] * cells)):
            samples = [
                _landscape((column + (i + 0.5) / fine) / cells, (row + (j + 0.5) / fine) / cells)
                for i in range(fine)
                for j in range(fine)
            ]
            fill = tuple(round(dim * sum(colour[part] for colour in samples) / len(samples)) for part in range(3))
            x, y = left + column * cell, top + row * cell
            draw.rectangle((x, y, x + cell, y + cell), fill=fill)


def _landscape(x: float, y: float) -> tuple[float, float, float]:
    """The colour at a point, both coordinates 0 to 1, y downwards."""
    if y > 0.80 + 0.07 * math.sin(5.2 * x + 2.2):
        return 0, 84, 84
    if y > 0.64 + 0.12 * math.sin(4.4 * x + 0.4):
        return 0, 150, 132
    if (x - 0.64) ** 2 + (y - 0.38) ** 2 < 0.19**2:
        return 255, 176, 92
    return 30 + 190 * y, 38 + 60 * y, 84 + 10 * y


def _glow(image: Image.Image, centre: Point, radius: float) -> None:
    """Lights the background around a point."""
    light = Image.radial_gradient("L").resize((round(2 * radius), round(2 * radius)))
    light = light.point(lambda value: round(max(0, 181 - value) * 0.9))
    image.paste(GROUND, (round(centre[0] - radius), round(centre[1] - radius)), light)


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def save(image: Image.Image, path: Path) -> None:
    """As a PNG with a palette: flat colours need no more."""
    alpha = image.mode == "RGBA"
    method = Image.Quantize.FASTOCTREE if alpha else Image.Quantize.MEDIANCUT
    image.quantize(256, method=method, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    save(icon(), ICON)
    save(banner(), BANNER)
