"""JAQ Calibrate: search coefficients on the user's prompts inside the graph, and judge them on others."""

from __future__ import annotations

import json

import comfy.samplers
import torch
from comfy_api.latest import io, ui

from ..calibration import Settings
from ..calibration.prompts import read_prompts
from ..calibration.settings import SPACES
from ..qsched_core import CalibrationError
from .folders import input_text
from .generate import HostGenerator, encode
from .metrics import load_scorer, metric_names
from .run import Run
from .samplers import sampler_names
from .sampling import Recipe, check_latent
from .sockets import CATEGORY, PresetSocket


class QSchedCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedCalibrate",
            display_name="JAQ Calibrate",
            category=CATEGORY,
            description="Searches the coefficients that suit this model on your prompts, without reference pictures, "
            "and checks them on prompts and noises the search has not seen. Cancel keeps the best so far; the same "
            "inputs go on where they stopped.",
            search_aliases=["calibrate", "tune", "quantization", "jaq", "schedule", "few steps"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The quantised model."),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                io.Latent.Input("latent_image", tooltip="An empty latent of the picture size to calibrate at."),
                io.Model.Input(
                    "full_model",
                    optional=True,
                    tooltip="Optional: the model before quantising. Adds the control that tells repair from re-tuning.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One per line; 12 or more. Half is searched on, half is kept for the verdict.",
                ),
                io.String.Input(
                    "prompt_file",
                    default="",
                    tooltip="Instead: a text file in ComfyUI's input folder, one prompt per line.",
                ),
                io.Int.Input(
                    # Not "seed": the front end would make a new one for every run, and no run would be resumed.
                    "search_seed",
                    default=0,
                    min=0,
                    max=2**53,
                    tooltip="Of noises, of the search and of the split. The same seed finds its unfinished run again.",
                ),
                io.Int.Input("steps", default=4, min=1, max=1000, tooltip="As you will sample."),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="As you will sample."),
                io.Combo.Input("sampler_name", options=sampler_names(), tooltip="As you will sample."),
                io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, tooltip="As you will sample."),
                io.Int.Input("trials", default=40, min=1, max=10_000, tooltip="Candidates besides the identity."),
                io.Combo.Input(
                    "metric",
                    options=metric_names(),
                    tooltip="An open_clip model in models/qsched_metrics (CLIPScore + CLIP-IQA), or the demo's nets "
                    "for the demo's pictures.",
                ),
                io.Combo.Input(
                    "space",
                    options=list(SPACES),
                    advanced=True,
                    tooltip="What is searched: the first and last value of both curves, or fewer numbers.",
                ),
                io.Float.Input(
                    "radius",
                    default=0.2,
                    min=0.01,
                    max=0.5,
                    step=0.01,
                    advanced=True,
                    tooltip="How far from 1 a coefficient may go. Beyond 0.2 the scores are easily gamed.",
                ),
                io.Float.Input(
                    "k",
                    default=2.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    advanced=True,
                    tooltip="JAQ = TC + k * IQ; 2 in the paper.",
                ),
                io.Int.Input(
                    "verdict_seeds", default=4, min=1, max=100, advanced=True, tooltip="Noises per held-out prompt."
                ),
                io.Int.Input(
                    "batch_size", default=16, min=1, max=256, advanced=True, tooltip="Lower it if memory is short."
                ),
                io.String.Input("negative", default="", advanced=True, tooltip="Negative prompt; unused at cfg 1."),
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="The candidate if accepted, else the identity."),
                io.String.Output(display_name="report", tooltip="The verdict, with intervals and the control."),
                io.Image.Output(display_name="before / after", tooltip="Held-out prompts, same noise in each column."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        latent_image,
        prompts,
        prompt_file,
        search_seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        trials,
        metric,
        space,
        radius,
        k,
        verdict_seeds,
        batch_size,
        negative,
        full_model=None,
    ) -> io.NodeOutput:
        settings = Settings(space=space, radius=radius, trials=trials, k=k, seeds=verdict_seeds, seed=search_seed)
        texts = read_prompts(input_text(prompt_file) if prompt_file.strip() else prompts, search_seed)
        recipe = Recipe(steps, cfg, sampler_name, scheduler)
        latent = check_latent(model, latent_image)
        if torch.count_nonzero(latent):
            raise CalibrationError(
                "the latent is not empty.", "plug in an empty latent: calibration makes its own noise"
            )
        run = Run(cls.hidden.unique_id, texts, settings, load_scorer(metric), full_model is not None)
        conditionings = [encode(clip, text) for text in texts.texts]
        generator = HostGenerator(
            model, vae, conditionings, encode(clip, negative), latent, recipe, search_seed, batch_size, run.generated
        )
        outcome = run(generator, full_model)
        # The front end keeps showing the last preview of a run: let it be the result.
        run.bar.update(run.total, outcome.text, outcome.picture[0])
        shown = ui.PreviewImage(outcome.picture, cls=cls).as_dict()
        shown.update(ui.PreviewText(outcome.text).as_dict())
        shown["qsched_report"] = [json.dumps(outcome.report)]
        return io.NodeOutput(outcome.preset, outcome.text, outcome.picture, ui=shown)


NODES = [QSchedCalibrate]
