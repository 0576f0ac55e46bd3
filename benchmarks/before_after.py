"""The README's first picture: ``python -m benchmarks.before_after``, some ten minutes on one core.

The demo's pictures in full precision; in W4A4, all layers, one scale per channel, rounded to the nearest; the same with
what Q-Sched's search finds; rounded to what the layers see on other captions; and that with what its own search finds.
Same noise in each column; the first shows a part of the second one's picture, enlarged. Beside it, over more captions,
what a classifier that no search has asked reads off the pictures, and how far they are from those in full precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from calibration import Settings, calibrate
from calibration.metrics.reference import distance
from calibration.search.guard import Guard
from qsched_core import Coefficients

from . import toys
from .record import record

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "before_after.png"
CAPTIONS = (
    "a large panda on a mint background",
    "a large house left of a small boat on a sky background",
    "a large rocket below a small star on a night background",
    "a large cat below a small moon on a sky background",
    "a small robot on a sky background",
)
CROP = (32, 40, 64)
"""Left, top and side, in pixels of the first scene's picture, of the part that is shown larger."""

SEED, SEARCH_CAPTIONS, TRIALS, JUDGE_CAPTIONS = 3, 24, 24, 192
ROUNDING = toys.VISIBLE_DAMAGE["flow"]
SIDE, GAP, LABEL = 160, 6, 24
PAPER, INK, ACCENT = "#fafafa", "#1e1e1e", "#00796b"

Row = tuple[str, toys.Toy, Coefficients]


def rows() -> list[Row]:
    """(name, toy, coefficients), the full one first."""
    full = toys.load("flow")
    observation = full.observed(toys.captions(32, 5))
    identity = Coefficients.identity(len(full.sigmas) - 1)
    out = [("full precision", full, identity)]
    for name, more in (("W4A4, nearest", {}), ("W4A4, fitted", {"observation": observation})):
        toy = full.quantized("w4a4", **ROUNDING, **more)
        out += [(name, toy, identity), (f"{name}, with Q-Sched", toy, best_coefficients(toy, full))]
    return out


def best_coefficients(toy: toys.Toy, full: toys.Toy) -> Coefficients:
    """The best candidate of the default search, the full model as its reference: as JAQ Calibrate does by default, none
    wins whose pictures are farther from the full model's than without it."""
    captions, steps = toys.captions(SEARCH_CAPTIONS + 4, 11), len(toy.sigmas) - 1
    score, _ = toys.scored(captions)
    reference = full.generator(captions, SEED)
    right = reference(Coefficients.identity(steps), range(len(captions)))
    result = calibrate(
        toy.generator(captions, SEED), score, len(captions), steps, Settings(trials=TRIALS, seeds=1),
        verdict_prompts=range(SEARCH_CAPTIONS, SEARCH_CAPTIONS + 4), reference=reference,
        guard=Guard(lambda pictures, indices: distance(pictures, right[list(indices)])),
    )  # fmt: skip
    return result.coefficients


def figures(all_rows: list[Row]) -> dict[str, dict]:
    """By row: what a judge reads, and the distance of each picture to its full one; means over held-out captions."""
    captions = toys.captions(JUDGE_CAPTIONS, 13)
    _, judge = toys.scored(captions)
    out, reference = {}, None
    for name, toy, coefficients in all_rows:
        pictures = toy.generator(captions, SEED)(coefficients, range(JUDGE_CAPTIONS))
        reference = pictures if reference is None else reference
        read = judge(pictures, range(JUDGE_CAPTIONS))
        far = distance(pictures, reference)["distance to full"].mean().item()
        means = {metric: float(np.nanmean(read[metric])) for metric in ("attribute accuracy", "all right")}
        lists = {"c_x": list(coefficients.c_x), "c_eps": list(coefficients.c_eps)}
        out[name] = {**means, "distance to full": far, **lists}
    return out


def sheet(all_rows: list[Row]) -> Image.Image:
    left, top, side = CROP
    crop = (left, top, left + side, top + side)
    picture = Image.new("RGB", (GAP + (len(CAPTIONS) + 1) * (SIDE + GAP), len(all_rows) * (SIDE + LABEL + GAP)), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (name, toy, coefficients) in enumerate(all_rows):
        y = number * (SIDE + LABEL + GAP)
        draw.text((GAP, y + 2), name, ACCENT if "Q-Sched" in name else INK, ImageFont.load_default(16))
        painted = [_image(one) for one in toy.generator(CAPTIONS, SEED)(coefficients, range(len(CAPTIONS)))]
        columns = [painted[0].crop(crop).resize((SIDE, SIDE), Image.Resampling.NEAREST)]
        columns += [one.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in painted]
        for column, one in enumerate(columns):
            picture.paste(one, (GAP + column * (SIDE + GAP), y + LABEL))
    return picture


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.numpy() * 255).round().astype(np.uint8))


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.before_after", description=__doc__).parse_args()
    torch.set_num_threads(1)
    all_rows = rows()
    sheet(all_rows).save(PICTURE, optimize=True)
    record("before_after", {"captions": JUDGE_CAPTIONS, "rows": figures(all_rows)}, on_demo=True)


if __name__ == "__main__":
    main()
