"""The inputs of nodes that sample while they study a model: as the user will sample, in one place."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from .sampler_menu import sampler_names


def sampling_inputs(*, most_steps: int = 1000, folded: bool = True) -> list[io.Input]:
    """steps, cfg, sampler_name and scheduler; ``folded`` hides the last two among the node's advanced inputs."""
    advanced = True if folded else None
    return [
        io.Int.Input("steps", default=4, min=1, max=most_steps, tooltip="As you will sample."),
        io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, advanced=True, tooltip="As you will sample."),
        io.Combo.Input("sampler_name", options=sampler_names(), advanced=advanced, tooltip="As you will sample."),
        io.Combo.Input(
            "scheduler", options=comfy.samplers.SCHEDULER_NAMES, advanced=advanced, tooltip="As you will sample."
        ),
    ]


def study_seed_input(tooltip: str) -> io.Input:
    """Not "seed": the front end would make a new one for every run, and a new study of it."""
    return io.Int.Input("study_seed", default=0, min=0, max=2**53, advanced=True, tooltip=tooltip)
