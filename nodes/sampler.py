"""Q-Sched Sampler: the stock KSampler with a preset."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from .apply import preset_inputs
from .host.progress import node_id, node_kind
from .host.reports import keep_note, keep_output
from .library.curve import curve
from .sampling.sampler_menu import sampler_names
from .sockets import CATEGORY


class QSchedSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        socket, use = preset_inputs(optional=True)
        return io.Schema(
            node_id="QSchedSampler",
            display_name="Q-Sched Sampler",
            category=CATEGORY,
            description="Samples like KSampler, with the coefficients of a preset. Without a preset, or with strength "
            "0, it is KSampler bit for bit.",
            search_aliases=[
                "sampler",
                "ksampler",
                "few steps",
                "turbo",
                "lightning",
                "lcm",
                "schedule",
                "quantization-aware",
                "preset",
            ],
            inputs=[
                io.Model.Input("model", tooltip="Any model, quantised by whatever means."),
                io.Conditioning.Input("positive", tooltip="What the picture shall show."),
                io.Conditioning.Input("negative", tooltip="What it shall not; unused at cfg 1."),
                io.Latent.Input("latent_image", tooltip="An empty latent, or one to start from with denoise below 1."),
                *socket,
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise."
                ),
                io.Int.Input("steps", default=4, min=1, max=1000, tooltip="As the model was made for: 1 to 8."),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="1 for distilled models."),
                io.Combo.Input("sampler_name", options=sampler_names(), tooltip="The host's, and TCD with eta 0.3."),
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
                *use,
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
        from .sampling.ksampler import Recipe, check_latent, sample_latent
        from .sampling.patch import PresetUse, model_with

        recipe = Recipe(steps, cfg, sampler_name, scheduler, denoise)
        check_latent(model, latent_image)
        if preset is not None:
            use = PresetUse(preset, strength, if_preset_differs, node_id(cls), scheduler, node_kind(cls))
            model = model_with(model, use)
        else:
            keep_note(node_id(cls), node_kind(cls), None)
        latent = sample_latent(model, recipe, seed, positive, negative, latent_image)
        return io.NodeOutput(latent, ui=keep_output(cls, curve(preset, strength)))


NODES = [QSchedSampler]
