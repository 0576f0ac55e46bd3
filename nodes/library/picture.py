"""A preset as one picture to post: what it is for, its curves, its gain; with the preset's file in it."""

from __future__ import annotations

import base64
import binascii
import io
import re

from ...calibration.plots.canvas import BAND, COLOURS, FAINT, GRID, INK, Canvas, labels, ticks
from ...qsched_core import PresetError
from .card import THUMBNAIL, WORKFLOW_KEYS, bound_text, clean, gain_of, notes_of, steps_text, thumbnail_picture

WIDTH, HEIGHT = 1200, 630
"""Pixels: what sites show of a link without cutting it."""

_MARGIN, _THUMBNAIL_SIDE = 56, 256
"""Pixels: around all that is drawn, and of the thumbnail that the card holds."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 120, 1070, 330, 540
"""Of the chart."""
_MAX_SIGMA_LABELS = 16
"""Steps that get a sigma below them."""


PNG_KEYWORD = "qsched_preset"
"""The picture's text that is the preset's file in base64: what a chat or a forum leaves in place is the picture."""

PICTURE_SUFFIX = re.compile(r"(\.qsched)?( ?\(\d+\))?\.png$", re.IGNORECASE)
"""Of the picture's name: what the page adds, and what browsers do where a file of that name is there."""

_PNG = b"\x89PNG\r\n\x1a\n"


def carried_preset(file_name: str, content: bytes) -> tuple[str, bytes]:
    """(name, bytes) of the preset's file in a picture to share; of the file itself where it is no picture.

    Raises:
        PresetError: a picture without a preset.
    """
    if not content.startswith(_PNG):
        return file_name, content
    keyword = PNG_KEYWORD.encode() + b"\0"
    for kind, data in _chunks(content):
        if kind == b"tEXt" and data.startswith(keyword):
            try:
                return PICTURE_SUFFIX.sub("", file_name) + ".safetensors", base64.b64decode(
                    data[len(keyword) :], validate=True
                )
            except binascii.Error:
                break
    raise PresetError("there is no preset in this picture.", "import a picture that Q-Sched's sidebar made")


def _chunks(content: bytes):
    """(kind, data) of each part of a PNG; one that is longer than the file ends it. Nothing is decoded."""
    at = len(_PNG)
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if at + 12 + length > len(content):
            return
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def share_picture(preset, file: bytes = b"") -> bytes:
    """A PNG of 1200 x 630 with the preset's ``file`` and its workflow in it, if it has one."""
    from PIL import ImageOps
    from PIL.PngImagePlugin import PngInfo

    canvas = Canvas(WIDTH, HEIGHT)
    thumbnail = thumbnail_picture(preset.card.get(THUMBNAIL, ""))
    _words(canvas, preset, WIDTH - _MARGIN - (0 if thumbnail is None else _THUMBNAIL_SIDE + 32))
    _chart(canvas, preset)
    picture = canvas.image()
    if thumbnail is not None:
        thumbnail = ImageOps.contain(thumbnail, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        picture.paste(thumbnail, (WIDTH - _MARGIN - thumbnail.width, 44))
    info = PngInfo()
    for name in WORKFLOW_KEYS:
        if (text := preset.card.get(name, "")) and text.isascii():
            info.add_text(name, text)
    if file:
        info.add_text(PNG_KEYWORD, base64.b64encode(file).decode())
    png = io.BytesIO()
    picture.save(png, "PNG", pnginfo=info)
    return png.getvalue()


def _words(canvas: Canvas, preset, right: float) -> None:
    width, card = right - _MARGIN, preset.card

    def line(y: float, text: str, size: float, colour=INK) -> None:
        canvas.text(_MARGIN, y, canvas.fitted(text, size, width), size, colour)

    line(66, clean(card.get("modelspec.title", ""), 120) or "Q-Sched preset", 36)
    line(114, bound_text(preset), 19)
    gain = gain_of(preset)
    if gain:
        line(164, "JAQ gain on held-out prompts {:+.4f}  [{:+.4f}, {:+.4f}]".format(*gain), 24, COLOURS[1])
    line(164 if not gain else 206, f"{steps_text(preset)}, {preset.verdict}", 20)
    credits = clean(card.get("modelspec.author", ""), 80), clean(card.get("modelspec.license", ""), 80)
    line(246, "  ·  ".join(filter(None, credits)), 16, FAINT)
    line(274, notes_of(preset), 16, FAINT)
    canvas.text(WIDTH - _MARGIN, HEIGHT - 34, "Q-Sched preset for ComfyUI", 16, FAINT, anchor="rm")


def _chart(canvas: Canvas, preset) -> None:
    """c_x and c_eps over the steps, their sigmas below."""
    curves = {"c_x": preset.coefficients.c_x, "c_eps": preset.coefficients.c_eps}
    every = [value for values in curves.values() for value in values] + [1.0]
    middle, reach = (min(every) + max(every)) / 2, max(0.02, 0.55 * (max(every) - min(every)))
    low, high = middle - reach, middle + reach
    count = preset.steps

    def x(step: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (step / (count - 1) if count > 1 else 0.5)

    def y(value: float) -> float:
        return _BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP)

    canvas.box((_LEFT - 20, _TOP - 12), (_RIGHT + 20, _BOTTOM + 12), BAND)
    marks = ticks(low, high, 6)
    for value, text in zip(marks, labels(marks), strict=True):
        canvas.line((_LEFT - 20, y(value)), (_RIGHT + 20, y(value)), GRID, 1)
        canvas.text(_LEFT - 30, y(value), text, 15, FAINT, anchor="rm")
    canvas.line((_LEFT - 20, y(1)), (_RIGHT + 20, y(1)), FAINT, 1.2)
    ends = []
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        points = [(x(step), y(value)) for step, value in enumerate(values)]
        for start, end in zip(points, points[1:], strict=False):
            canvas.line(start, end, colour, 3)
        for point in points if count <= 60 else ():
            canvas.dot(*point, 5.5, colour)
        ends.append((points[-1][1], name, colour))
    (above, *_), (below, *_) = ends = sorted(ends)
    push = max(0.0, (20 - (below - above)) / 2)
    for (height, name, colour), sign in zip(ends, (-1, 1), strict=True):
        canvas.text(_RIGHT + 30, height + sign * push, name, 17, colour)
    every_nth = -(-count // _MAX_SIGMA_LABELS)
    for step in range(0, count, every_nth):
        canvas.text(x(step), _BOTTOM + 28, f"{preset.sigmas[step]:.3g}", 14, FAINT, anchor="mm")
    canvas.text(_LEFT - 30, _BOTTOM + 28, "sigma", 14, FAINT, anchor="rm")
