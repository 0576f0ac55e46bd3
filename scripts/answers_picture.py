"""Draws what tells repair from re-tuning, for the help page: ``python -m scripts.answers_picture``.

Left repair, right re-tuning; in each the score of the reference model and of the quantised one, without and with the
same coefficients. A sketch: it has no figures, and no words, which would be of one language.
"""

from __future__ import annotations

from PIL import Image, ImageDraw

from .brand import FINE, LIGHT, LINE, NIGHT, TEAL, WARM
from .layout import ROOT

PICTURE = ROOT / "web" / "docs" / "QSchedCalibrate" / "answers.png"
WIDTH, HEIGHT = 640, 240

REPAIR, RETUNING = ((0.78, 0.78), (0.35, 0.68)), ((0.62, 0.88), (0.30, 0.56))
"""(reference, quantised): the score without and with the coefficients, in [0, 1]."""


def picture() -> Image.Image:
    image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), NIGHT)
    draw = ImageDraw.Draw(image)
    for place, models in enumerate((REPAIR, RETUNING)):
        left = (30 + place * 310) * FINE
        draw.rectangle((left, 20 * FINE, left + 270 * FINE, 220 * FINE), outline=LINE, width=2 * FINE)
        for column, (scores, colour) in enumerate(zip(models, (LIGHT, TEAL), strict=True)):
            _change(draw, left + (80 + 110 * column) * FINE, scores, colour)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _change(draw: ImageDraw.ImageDraw, x: float, scores: tuple[float, float], colour: tuple) -> None:
    """A ring before, a dot after, and an arrow where there is a way between them."""
    before, after = ((215 - 190 * score) * FINE for score in scores)
    ring, dot = 9 * FINE, 7 * FINE
    if before - after > 3 * ring:
        draw.line((x, before - ring, x, after + dot), fill=WARM, width=4 * FINE)
        head = after + dot + 4 * FINE
        draw.polygon((x, head - 6 * FINE, x - 8 * FINE, head + 8 * FINE, x + 8 * FINE, head + 8 * FINE), fill=WARM)
    draw.ellipse((x - ring, before - ring, x + ring, before + ring), outline=colour, width=3 * FINE)
    draw.ellipse((x - dot, after - dot, x + dot, after + dot), fill=colour)


def main() -> None:
    picture().save(PICTURE, optimize=True)
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
