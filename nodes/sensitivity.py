"""Quantization Sensitivity: which layers lose how much in which format, on the user's own prompts; and a plan."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io, ui

from ..qsched_core.choices import DEPTHS
from .host.progress import NodeProgress, node_id
from .host.reports import keep_output
from .sampling.sampling_inputs import sampling_inputs, study_seed_input
from .sockets import CATEGORY, ObservationSocket, PlanSocket


class QSchedSensitivity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedSensitivity",
            display_name="Quantization Sensitivity",
            category=CATEGORY,
            description="Samples the full model with your prompts, measures what each layer loses in each format, and "
            "finds the best format for each layer at the size you allow. Plug the plan into Quantize Model W4A8.",
            search_aliases=[
                "sensitivity",
                "mixed precision",
                "bits per layer",
                "quantization error",
                "benchmark",
                "layer analysis",
                "plan",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model as it was loaded, with the LoRAs you sample with."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Your prompts, two or more joined with Conditioning (Combine): each is sampled by itself. "
                    "You have none: plug in clip instead.",
                ),
                io.Latent.Input("latent_image", tooltip="An empty latent of the picture size you use."),
                io.Float.Input(
                    "average_bits",
                    default=5.0,
                    min=3.0,
                    max=16.0,
                    step=0.05,
                    tooltip="Bits a weight may take on average in the layers studied, scales counted: w4a8 takes 4.3, "
                    "w8a8 a little over 8, a layer left as it is 16.",
                ),
                io.Combo.Input(
                    "depth",
                    options=list(DEPTHS),
                    tooltip="layers: errors of each layer's own output, as quick as sampling. network: what each layer "
                    "does to the network's output, content and quality apart; better, and layers x formats x 4 "
                    "evaluations.",
                ),
                *sampling_inputs(),
                study_seed_input("Of the noises, one for each prompt."),
                io.String.Input(
                    "formats",
                    default="w4a8, w8a8",
                    advanced=True,
                    tooltip="What a layer may become, comma separated: w4a8, w6a8, w4a8/g64 (columns that share a "
                    "scale), w8a8/channel. It may always stay as it is.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="As you will sample; unused at cfg 1."),
                ObservationSocket.Input(
                    "observation",
                    optional=True,
                    tooltip="From Observe Layers: nothing is sampled here then, and formats are rounded as Quantize "
                    "Model W4A8 rounds them.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Only where positive is empty: eight prompts of words at random from its vocabulary.",
                ),
            ],
            outputs=[
                PlanSocket.Output(display_name="plan", tooltip="For Quantize Model W4A8."),
                io.String.Output(
                    display_name="report", tooltip="Totals, the layers that lose most, and what they became."
                ),
                io.Image.Output(display_name="plot", tooltip="Every layer's error in every format."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        latent_image,
        average_bits,
        depth,
        steps,
        cfg,
        sampler_name,
        scheduler,
        study_seed,
        formats,
        positive=None,
        negative=None,
        observation=None,
        clip=None,
    ) -> io.NodeOutput:
        from ..calibration.plots.sensitivity import sensitivity_plot
        from .host.random_prompts import AT_RANDOM, prompts_or_random
        from .quantization.layer_observation import observed
        from .quantization.observation_store import find_or_make, observation_key
        from .quantization.study import StudyPrompts, check_budget, read_formats, study
        from .sampling.ksampler import Recipe

        progress = NodeProgress(node_id(cls))

        def show_progress(done: int, total: int, text: str) -> None:
            progress.total = total
            progress.update(done, text)

        at_random = False
        if positive is None and observation is not None:
            positive = []  # nothing is sampled
        else:
            positive, at_random = prompts_or_random(positive, clip, study_seed)
        prompts = StudyPrompts(model, positive, negative, latent_image, Recipe(steps, cfg, sampler_name, scheduler))
        forms = read_formats(formats)
        check_budget(model, forms, average_bits)
        drive, recording = prompts.sampled(study_seed), None
        if observation is None:
            key = observation_key(prompts, study_seed, fit=False)

            def on_call(number: int) -> None:
                show_progress(0, 1, f"recording, evaluation {number + 1}")

            recording, _ = find_or_make(
                key, prompts, study_seed, lambda: observed(model, drive, on_call=on_call, fit=False)
            )
        comfy.model_management.load_models_gpu([model])  # where its calls can be repeated
        sensitivity = study(model, drive, forms, depth, show_progress, observation, recording)
        plan = sensitivity.plan(average_bits=average_bits)
        text, plot = sensitivity.text(plan), sensitivity_plot(sensitivity, plan)
        if len(prompts) == 1:
            text = "One prompt: combine two or more, and constant first tokens are looked for too.\n" + text
        if at_random:
            text = f"{AT_RANDOM}\n{text}"
        page = ui.PreviewImage(plot, cls=cls).as_dict()
        page.update(ui.PreviewText(text).as_dict())
        return io.NodeOutput(plan, text, plot, ui=keep_output(cls, page))


NODES = [QSchedSensitivity]
