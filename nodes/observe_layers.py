"""Observe Layers: what each layer of a MODEL sees while it samples the user's own prompts, or words at random."""

from __future__ import annotations

from comfy_api.latest import io

from .host.progress import NodeProgress, node_id
from .host.reports import keep_output
from .sampling.sampling_inputs import sampling_inputs, study_seed_input
from .sockets import CATEGORY, ObservationSocket

FEW_PROMPTS = 4
"""Fewer say little of others: of four steps of one prompt, the last one judges what the first three fit."""

FEW_PROMPTS_NOTE = "Few prompts: combine four or more."
FEW_PROMPTS_REASON = "Sixteen are enough; what is fitted to fewer may not suit others."


class QSchedObserve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedObserve",
            display_name="Observe Layers",
            category=CATEGORY,
            description="Samples the full model with your prompts and records what its layers see. Plugged into "
            "Quantize Model W4A8, four bits are rounded so that the pictures stay; into Quantization Sensitivity, "
            "nothing is sampled twice.",
            search_aliases=["gptq", "calibration data", "fitted rounding", "activations", "hessian", "better 4 bit"],
            inputs=[
                io.Model.Input("model", tooltip="The model as it was loaded, with the LoRAs you sample with."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Your prompts, joined with Conditioning (Combine): each is sampled by itself. Sixteen are "
                    "enough, four are few. You have none: plug in clip instead.",
                ),
                io.Latent.Input("latent_image", tooltip="An empty latent of the picture size you use."),
                *sampling_inputs(),
                study_seed_input("Of the noises, one for each prompt."),
                io.Float.Input(
                    "memory_gb",
                    default=2.0,
                    min=0.1,
                    max=64.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Inputs held at once. Less: Quantize Model W4A8 samples your prompts again, more often.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="As you will sample; unused at cfg 1."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Only where positive is empty: eight prompts of words at random from its vocabulary.",
                ),
            ],
            outputs=[
                ObservationSocket.Output(
                    display_name="observation", tooltip="For Quantize Model W4A8 and Quantization Sensitivity."
                ),
                io.String.Output(
                    display_name="report", tooltip="How many layers were seen, and which stay as they are."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        latent_image,
        steps,
        cfg,
        sampler_name,
        scheduler,
        study_seed,
        memory_gb=2.0,
        positive=None,
        negative=None,
        clip=None,
    ) -> io.NodeOutput:
        from .host.random_prompts import AT_RANDOM, prompts_or_random
        from .quantization.layer_observation import observed, summary
        from .quantization.observation_store import find_or_make, is_kept, observation_key
        from .quantization.study import StudyPrompts
        from .sampling.ksampler import Recipe

        positive, at_random = prompts_or_random(positive, clip, study_seed)
        prompts = StudyPrompts(model, positive, negative, latent_image, Recipe(steps, cfg, sampler_name, scheduler))
        progress = NodeProgress(node_id(cls), len(prompts) * steps)

        def on_call(number: int) -> None:
            progress.total = max(progress.total, number + 1)
            progress.update(number, f"recording, evaluation {number + 1}")

        budget = int(memory_gb * 1e9)
        key = observation_key(prompts, study_seed, budget=budget)
        observation, from_disk = find_or_make(
            key, prompts, study_seed, lambda: observed(model, prompts.sampled(study_seed), budget, on_call)
        )
        observation.budget, observation.on_call = budget, on_call
        text = summary(observation)
        if at_random:
            text += f"\n{AT_RANDOM}"
        elif len(prompts) < FEW_PROMPTS:
            text = f"{FEW_PROMPTS_NOTE}\n{FEW_PROMPTS_REASON}\n{text}"  # first: further down nobody sees it on the node
        if from_disk:
            text += "\nRead from disk, where an earlier run kept it: nothing was sampled."
        elif not is_kept(observation):
            text += "\nNot kept on disk: after a restart the prompts are sampled again."
        return io.NodeOutput(observation, text, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedObserve]
