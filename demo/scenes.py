"""Captioned pictures of one or two things on a plain ground: the demo's whole world.

A scene is one row of small integers (``FIELDS``); a batch of scenes is a (B, 7) int64 tensor. The same row
gives the caption, the picture and the attributes that the picture should show, so every score has a truth.
"""

from __future__ import annotations

import hashlib
import re

import torch
from torch import Tensor

from .sheet import WIDTHS
from .things import THINGS, drawings

PICTURE_SIZE = 128

SIZES = ("small", "large")
BACKGROUNDS = {
    "white": (0.95, 0.95, 0.95),
    "sand": (0.90, 0.80, 0.62),
    "sky": (0.66, 0.85, 0.96),
    "mint": (0.70, 0.91, 0.78),
    "pink": (0.97, 0.80, 0.85),
    "night": (0.20, 0.22, 0.40),
}
LAYOUTS = ("one", "row", "column")
RELATIONS = {"row": ("left of", "right of"), "column": ("above", "below")}

FIELDS = ("layout", "a_thing", "a_size", "b_thing", "b_size", "background", "order")
"""Slot a is the only, the left or the upper thing; ``order`` = 1 names slot b first."""

ATTRIBUTES = FIELDS[:-1]
"""What a classifier can read off a picture; ``order`` is only a way of saying it."""

CARDINALITY = (len(LAYOUTS), len(THINGS), len(SIZES), len(THINGS), len(SIZES), len(BACKGROUNDS), 2)

CENTRES = (((64, 64), (64, 64)), ((32, 64), (96, 64)), ((64, 32), (64, 96)))
"""(x, y) in pixels per layout and slot. All are multiples of 16, a token of the painter: a thing has the same
latents wherever it is, so a net of a few million parameters can learn it by heart."""

LIGHT_SPREAD = 0.05
"""Standard deviation of the ground's change of brightness from edge to edge: what the noise decides."""

_BACKGROUND_NAMES = tuple(BACKGROUNDS)
_THING = r"an? (\w+) (\w+)"
_CAPTION = rf"^{_THING}(?: (left of|right of|above|below) {_THING})? on a (\w+) background$"


def caption_of(row: Tensor) -> str:
    """The one caption of a scene row (7,)."""
    layout, *slots, background, order = row.tolist()
    things = [f"a {SIZES[size]} {THINGS[thing]}" for thing, size in (slots[:2], slots[2:])]
    ground = f"on a {_BACKGROUND_NAMES[background]} background"
    if layout == 0:
        return f"{things[0]} {ground}"
    relation = RELATIONS[LAYOUTS[layout]][order]
    return f"{things[order]} {relation} {things[1 - order]} {ground}"


def parse_caption(caption: str) -> Tensor | None:
    """The scene row (7,) of a caption, or None for a sentence outside the demo's grammar."""
    match = re.match(_CAPTION, " ".join(caption.lower().replace(",", " ").strip(" .").split()))
    if match is None:
        return None
    size1, thing1, relation, size2, thing2, background = match.groups()
    try:
        first = [THINGS.index(thing1), SIZES.index(size1)]
        ground = _BACKGROUND_NAMES.index(background)
        if relation is None:
            return torch.tensor([0, *first, 0, 0, ground, 0])
        second = [THINGS.index(thing2), SIZES.index(size2)]
    except ValueError:
        return None
    layout = "row" if relation in RELATIONS["row"] else "column"
    order = RELATIONS[layout].index(relation)
    slots = second + first if order else first + second
    return torch.tensor([LAYOUTS.index(layout), *slots, ground, order])


def is_held_out(caption: str) -> bool:
    """One caption in ten, by its hash: no net of the demo has seen it in training."""
    return hashlib.sha256(caption.encode()).digest()[0] < 26


def sample_scenes(count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
    """``count`` random scene rows (count, 7): a third with one thing; all held out, or none."""
    rows: list[Tensor] = []
    while len(rows) < count:
        scenes = torch.stack([torch.randint(n, (count,), generator=generator) for n in CARDINALITY], dim=1)
        single = scenes[:, 0] == 0
        scenes[single, 3:5] = 0
        scenes[single, 6] = 0
        rows += [row for row in scenes if is_held_out(caption_of(row)) == held_out]
    return torch.stack(rows[:count])


def relevant_attributes(rows: Tensor) -> Tensor:
    """(B, 6) bool: slot b means nothing in a picture of one thing."""
    mask = torch.ones(len(rows), len(ATTRIBUTES), dtype=torch.bool)
    mask[rows[:, 0] == 0, 3:5] = False
    return mask


def places(row: list[int]) -> list[tuple[int, int, int, int]]:
    """(thing, x, y, width) of each thing of a scene row, x and y of its upper left corner, in pixels."""
    layout, *slots = row[:5]
    out = []
    for slot in range(1 if layout == 0 else 2):
        thing, size = slots[2 * slot : 2 * slot + 2]
        width = WIDTHS[0] if size == 0 else WIDTHS[2 if layout == 0 else 1]
        x, y = CENTRES[layout][slot]
        out.append((thing, x - width // 2, y - width // 2, width))
    return out


def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, 128, 128) in [0, 1] of scene rows (B, 7); ``generator`` turns the light on the ground."""
    count = len(rows)
    axis = torch.linspace(-0.5, 0.5, PICTURE_SIZE)
    slope = LIGHT_SPREAD * torch.randn(count, 2, 1, 1, generator=generator)
    light = 1 + slope[:, :1] * axis + (slope[:, 1:] - 0.06) * axis.unsqueeze(1)
    ground = torch.tensor(list(BACKGROUNDS.values()))[rows[:, 5]]
    picture = (ground.view(count, 3, 1, 1) * light.view(count, 1, PICTURE_SIZE, PICTURE_SIZE)).clamp_(0, 1)
    for canvas, row in zip(picture, rows.tolist(), strict=True):
        for thing, x, y, width in places(row):
            drawing = drawings(width)[thing]
            part = canvas[:, y : y + width, x : x + width]
            part.mul_(1 - drawing[3:]).add_(drawing[:3])
    return picture.clamp_(0, 1)
