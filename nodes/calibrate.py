"""JAQ Calibrate: search coefficients on the user's prompts inside the graph, and judge them on others."""

from __future__ import annotations

import json

import comfy.samplers
from comfy_api.latest import io

from ..calibration import Settings
from ..calibration.prompt_files import parse_sets
from ..calibration.prompts import read_prompts, select
from ..calibration.settings import ACCEPT, AUTOMATIC, SPACES, STRATEGIES
from ..qsched_core import CalibrationError
from .calibrating.generator import HostGenerator, encode
from .calibrating.reference_model import check_reference
from .calibrating.sampling_setup import way_of
from .calibrating.scorer import load_scorer, metric_names
from .calibrating.slider_pairs import picture_rows
from .host.input_files import read_input
from .host.reports import forget, keep_output
from .sampling.ksampler import Recipe, empty_latent
from .sampling.sampler_menu import sampler_names
from .sockets import CATEGORY, MetricSocket, PresetSocket, PromptsSocket


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
                    tooltip="One per line; 12 or more. Half is searched on, half is kept for the verdict.",
                ),
                io.String.Input(
                    "prompt_file",
                    default="",
                    advanced=True,
                    tooltip="Instead: a file in ComfyUI's input folder: .txt (one per line), .csv, .yaml or .json.",
                ),
                io.Int.Input(
                    # Not "seed": the front end would make a new one for every run, and no run would be resumed.
                    "search_seed",
                    default=0,
                    min=0,
                    max=2**53,
                    advanced=True,
                    tooltip="Of noises, of the search and of the split. The same seed finds its unfinished run again.",
                ),
                io.Int.Input("steps", default=4, min=1, max=1000, tooltip="As you will sample."),
                io.Float.Input(
                    "cfg", default=1.0, min=0.0, max=100.0, step=0.1, advanced=True, tooltip="As you will sample."
                ),
                io.Combo.Input("sampler_name", options=sampler_names(), tooltip="As you will sample."),
                io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES, tooltip="As you will sample."),
                io.Int.Input(
                    "trials", default=40, min=1, max=10_000, advanced=True, tooltip="Candidates besides the identity."
                ),
                io.Combo.Input(
                    "metric",
                    options=metric_names(),
                    tooltip="An open_clip model (CLIPScore + CLIP-IQA) in your metrics folder (qsched_metrics), or the "
                    "demo's nets for the demo's pictures.",
                ),
                io.Combo.Input(
                    "space",
                    options=[AUTOMATIC, *SPACES],
                    advanced=True,
                    tooltip="What is searched: the first and last value of both curves, or fewer numbers. automatic: "
                    "both ends with a reference, the first step (the paper's) without.",
                ),
                io.Float.Input(
                    "radius",
                    default=0.0,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    advanced=True,
                    tooltip="How far from 1 a coefficient may go; 0: automatic, 0.2 with a reference, 0.1 without. "
                    "Beyond 0.2 the scores are easily gamed.",
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
                PromptsSocket.Input(
                    "prompt_set",
                    optional=True,
                    tooltip="From Q-Sched Prompts, instead of the text: lists, files, conditionings of your own, and a "
                    "second set for the verdict.",
                ),
                MetricSocket.Input(
                    "jaq_metric",
                    optional=True,
                    tooltip="From JAQ Metric, instead of the metric below: any TC with any IQ.",
                ),
                io.Sampler.Input("sampler", optional=True, tooltip="Instead of sampler_name: any SAMPLER."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="Instead of steps and scheduler: any SIGMAS."),
                io.Guider.Input(
                    "guider",
                    optional=True,
                    tooltip="Instead of cfg and negative: its kind of guidance, on this node's model and prompts.",
                ),
                io.Combo.Input(
                    "strategy",
                    options=list(STRATEGIES),
                    optional=True,
                    advanced=True,
                    tooltip="guided: learns the landscape, the cheapest by far. grid: the paper's, exhaustive. "
                    "greedy: one step after the other, needs the space table. random, tpe: to compare with.",
                ),
                io.Boolean.Input(
                    "race",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Candidates that some prompts show to be worse than the best are not tried on the others.",
                ),
                io.Int.Input(
                    "grid",
                    default=10,
                    min=2,
                    max=200,
                    optional=True,
                    advanced=True,
                    tooltip="Of the strategy grid: points per number. The paper's script has 50.",
                ),
                io.Int.Input(
                    "most_pictures",
                    default=0,
                    min=0,
                    max=10_000_000,
                    optional=True,
                    advanced=True,
                    tooltip="The search ends when it has made as many; 0: when all trials are done.",
                ),
                io.Float.Input(
                    "most_minutes",
                    default=0.0,
                    min=0.0,
                    max=100_000.0,
                    step=1.0,
                    optional=True,
                    advanced=True,
                    tooltip="The search ends after as long; 0: when all trials are done. The verdict comes on top.",
                ),
                io.Boolean.Input(
                    "normalised",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="TC and IQ in units of what each varies by from noise to noise: k then weighs equals.",
                ),
                io.Boolean.Input(
                    "warm_start",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="With a reference: closed-form candidates from both models' outputs are tried first.",
                ),
                io.Boolean.Input(
                    "stay_near",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="With a reference: no candidate wins whose pictures are farther from the reference's than "
                    "the quantised ones are.",
                ),
                io.Combo.Input(
                    "accept",
                    options=list(ACCEPT),
                    optional=True,
                    tooltip="repair: only what brings back what quantising took. re-tuning: also a gain that the "
                    "reference would have as well; the preset then says so.",
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
        clip=None,
        full_model=None,
        prompt_set=None,
        jaq_metric=None,
        sampler=None,
        sigmas=None,
        guider=None,
        strategy=STRATEGIES[0],
        race=True,
        grid=10,
        most_pictures=0,
        most_minutes=0.0,
        normalised=False,
        warm_start=True,
        stay_near=True,
        accept=ACCEPT[0],
    ) -> io.NodeOutput:
        from .calibrating.run import Run

        settings = Settings(
            space=space,
            radius=radius,
            trials=trials,
            k=k,
            seeds=verdict_seeds,
            seed=search_seed,
            strategy=strategy,
            race=race,
            grid=grid,
            pictures=most_pictures,
            minutes=most_minutes,
            normalised=normalised,
            accept=accept,
        )
        if prompt_set is None:
            prompt_set = (
                read_prompts(prompts, search_seed) if not prompt_file.strip() else from_file(prompt_file, search_seed)
            )
        way = way_of(model, Recipe(steps, cfg, sampler_name, scheduler), sampler, sigmas, guider)
        if full_model is not None:
            check_reference(model, full_model, way)
        latent = empty_latent(model, latent_image)
        scorer = load_scorer(metric) if jaq_metric is None else jaq_metric
        positives, negatives = conditionings(clip, prompt_set, negative, way)
        forget(cls)
        run = Run(cls.hidden.unique_id, prompt_set, settings, scorer, full_model is not None)
        generator = HostGenerator(
            model, vae, positives, negatives, latent, way, search_seed, batch_size, run.generated
        )  # fmt: skip
        outcome = run(generator, full_model, warm_start, stay_near and full_model is not None)
        # No "images": the host would draw them under the node once more, and out of it in Nodes 2.0.
        shown = {
            "text": [outcome.text],
            "qsched_report": [json.dumps(outcome.report)],
            "qsched_pictures": [picture_rows(cls, outcome.rows, outcome.row_texts)],
        }
        pictures = (outcome.before_after, outcome.map, outcome.per_prompt)
        return io.NodeOutput(outcome.preset, outcome.text, *pictures, ui=keep_output(cls, shown))


def from_file(name: str, seed: int):
    """Prompts of a file in the host's input folder, with its second set if it has one."""
    texts, verdict, note = parse_sets(name, read_input(name))
    return select(texts, verdict, seed, [note])


def conditionings(clip, prompt_set, negative: str, way) -> tuple[list, list]:
    """(One conditioning per prompt, the negative one): as the user prepared them, else encoded.

    Raises:
        CalibrationError: nothing to encode with.
    """
    prepared = getattr(prompt_set, "conditionings", None)
    if clip is None and prepared is None:
        raise CalibrationError("there is no CLIP to encode the prompts.", "plug one in, or prepared conditionings")
    positives = list(prepared) if prepared is not None else [encode(clip, text) for text in prompt_set.texts]
    if clip is not None:
        return positives, encode(clip, negative)
    if way.guider is None and way.cfg != 1.0:
        raise CalibrationError(
            f"cfg {way.cfg:g} needs a negative prompt.", "plug in a CLIP or a GUIDER, or set cfg to 1"
        )
    return positives, positives[0]


NODES = [QSchedCalibrate]
