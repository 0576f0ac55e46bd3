"""The coefficients published with the paper, as presets that come with the pack: `python -m scripts.published_presets`.

Both were read from the authors' code (github.com/enyac-group/q-sched, BSD-3-Clause), where they are what scripts and
folder names speak of. Nothing was measured here, and the presets say so.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from qsched_core import Binding, Coefficients, Preset, save_preset

from .layout import ROOT

FOLDER = ROOT / "presets"
WORDS = "published values, not verified here"
PAPER = "Q-Sched, arXiv 2509.01624, by Frumkin and Marculescu"
CODE = "github.com/enyac-group/q-sched"


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
        save_preset(preset, folder / name)


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
    kept, sigmas = 1.0, []
    for i in range(1000):
        kept *= 1 - (first + (last - first) * i / 999) ** 2
        sigmas.append(math.sqrt((1 - kept) / kept))
    # Seven digits: what float32 holds, whatever the machine's last bit is.
    return (*(float(f"{sigmas[1000 - 1000 * step // steps - 1]:.7g}") for step in range(steps)), 0.0)


if __name__ == "__main__":
    write()
    sys.exit(0)
