"""The coefficients published with the paper, as presets that come with the pack: `python -m scripts.published_presets`.

Both were read from the authors' code (github.com/enyac-group/q-sched, BSD-3-Clause), where they are what scripts and
folder names speak of. Nothing was measured here, and the presets say so.
"""

from __future__ import annotations

import base64
import io
import math
import sys
from dataclasses import replace
from pathlib import Path

from calibration.plots.canvas import COLOURS, FAINT, GRID, Canvas
from qsched_core import Binding, Coefficients, Preset, save_preset

from .layout import ROOT

FOLDER = ROOT / "presets"
WORDS = "published values, not verified here"
PAPER = "Q-Sched, arXiv 2509.01624, by Frumkin and Marculescu"
CODE = "github.com/enyac-group/q-sched"
SIDE = 256
"""Pixels of a card's picture, as the host shows it."""


def presets() -> dict[str, Preset]:
    """Every shipped preset by its file's name."""
    return {
        "SDXL-Turbo W4A4 (published).safetensors": Preset(
            Coefficients.ramp(4, c_x=(1.012, 0.967), c_eps=(0.955, 1.099)),
            _trailing_sigmas(4),
            Binding(model="SDXL", prediction="EPS", quantization="w4a4", sampler="euler_ancestral", cfg=1.0),
            "not validated",
            card=_card(
                "SDXL-Turbo W4A4, 4 steps",
                "scripts/collect_images.sh",
                "for torchao's int4 weights and activations, at timesteps 999, 749, 499 and 249; sgm_uniform is the "
                "scheduler nearest to that",
            ),
        ),
        "FLUX.1-schnell SVDQuant INT4 (published).safetensors": Preset(
            Coefficients.ramp(4, c_eps=(0.867, 1.0)),
            (1.0, 0.75, 0.5, 0.25, 0.0),
            Binding(model="FluxSchnell", prediction="CONST", quantization="svdquant_w4a4", sampler="euler", cfg=1.0),
            "not validated",
            card=_card(
                "FLUX.1-schnell SVDQuant INT4, 4 steps",
                "src/metrics/pickscore.py",
                "the ramp that its folder FLUX.1_svdquant_int4 was judged by, with 4 steps and a shift of 1 taken to "
                "be meant",
            ),
        ),
    }


def write(folder: Path = FOLDER) -> None:
    for name, preset in presets().items():
        card = {**preset.card, "modelspec.thumbnail": curves_picture(preset)}
        save_preset(replace(preset, card=card), folder / name)


def curves_picture(preset: Preset) -> str:
    """The preset's curves on a card of 256 x 256, as a data URI: nobody here has run the model that they are for."""
    canvas, side, (low, high) = Canvas(SIDE, SIDE), SIDE, (0.85, 1.15)
    canvas.text(16, 28, preset.binding.model, 22)
    canvas.text(16, 54, f"{preset.steps} steps, published", 15, FAINT)

    def point(step: int, value: float) -> tuple[float, float]:
        return 28 + 162 * step / (preset.steps - 1), side - 28 - (side - 112) * (value - low) / (high - low)

    canvas.line(point(0, 1), point(preset.steps - 1, 1), GRID, 1)
    curves = ("c_x", preset.coefficients.c_x), ("c_eps", preset.coefficients.c_eps)
    for (name, values), colour, shift in zip(curves, COLOURS, (-9, 9), strict=False):
        points = [point(step, value) for step, value in enumerate(values)]
        for start, end in zip(points, points[1:], strict=False):
            canvas.line(start, end, colour, 3)
        for each in points:
            canvas.dot(*each, 4.5, colour)
        x, y = points[-1]
        canvas.text(x + 12, y + (shift if curves[0][1][-1] == curves[1][1][-1] else 0), name, 15, colour)
    file = io.BytesIO()
    canvas.image().save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _card(title: str, file: str, setting: str) -> dict[str, str]:
    return {
        "modelspec.title": f"{title} (published)",
        "modelspec.author": "Frumkin and Marculescu",
        "modelspec.license": "BSD-3-Clause",
        "modelspec.description": f"{WORDS.capitalize()}. From {PAPER}: {file} in {CODE}, {setting}.",
        "modelspec.usage_hint": "Load Q-Sched Preset, then Q-Sched Sampler or Apply Q-Sched",
        "modelspec.tags": "q-sched",
    }


def _trailing_sigmas(steps: int) -> tuple[float, ...]:
    """Of a Stable Diffusion schedule (1000 betas, scaled linear), spaced from its end, and 0."""
    first, last = math.sqrt(0.00085), math.sqrt(0.012)
    product, sigmas = 1.0, []
    for i in range(1000):
        product *= 1 - (first + (last - first) * i / 999) ** 2
        sigmas.append(math.sqrt((1 - product) / product))
    # Seven digits: what float32 holds, whatever the machine's last bit is.
    return (*(float(f"{sigmas[1000 - 1000 * step // steps - 1]:.7g}") for step in range(steps)), 0.0)


if __name__ == "__main__":
    write()
    sys.exit(0)
