"""Step Sensitivity: what each sampling step loses in each precision, and the best plan within a budget."""

from __future__ import annotations

from comfy_api.latest import io

from ..calibration.choices import STEP_COSTS
from .calibrating.metric_menu import NEAR, metric_names
from .host.progress import node_id
from .host.reports import keep_output
from .precision_schedule import MORE_MODELS, more_model_inputs
from .sampling.sampling_inputs import sampling_inputs, study_seed_input
from .sockets import CATEGORY, PrecisionSocket


class QSchedStepSensitivity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedStepSensitivity",
            display_name="Step Sensitivity",
            category=CATEGORY,
            description="Measures what the pictures lose when one sampling step alone is coarser, finds the nearest "
            "plan within a budget, and checks it on other prompts. A cancel keeps what was measured; the same inputs "
            "go on.",
            search_aliases=[
                "sensitivity",
                "precision per step",
                "mixed precision",
                "plan",
                "bits per step",
                "benchmark",
            ],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The first model: number 1 in the plan. Quantised, or the full one."),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                io.Latent.Input("latent_image", tooltip="An empty latent of the picture size you use."),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One per line, 12 or more; half is kept for the verdict. Empty: words at random from "
                    "the clip's vocabulary, whose pictures are compared without scores.",
                ),
                io.Float.Input(
                    "budget",
                    default=0.5,
                    min=0.01,
                    max=8.0,
                    step=0.01,
                    tooltip="What the plan may cost, as a share of the best precision in every step.",
                ),
                io.Combo.Input(
                    "cost",
                    options=list(STEP_COSTS),
                    tooltip="bits: bit operations of the mean step. time: seconds, measured here. memory: weights of "
                    "all models that the plan uses.",
                ),
                *sampling_inputs(most_steps=64),
                io.Combo.Input(
                    "metric",
                    options=[name for name in metric_names() if name != NEAR],
                    tooltip="An open_clip model in your metrics folder (qsched_metrics), or the demo's nets. Among "
                    "plans as near, the best score is taken.",
                ),
                io.String.Input(
                    "formats",
                    default="",
                    advanced=True,
                    tooltip="What a step may get, comma separated: 1, 1a8, 2. Empty: each model as it is, and with "
                    "8-bit activations where that changes something.",
                ),
                study_seed_input("Of the noises, and of which prompts are kept for the verdict."),
                io.Int.Input(
                    "batch_size", default=16, min=1, max=256, advanced=True, tooltip="Lower it if memory is short."
                ),
                io.String.Input("negative", default="", advanced=True, tooltip="Negative prompt; unused at cfg 1."),
                *more_model_inputs(),
            ],
            outputs=[
                PrecisionSocket.Output(display_name="precision", tooltip="The plan, for Precision Schedule."),
                io.Model.Output(display_name="model", tooltip="The models as one, sampling by the plan."),
                io.String.Output(display_name="report", tooltip="The verdict, and what each step loses."),
                io.Image.Output(display_name="plot", tooltip="What each step loses, and distance against cost."),
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
        budget,
        cost,
        steps,
        cfg,
        sampler_name,
        scheduler,
        metric,
        formats="",
        study_seed=0,
        batch_size=16,
        negative="",
        **more,
    ) -> io.NodeOutput:
        from ..calibration.plots.step_losses import step_losses
        from .calibrating.gallery import picture_tensor
        from .calibrating.generator import HostGenerator
        from .calibrating.sampling_setup import setup_of
        from .calibrating.scorer import load_scorer
        from .calibrating.step_run import StepRun, options_of, prompts_of, result_text
        from .host.conditioning import encode
        from .host.random_prompts import AT_RANDOM
        from .sampling.ksampler import Recipe, empty_latent
        from .sampling.plan_text import check_one_source

        models = [model, *(more[name] for name in MORE_MODELS if more.get(name) is not None)]
        check_one_source(models)
        options = options_of(models, formats)
        prompt_set, has_texts = prompts_of(prompts, clip, study_seed)
        setup = setup_of(model, Recipe(steps, cfg, sampler_name, scheduler))
        encoded = {text: encode(clip, text) for text in dict.fromkeys(prompt_set.texts)}
        generator = HostGenerator(
            model, vae, [encoded[text] for text in prompt_set.texts], encode(clip, negative),
            empty_latent(model, latent_image), setup, study_seed, batch_size,
        )  # fmt: skip
        scorer = load_scorer(metric) if has_texts else None
        run = StepRun(node_id(cls), generator, models, options, prompt_set, scorer, study_seed)
        generator.on_batch = run.pictures_made
        result = run(budget, cost)
        text, plot = result_text(result, run), picture_tensor(step_losses(result))
        if not has_texts:
            text = f"{AT_RANDOM}\n{text}"
        outputs = run.precision(result.plan), run.model(result.plan), text, plot
        return io.NodeOutput(*outputs, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedStepSensitivity]
