"""Captioned pictures of shapes, drawn from signed distances: the demo's whole world.

A scene is one row of small integers (``FIELDS``); a batch of scenes is a (B, 9) int64 tensor. The same row
gives the caption, the picture and the attributes that the picture should show, so every score has a truth.
"""

from __future__ import annotations

import hashlib
import math
import re

import torch
from torch import Tensor

PICTURE_SIZE = 64

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS = {
    "red": (0.86, 0.16, 0.16),
    "yellow": (0.97, 0.80, 0.18),
    "green": (0.16, 0.62, 0.27),
    "blue": (0.15, 0.33, 0.86),
    "purple": (0.56, 0.22, 0.72),
    "cyan": (0.20, 0.78, 0.84),
}
SIZES = ("small", "large")
BACKGROUNDS = {
    "white": (0.96, 0.96, 0.96),
    "black": (0.08, 0.08, 0.09),
    "gray": (0.52, 0.52, 0.53),
    "sand": (0.87, 0.76, 0.58),
}
LAYOUTS = ("one", "row", "column")
RELATIONS = {"row": ("left of", "right of"), "column": ("above", "below")}

FIELDS = ("layout", "a_shape", "a_colour", "a_size", "b_shape", "b_colour", "b_size", "background", "order")
"""Slot a is the only, the left or the upper thing; ``order`` = 1 names slot b first."""

ATTRIBUTES = FIELDS[:-1]
"""What a classifier can read off a picture; ``order`` is only a way of saying it."""

CARDINALITY = (len(LAYOUTS), 6, 6, 2, 6, 6, 2, len(BACKGROUNDS), 2)

_COLOUR_NAMES, _BACKGROUND_NAMES = tuple(COLOURS), tuple(BACKGROUNDS)
_THING = r"an? (\w+) (\w+) (\w+)"
_CAPTION = rf"^{_THING}(?: (left of|right of|above|below) {_THING})? on a (\w+) background$"


def caption_of(row: Tensor) -> str:
    """The one caption of a scene row (9,)."""
    layout, *slots, background, order = row.tolist()
    things = [f"a {SIZES[s[2]]} {_COLOUR_NAMES[s[1]]} {SHAPES[s[0]]}" for s in (slots[:3], slots[3:])]
    ground = f"on a {_BACKGROUND_NAMES[background]} background"
    if layout == 0:
        return f"{things[0]} {ground}"
    relation = RELATIONS[LAYOUTS[layout]][order]
    return f"{things[order]} {relation} {things[1 - order]} {ground}"


def parse_caption(caption: str) -> Tensor | None:
    """The scene row (9,) of a caption, or None for a sentence outside the demo's grammar."""
    match = re.match(_CAPTION, " ".join(caption.lower().replace(",", " ").strip(" .").split()))
    if match is None:
        return None
    size1, colour1, shape1, relation, size2, colour2, shape2, background = match.groups()
    try:
        first = [SHAPES.index(shape1), _COLOUR_NAMES.index(colour1), SIZES.index(size1)]
        ground = _BACKGROUND_NAMES.index(background)
        if relation is None:
            return torch.tensor([0, *first, 0, 0, 0, ground, 0])
        second = [SHAPES.index(shape2), _COLOUR_NAMES.index(colour2), SIZES.index(size2)]
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
    """``count`` random scene rows (count, 9): a third with one thing; all held out, or none."""
    rows: list[Tensor] = []
    while len(rows) < count:
        scenes = torch.stack([torch.randint(n, (count,), generator=generator) for n in CARDINALITY], dim=1)
        single = scenes[:, 0] == 0
        scenes[single, 4:7] = 0
        scenes[single, 8] = 0
        rows += [row for row in scenes if is_held_out(caption_of(row)) == held_out]
    return torch.stack(rows[:count])


def relevant_attributes(rows: Tensor) -> Tensor:
    """(B, 8) bool: slot b means nothing in a picture of one thing."""
    mask = torch.ones(len(rows), len(ATTRIBUTES), dtype=torch.bool)
    mask[rows[:, 0] == 0, 4:7] = False
    return mask


def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, 64, 64) in [0, 1] of scene rows (B, 9); ``generator`` moves and resizes a little."""
    count = len(rows)
    layout = rows[:, 0]
    jitter = torch.rand(count, 2, 3, generator=generator) * 2 - 1
    ground = torch.tensor(list(BACKGROUNDS.values()))[rows[:, 7]]
    light = torch.linspace(1.04, 0.93, PICTURE_SIZE).view(1, 1, -1, 1)
    picture = ground.view(count, 3, 1, 1) * light.expand(1, 1, PICTURE_SIZE, PICTURE_SIZE)
    colours = torch.tensor(list(COLOURS.values()))
    for slot in (0, 1):
        shape, colour, size = rows[:, 1 + 3 * slot], rows[:, 2 + 3 * slot], rows[:, 3 + 3 * slot]
        centre, radius = _placement(layout, slot, size, jitter[:, slot])
        coverage = _coverage(shape, centre, radius)
        if slot == 1:
            coverage = coverage * (layout > 0).view(-1, 1, 1)
        paint = colours[colour].view(count, 3, 1, 1) * torch.linspace(1.12, 0.88, PICTURE_SIZE).view(1, 1, -1, 1)
        picture = torch.lerp(picture, paint.expand_as(picture), coverage.unsqueeze(1))
    return picture.clamp(0, 1)


def _placement(layout: Tensor, slot: int, size: Tensor, jitter: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (B, 2) as (x, y) and radius (B,), in pixels."""
    half, offset = PICTURE_SIZE / 2, PICTURE_SIZE * 0.235 * (2 * slot - 1)
    single = layout == 0
    x = half + torch.where(layout == 1, offset, 0.0) + jitter[:, 0] * torch.where(single, 5.0, 2.0)
    y = half + torch.where(layout == 2, offset, 0.0) + jitter[:, 1] * torch.where(single, 5.0, 2.0)
    radius = torch.where(single, torch.where(size == 1, 22.0, 11.0), torch.where(size == 1, 13.5, 7.5))
    return torch.stack([x, y], dim=1), radius * (1 + 0.06 * jitter[:, 2])


def _coverage(shape: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    """Antialiased coverage (B, H, W) in [0, 1]: the signed distance in pixels, clipped to one pixel of edge."""
    axis = torch.arange(PICTURE_SIZE) + 0.5
    x = (axis.view(1, 1, -1) - centre[:, 0].view(-1, 1, 1)) / radius.view(-1, 1, 1)
    y = (axis.view(1, -1, 1) - centre[:, 1].view(-1, 1, 1)) / radius.view(-1, 1, 1)
    x, y = torch.broadcast_tensors(x, y)
    distance = torch.empty_like(x)
    for index, measure in enumerate(_DISTANCES):
        mask = shape == index
        if mask.any():
            distance[mask] = measure(x[mask], y[mask])
    return (0.5 - distance * radius.view(-1, 1, 1)).clamp(0, 1)


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.82


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    side = math.sqrt(3) / 2 * x.abs() - 0.5 * y
    return torch.maximum(side, y) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points: fold the plane into one half-sector and measure to the edge from tip to notch."""
    angle = torch.atan2(x, -y)
    sector = 2 * math.pi / 5
    angle_in_sector = (angle - sector * torch.round(angle / sector)).abs()
    length = torch.hypot(x, y)
    u, v = length * torch.cos(angle_in_sector), length * torch.sin(angle_in_sector)
    tip, notch = 1.1, (0.5 * math.cos(sector / 2), 0.5 * math.sin(sector / 2))
    edge = (notch[0] - tip, notch[1])
    norm = math.hypot(*edge)
    return ((u - tip) * -edge[1] + v * edge[0]) / -norm


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.24


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 0.3, y - 0.95), torch.maximum(x - 0.95, y - 0.3))


_DISTANCES = (_circle, _square, _triangle, _star, _ring, _cross)
