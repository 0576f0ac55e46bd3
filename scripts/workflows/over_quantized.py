"""06: over models that others quantised."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import (
    SCHNELL,
    decoded,
    flux_files,
    flux_words,
    published_preset,
    stock_sampler,
)


def over_quantized() -> Template:
    fp8 = {"unet_name": SCHNELL.name, "weight_dtype": "fp8_e4m3fn"}
    weights = Node(1, "UNETLoader", "FLUX.1-schnell, cast to fp8", fp8, (SCHNELL,))
    schedule = {"model": [1, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    use = {"model": [1, 0], "preset": [6, 0], "strength": 1.0, "if_preset_differs": "resample"}
    return Template(
        "06 Over GGUF, fp8 and int8 models",
        (480, 600),
        (
            (flux_files(weights), flux_words()),
            (
                Group(
                    "2 Q-Sched",
                    (
                        (
                            Node(5, "BasicScheduler", "The sampler's own schedule", schedule),
                            published_preset("Published for SVDQuant INT4, 4 steps", 0.5),
                            Node(10, "QSchedApply", "Apply Q-Sched", use),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "3 fp8",
                    (
                        (stock_sampler(11, "Without a preset", [1, 0]),),
                        decoded(12, "fp8", [11, 0], [3, 0], "FLUX.1-schnell fp8"),
                    ),
                ),
                Group(
                    "3 fp8 + Q-Sched",
                    (
                        (stock_sampler(14, "With the preset", [10, 0]),),
                        decoded(15, "fp8 + Q-Sched", [14, 0], [3, 0], "FLUX.1-schnell fp8 Q-Sched"),
                    ),
                ),
            ),
        ),
    )
