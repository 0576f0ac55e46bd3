"""JAQ Calibrate: search coefficients on the user's prompts inside the graph, and judge them on others."""

from __future__ import annotations

import json

from comfy_api.latest import io

from ..calibration.choices import ACCEPT
from ..qsched_core import CalibrationError
from .calibrating.metric_menu import metric_names
from .host.reports import forget, keep_output
from .sampling.sampling_inputs import sampling_inputs
from .sockets import CATEGORY, CalibrationSettingsSocket, PresetSocket


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
            search_aliases=[
                "calibrate",
                "tune",
                "optimize",
                "auto tune",
                "quality loss",
                "benchmark",
                "quantization",
                "jaq",
                "schedule",
                "few steps",
            ],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The quantised model."),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Encodes the prompts; not needed for prepared conditionings."
                ),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                io.Latent.Input("latent_image", tooltip="An empty latent of the picture size to calibrate at."),
                io.Model.Input(
                    "full_model",
                    display_name="reference",
                    optional=True,
                    tooltip="The model before quantising, or an 8-bit twin of it: its pictures are right. Tells repair "
                    "from re-tuning. Without it a gain is taken for re-tuning.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One per line; 24 or more, best 60: 12 to search on, the others for the verdict.",
                ),
                *sampling_inputs(folded=False),
                io.Int.Input(
                    "trials", default=40, min=1, max=10_000, advanced=True, tooltip="Candidates besides the identity."
                ),
                io.Combo.Input(
                    "metric",
                    options=metric_names(),
                    tooltip="An open_clip model (CLIPScore + CLIP-IQA) in your metrics folder (qsched_metrics), or the "
                    "demo's nets for the demo's pictures.",
                ),
                io.Int.Input(
                    "batch_size", default=16, min=1, max=256, advanced=True, tooltip="Lower it if memory is short."
                ),
                io.String.Input("negative", default="", advanced=True, tooltip="Negative prompt; unused at cfg 1."),
                io.Combo.Input(
                    "accept",
                    options=list(ACCEPT),
                    optional=True,
                    tooltip="repair: only what brings back what quantising took. re-tuning: also a gain that the "
                    "reference would have as well; the preset then says so.",
                ),
                CalibrationSettingsSocket.Input(
                    "settings",
                    optional=True,
                    tooltip="From Calibration Settings: how to search, and what takes the place of widgets here: a "
                    "list of prompts, other scores, a SAMPLER, SIGMAS or GUIDER.",
                ),
                io.Model.Input(
                    "other_model",
                    display_name="other model",
                    optional=True,
                    tooltip="One more MODEL, for example quantised another way: what it makes of the same prompts and "
                    "noises is shown beside the others. It is not searched.",
                ),
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="The candidate if accepted, else the identity."),
                io.String.Output(display_name="report", tooltip="The verdict, with intervals and the control."),
                io.Image.Output(display_name="before / after", tooltip="Held-out prompts, same noise in each column."),
                io.Image.Output(display_name="map", tooltip="Every candidate: c_x against c_eps, coloured by JAQ."),
                io.Image.Output(display_name="per prompt", tooltip="JAQ of each held-out prompt, before and after."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        latent_image,
        prompts,
        steps,
        cfg,
        sampler_name,
        scheduler,
        trials,
        metric,
        batch_size,
        negative,
        clip=None,
        full_model=None,
        accept=ACCEPT[0],
        settings=None,
        other_model=None,
    ) -> io.NodeOutput:
        from ..calibration.prompts import read_prompts
        from .calibrating.generator import HostGenerator
        from .calibrating.options import CalibrationSettings
        from .calibrating.reference_model import check_other, check_reference
        from .calibrating.run import Run
        from .calibrating.sampling_setup import setup_of
        from .calibrating.scorer import load_scorer
        from .calibrating.slider_pairs import picture_rows
        from .sampling.ksampler import Recipe, empty_latent

        more = CalibrationSettings() if settings is None else settings
        prompt_set = read_prompts(prompts, more.search_seed) if more.prompt_set is None else more.prompt_set
        setup = setup_of(model, Recipe(steps, cfg, sampler_name, scheduler), more.sampler, more.sigmas, more.guider)
        if full_model is not None:
            check_reference(model, full_model)
        if other_model is not None:
            check_other(model, other_model)
        latent = empty_latent(model, latent_image)
        scorer = load_scorer(metric) if more.jaq_metric is None else more.jaq_metric
        positives, negatives = conditionings(clip, prompt_set, negative, setup)
        forget(cls)
        run = Run(cls.hidden.unique_id, prompt_set, more.of_search(trials, accept), scorer, full_model is not None)
        generator = HostGenerator(
            model, vae, positives, negatives, latent, setup, more.search_seed, batch_size, run.progress.generated
        )  # fmt: skip
        stay_near = more.stay_near and full_model is not None
        outcome = run(generator, full_model, other_model, stay_near)
        # No "images": the host would draw them under the node once more, and out of it in Nodes 2.0.
        page_output = {
            "text": [outcome.text],
            "qsched_report": [json.dumps(outcome.report)],
            "qsched_pictures": [picture_rows(cls, outcome.rows, outcome.row_texts)],
        }
        pictures = (outcome.before_after, outcome.map, outcome.per_prompt)
        return io.NodeOutput(outcome.preset, outcome.text, *pictures, ui=keep_output(cls, page_output))


def conditionings(clip, prompt_set, negative: str, setup) -> tuple[list, list]:
    """(One conditioning per prompt, the negative one): as the user prepared them, else encoded.

    Raises:
        CalibrationError: nothing to encode with.
    """
    from .host.conditioning import encode

    prepared = getattr(prompt_set, "conditionings", None)
    if clip is None and prepared is None:
        raise CalibrationError("there is no CLIP to encode the prompts.", "plug one in, or prepared conditionings")
    positives = list(prepared) if prepared is not None else [encode(clip, text) for text in prompt_set.texts]
    if clip is not None:
        return positives, encode(clip, negative)
    if setup.guider is None and setup.cfg != 1.0:
        raise CalibrationError(
            f"cfg {setup.cfg:g} needs a negative prompt.", "plug in a CLIP or a GUIDER, or set cfg to 1"
        )
    return positives, positives[0]


NODES = [QSchedCalibrate]
