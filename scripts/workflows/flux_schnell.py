"""02: FLUX.1-schnell, quantised and sampled with a published preset."""

from __future__ import annotations

from .graph import MUTED, Group, Node, Template
from .parts import (
    SCHNELL,
    W4A8,
    decoded,
    flux_files,
    flux_words,
    published_preset,
    sampler,
)


def flux_schnell() -> Template:
    words = ([7, 0], [8, 0])
    weights = Node(
        1, "UNETLoader", "FLUX.1-schnell", {"unet_name": SCHNELL.name, "weight_dtype": "default"}, (SCHNELL,)
    )
    quantize = Node(4, "QSchedQuantizeModel", "Quantize to W4A8", {"model": [1, 0], **W4A8}, size=(320, 230))
    keep = {"model": [4, 0], "name": "flux1-schnell w4a8"}
    schedule = {"model": [4, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    return Template(
        "02 Quantize and repair FLUX-schnell",
        (440, 560),
        (
            (flux_files(weights), flux_words()),
            (Group("2 W4A8", ((quantize, Node(16, "QSchedSaveQuantized", "Keep the file", keep, mode=MUTED)),)),),
            (
                Group(
                    "3 Q-Sched",
                    (
                        (
                            Node(5, "BasicScheduler", "The sampler's own schedule", schedule),
                            published_preset("Published for SVDQuant INT4, 4 steps", 1.0),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "4 W4A8",
                    (
                        (sampler(10, "Without a preset", [4, 0], words, [9, 0]),),
                        decoded(11, "W4A8", [10, 0], [3, 0], "FLUX.1-schnell W4A8"),
                    ),
                ),
                Group(
                    "4 W4A8 + Q-Sched",
                    (
                        (sampler(13, "Q-Sched Sampler", [4, 0], words, [9, 0], [6, 0]),),
                        decoded(14, "W4A8 + Q-Sched", [13, 0], [3, 0], "FLUX.1-schnell W4A8 Q-Sched"),
                    ),
                ),
            ),
        ),
    )
