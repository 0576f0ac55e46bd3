"""Q-Sched Sampler: the stock KSampler with a preset."""

from __future__ import annotations

import logging

import comfy.samplers
from comfy_api.latest import io

import nodes as host_nodes

from ..qsched_core import PresetError
from .patch import EXACT_SAMPLERS
from .progress import say
from .sampling import Recipe, check_latent, fit
from .sockets import CATEGORY, PresetSocket


class QSchedSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedSampler",
            display_name="Q-Sched Sampler",
            category=CATEGORY,
            description="Samples like KSampler, with the coefficients of a preset. Without a preset, or with strength "
            "0, it is KSampler bit for bit.",
            search_aliases=["sampler", "few steps", "turbo", "schedule", "quantization-aware", "preset"],
            inputs=[
                io.Model.Input("model", tooltip="Any model, quantised by whatever means."),
                io.Conditioning.Input("positive", tooltip="What the picture shall show."),
                io.Conditioning.Input("negative", tooltip="What it shall not; unused at cfg 1."),
                io.Latent.Input("latent_image", tooltip="An empty latent, or one to start from with denoise below 1."),
                PresetSocket.Input("preset", optional=True, tooltip="From JAQ Calibrate or Load Q-Sched Preset."),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise."
                ),
                io.Int.Input("steps", default=4, min=1, max=1000, tooltip="As the model was made for: 1 to 8."),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="1 for distilled models."),
                io.Combo.Input(
                    "sampler_name", options=list(EXACT_SAMPLERS), tooltip="Samplers Q-Sched drives exactly."
                ),
                io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, tooltip="Spacing of the steps."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Below 1: image to image.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-1.0,
                    max=2.0,
                    step=0.05,
                    advanced=True,
                    tooltip="How much of the preset: 0 is KSampler, 1 as calibrated, beyond 1 exaggerates.",
                ),
                io.Combo.Input(
                    "if_preset_differs",
                    options=["warn", "refuse"],
                    default="warn",
                    advanced=True,
                    tooltip="When preset and settings do not fit: warn and use it, coefficients looked up by sigma, "
                    "or stop.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The sampled latent.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        latent_image,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        strength,
        if_preset_differs,
        preset=None,
    ) -> io.NodeOutput:
        recipe = Recipe(steps, cfg, sampler_name, scheduler, denoise)
        check_latent(model, latent_image["samples"])
        if preset is not None:
            model, differences = fit(preset, strength, model, recipe)
            _tell(differences, if_preset_differs, cls.hidden.unique_id)
        (latent,) = host_nodes.common_ksampler(
            model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=denoise
        )
        return io.NodeOutput(latent)


def _tell(differences: list[str], choice: str, unique_id: str | None) -> None:
    if not differences:
        return
    text = "; ".join(differences)
    if choice == "refuse":
        raise PresetError(f"the preset does not fit: {text}", "change the settings, or let it warn")
    logging.warning("Q-Sched: the preset was made for something else: %s", text)
    say(unique_id, f"Preset differs: {text}")


NODES = [QSchedSampler]
