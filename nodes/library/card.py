"""What a preset's file tells people: its card in the host's model sidebar, and the workflow it was made with."""

from __future__ import annotations

import base64
import io
import json
import re
import unicodedata

import numpy as np
from comfy.cli_args import args

from ...calibration import record
from ...qsched_core import Preset
from ..host.progress import inert

THUMBNAIL = "modelspec.thumbnail"
WORKFLOW_KEYS = ("workflow", "prompt")
"""What the host's page looks for in a file that is dropped on the canvas."""

_THUMBNAIL_SIDE = 256
"""Pixels: as the host's sidebar shows it, and some 20 KB."""

_MAX_URI_LENGTH, _MAX_THUMBNAIL_SIDE = 400_000, 1024
"""Characters and pixels of a stranger's: far more than ours have, and nothing that takes long to decode."""

_URI = re.compile(r"data:image/(?:jpeg|png|webp);base64,([A-Za-z0-9+/]+={0,2})")


def clean(text: object, most: int) -> str:
    """A stranger's text for one line: blanks as one blank, nothing that cannot be seen, at most ``most`` characters."""
    words = str(text)[: 4 * most].split()
    line = "".join(c for c in " ".join(words) if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return line if len(line) <= most else line[: most - 1] + "…"


def gain_of(preset) -> tuple[float, float, float] | None:
    """(gain, low, high): the JAQ gain on held-out prompts with its interval, or None if none was measured."""
    return record.read_gain(preset.record)


def gain_text(preset) -> str:
    """The gain and its interval in words, or "" if none was measured."""
    gain = gain_of(preset)
    return "held-out JAQ gain {:+.4f} [{:+.4f}, {:+.4f}]".format(*gain) if gain else ""


def votes_text(preset) -> str:
    """The result of a blind vote, counted anew from the file's numbers; "" if there was none."""
    votes = record.read_votes(preset.record)
    return "" if votes is None else str(votes)


def bound_text(preset) -> str:
    """What a preset was made for, in one line."""
    bound = preset.binding
    cfg = f"cfg {bound.cfg:g}" if bound.cfg else "any cfg"
    return (
        f"model {clean(bound.model, 80) or 'any'}, quantisation {clean(bound.quantization, 80) or 'any'}, "
        f"{clean(bound.sampler, 40) or 'any sampler'} / {clean(bound.scheduler, 40) or 'any scheduler'}, {cfg}"
    )


def facts(preset) -> str:
    """Steps, verdict, gain and votes in one line."""
    figures = ", ".join(filter(None, (steps_text(preset), preset.verdict, gain_text(preset))))
    return ". ".join(filter(None, (figures, votes_text(preset))))


def steps_text(preset) -> str:
    return f"{preset.steps} step{'s' * (preset.steps != 1)}"


def describe_preset(preset: Preset) -> str:
    """A preset in a few lines for a person."""
    lines = [
        f"{clean(preset.card.get('modelspec.title', ''), 120) or 'Q-Sched preset'}: {preset.steps} steps, "
        f"{preset.verdict}",
        bound_text(preset),
        "c_x   " + "  ".join(f"{value:.3f}" for value in preset.coefficients.c_x),
        "c_eps " + "  ".join(f"{value:.3f}" for value in preset.coefficients.c_eps),
        "" if preset.precision is None else f"precision of the steps: {preset.precision.text()}",
        gain_text(preset),
        votes_text(preset),
        notes_of(preset),
    ]
    return inert("\n".join(filter(None, lines)))


def make_card(preset, title: str, author: str, license: str, notes: str, thumbnail: str = "") -> dict[str, str]:
    """The fields of the host's model card; empty ones are left out."""
    author_notes = notes.strip() or notes_of(preset)
    card = {
        "modelspec.title": title.strip(),
        "modelspec.author": author,
        "modelspec.license": license,
        "modelspec.description": "\n".join(filter(None, (author_notes, facts(preset), bound_text(preset)))),
        "modelspec.usage_hint": "Load Q-Sched Preset, then Q-Sched Sampler or Apply Q-Sched",
        "modelspec.architecture": preset.binding.model,
        "modelspec.tags": "q-sched",
        THUMBNAIL: thumbnail,
    }
    return {key: value for key, value in card.items() if value}


def notes_of(preset) -> str:
    """What the author says, without the lines that every card has."""
    lines = preset.card.get("modelspec.description", "")[:4000].splitlines()
    return clean(" ".join(line for line in lines if line not in (facts(preset), bound_text(preset))), 600)


def workflow_allowed() -> bool:
    """Whether files may say how they were made: not where the host was started with --disable-metadata."""
    return not getattr(args, "disable_metadata", False)


def workflow_fields(workflow: object, prompt: object) -> dict[str, str]:
    """The workflow of the page and the prompt that ran, as the host writes them into pictures, if it does."""
    texts = {}
    if not workflow_allowed():
        return texts
    for name, value in zip(WORKFLOW_KEYS, (workflow, prompt), strict=True):
        try:
            if value:
                texts[name] = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            continue  # not what the page could read back
    return texts


def thumbnail_uri(images) -> str:
    """IMAGE (B, H, W, C) in [0, 1] as a small JPEG in a data URI: the first picture, or the first two side by side."""
    from PIL import Image

    pictures = [
        Image.fromarray((picture[..., :3].float().clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8))
        for picture in images[:2]
    ]
    sheet = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width
    return _uri(sheet)


def safe_thumbnail(uri: str) -> str:
    """A stranger's thumbnail, decoded and written anew; "" where it is no small JPEG, PNG or WEBP."""
    picture = thumbnail_picture(uri)
    return "" if picture is None else _uri(picture)


def thumbnail_picture(uri: str):
    """The RGB picture of a data URI, or None."""
    from PIL import Image

    data = _URI.fullmatch(uri) if len(uri) <= _MAX_URI_LENGTH else None
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(data[1])), formats=("JPEG", "PNG", "WEBP")) as picture:
            return picture.convert("RGB") if max(picture.size) <= _MAX_THUMBNAIL_SIDE else None
    except Exception:  # noqa: BLE001 - decoders fail on a stranger's bytes in every way there is
        return None


def _uri(picture) -> str:
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
