"""The pictures of the example workflows: ``python -m scripts.thumbnails``. Every one shows what a run or a count gave.

01, 04, 05, 07, 08 and 20 are run as they are in a real ComfyUI; the others need models of many gigabytes. For 02, 03
and 06 the pictures are of a toy of the same family (``benchmarks/toys``), with what a search on it finds, and say so.
Those from 09 to 19 show what was counted: the bytes of model, text encoder and VAE. The badge of the host covers the
top left of a thumbnail: no words stand there.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import qsched_core as qs
from benchmarks import toys
from benchmarks.before_after import best_coefficients

from . import server
from .host import host_at, local_host
from .layout import ROOT
from .workflows.families import FAMILIES
from .workflows.notes import Sizes, form_of, restoration_sizes, sizes_of

WORKFLOWS = ROOT / "example_workflows"
BYTES = ROOT / "benchmarks" / "results" / "model_bytes.json"
PART_COLOURS = ("#00bfa5", "#7aa2f7", "#e0af68")
"""Of model, text encoder and VAE."""
SIDE, FOOT, LABEL, PAD = 512, 74, 26, 12
INK, PAPER, ACCENT, FAINT = "#f2f2f2", "#17191d", "#00bfa5", "#9aa0a6"
SCENES = (
    "a large rocket below a small star on a night background",
    "a large cat below a small moon on a sky background",
    "a large house left of a small boat on a sky background",
)
SEED = 3
RUN = ("01", "04", "05", "07", "08", "20")
FP8 = torch.float8_e4m3fn

Rows = Sequence[tuple[str, Sequence[Image.Image]]]


def card(title: str, rows: Rows, foot: str) -> Image.Image:
    """512 × 512: rows of pictures, each above its name, then a title and where the pictures come from."""
    sheet = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((0, SIDE - FOOT + 8, 6, SIDE - PAD), fill=ACCENT)
    draw.text((PAD + 8, SIDE - FOOT + 2), title, INK, ImageFont.load_default(28))
    draw.text((PAD + 8, SIDE - 32), foot, FAINT, ImageFont.load_default(16))
    height = (SIDE - FOOT - PAD) // len(rows)
    for number, (name, pictures) in enumerate(rows):
        top = PAD + number * height
        wide = (SIDE - PAD * (len(pictures) + 1)) // len(pictures)
        fitted = [_fitted(picture, wide, height - LABEL - 4) for picture in pictures]
        for column, picture in enumerate(fitted):
            sheet.paste(picture, (PAD + column * (wide + PAD) + (wide - picture.width) // 2, top))
        below = top + max(picture.height for picture in fitted) + 1
        draw.text((PAD, below), name, ACCENT if "Q-Sched" in name else INK, ImageFont.load_default(18))
    return sheet


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(width / picture.width, height / picture.height)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def of_toys() -> Iterator[tuple[str, Image.Image]]:
    flow, noise = toys.load("flow"), toys.load("noise")
    foot = "a toy FLUX of ours, not the real one"
    rows = _repaired(flow, flow.quantized("w4a4", **toys.VISIBLE_DAMAGE["flow"]), "W4A4")
    yield "02", card("FLUX-schnell in 4 bits", rows, foot)
    rows = _repaired(noise, noise.quantized("w4a4", **toys.VISIBLE_DAMAGE["noise"]), "W4A4")
    yield "03", card("Turbo, Lightning, LCM, PCM", rows, "a toy U-Net of ours, 4 LCM steps")
    rows = _repaired(flow, _in_fp8(flow), "fp8")
    yield "06", card("Over GGUF, fp8, int8", rows, "a toy FLUX of ours; fp8 loses little, so this is re-tuning")


def _repaired(full: toys.Toy, quantized: toys.Toy, called: str) -> Rows:
    return [
        (called, _painted(quantized, qs.Coefficients.identity(len(full.sigmas) - 1))),
        (f"{called} + Q-Sched", _painted(quantized, best_coefficients(quantized, full))),
    ]


def _painted(toy: toys.Toy, coefficients: qs.Coefficients) -> list[Image.Image]:
    pictures = toy.generator(SCENES, SEED)(coefficients, range(len(SCENES)))
    return [Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)) for picture in pictures]


def _in_fp8(toy: toys.Toy) -> toys.Toy:
    """Its Linear weights rounded to fp8, as the host's loader casts them."""
    network = copy.deepcopy(toy.network)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.to(FP8).float()
    return replace(toy, network=network)


def of_counts() -> Iterator[tuple[str, Image.Image]]:
    counted = json.loads(BYTES.read_text("utf-8"))
    for family in FAMILIES:
        sizes = sizes_of(family, counted)
        sampler = "TCD" if family.sampler == "QSchedSamplerTCD" else family.sampler
        lines = (f"{family.steps} steps, {sampler}", f"{family.scheduler}, cfg {family.cfg:g}")
        foot = "model + text encoder + VAE" if sizes else "files and settings of ComfyUI's own template"
        yield family.number, card(family.title, [("", [_bars(form_of(family), sizes, lines)])], foot)
    bars = _bars("int8", restoration_sizes(counted), ("1 step, euler", "4 times larger"))
    yield "19", card("SeedVR2 restoration", [("", [bars])], "model + VAE")


def _bars(form: str, sizes: tuple[Sizes, Sizes] | None, lines: tuple[str, str]) -> Image.Image:
    """What the files weigh and what is left of it, one bar below the other, and how the model is sampled."""
    wide, high, left = SIDE - 2 * PAD, SIDE - FOOT - PAD - LABEL - 4, 20
    sheet = Image.new("RGB", (wide, high), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((left, 270 + 34 * number), line, FAINT, ImageFont.load_default(26))
    if sizes is None:
        draw.text((left, 130), f"{form}  >  W4A8", ACCENT, ImageFont.load_default(52))
        return sheet
    scale = (wide - 2 * left) / sizes[0].total
    for number, (name, size) in enumerate(zip((form, "W4A8"), sizes, strict=True)):
        top, at = 70 + 96 * number, float(left)
        draw.text((left, top - 4), f"{name}  {size.total:.1f} GB", INK, ImageFont.load_default(30))
        parts = [*((model, PART_COLOURS[0]) for model in size.models), (size.encoder, PART_COLOURS[1])]
        for part, colour in [*parts, (size.vae, PART_COLOURS[2])]:
            if part:
                draw.rectangle((at, top + 36, max(at + 1, at + part * scale - 2), top + 70), fill=colour)
                at += part * scale
    return sheet


def of_run(comfy: server.Server, number: str) -> Image.Image:
    outputs = _run(comfy, number)
    if number == "01":
        names = ("FP16", "W4A4", "W4A4 + Q-Sched", "W4A4 GPTQ")
        title, rows = "Try it now", _gallery_rows(outputs["5"][0], names, 5)
    elif number == "07":
        title, rows = "Blind vote", [("A ?", outputs["without"][2:5]), ("B ?", outputs["with_preset"][2:5])]
    elif number == "08":
        title, rows = "Bits for each layer", [("Errors of each layer, and the plan", outputs["4"])]
    elif number == "20":
        pictures = ("W4A4 | as planned, W8A8 in the last step", [outputs["12"][0], outputs["15"][0]])
        title, rows = "Precision of each step", [pictures, ("What each step loses, and the plan", outputs["5"])]
    elif number == "04":
        title, rows = "Calibrate on your prompts", [("The search", outputs["9"]), ("The verdict", outputs["8"])]
    else:
        ways = [outputs["9"][0], outputs["13"][1], outputs["21"][2]]
        rows = [("Without a preset", outputs["24"][:3]), ("Q-Sched: sampler | model | custom sampler", ways)]
        title = "One preset, any sampler"
    return card(title, rows, "the demo model, on a CPU")


def _gallery_rows(sheet: Image.Image, names: Sequence[str], count: int) -> Rows:
    """The first `count` pictures of each row of a sheet that ``nodes/calibrating/gallery.py`` has drawn."""
    side, gap, label = 256, 6, 22
    rows = []
    for row, name in enumerate(names):
        top = gap + row * (side + label + gap) + label
        lefts = [gap + column * (side + gap) for column in range(count)]
        rows.append((name, [sheet.crop((left, top, left + side, top + side)) for left in lefts]))
    return rows


def _run(comfy: server.Server, number: str) -> dict[str, list[Image.Image]]:
    """The pictures that each node of a workflow shows, and those that an arena is given, by its inputs."""
    (path,) = (WORKFLOWS / "api").glob(f"{number} *.json")
    graph = json.loads(path.read_text("utf-8"))
    (vote,) = [node["inputs"] for node in graph.values() if node["class_type"] == "QSchedArena"] or [{}]
    for name in ("without", "with_preset") if vote else ():  # the arena tells nobody which is which
        graph[name] = {"class_type": "PreviewImage", "inputs": {"images": vote[name]}}
    outputs: dict[str, Any] = comfy.client.run(graph)
    return {
        node: [Image.open(io.BytesIO(comfy.client.view(**file))).convert("RGB") for file in output["images"]]
        for node, output in outputs.items()
        if "images" in output
    }


def save(number: str, picture: Image.Image) -> Path:
    """Beside the workflow, as a .jpg: the only kind that the host looks for."""
    (workflow,) = WORKFLOWS.glob(f"{number} *.json")
    path = workflow.with_suffix(".jpg")
    picture.save(path, quality=88, optimize=True)
    return path


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.thumbnails", description=__doc__.splitlines()[0])
    parser.add_argument("--host", type=Path, help="the ComfyUI folder; default: the one at hand")
    parser.add_argument(
        "numbers", nargs="*", default=["toys", "counts", *RUN], help="of those that are run, or: toys counts"
    )
    arguments = parser.parse_args()
    for name, make in (("toys", of_toys), ("counts", of_counts)):
        for number, picture in make() if name in arguments.numbers else ():
            print(save(number, picture).relative_to(ROOT), flush=True)
    if not set(RUN) & set(arguments.numbers):
        return 0
    host = host_at(arguments.host, "--host") if arguments.host else local_host()
    with server.running(host, Path(sys.executable)) as comfy:
        for number in sorted(set(RUN) & set(arguments.numbers)):
            print(save(number, of_run(comfy, number)).relative_to(ROOT), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
