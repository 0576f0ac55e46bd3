"""JAQ Calibrate: search coefficients on the user's prompts inside the graph, and judge them on others."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict

import comfy.samplers
import torch
from comfy.model_management import InterruptProcessingException
from comfy_api.latest import io, ui

from ..calibration import Progress, Result, Settings, calibrate
from ..calibration.prompts import Prompts, read_prompts
from ..calibration.settings import SPACES
from ..calibration.study import all_gains, judged, split
from ..qsched_core import CalibrationError, Coefficients, Preset, save_preset
from ..qsched_core.quant import module_bytes
from .control import Control, Row, as_json, table, verdict
from .describe import describe
from .folders import input_text, journal_path, unused_preset_path
from .gallery import gallery, mosaic
from .generate import HostGenerator, encode
from .metrics import Scorer, load_scorer, metric_names
from .patch import EXACT_SAMPLERS
from .progress import NodeProgress
from .sampling import Recipe, check_latent
from .sockets import CATEGORY, PresetSocket

SHOWN = 6
"""Held-out prompts in the before/after picture."""


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
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Of noises, of the search and of the split."),
                io.Int.Input("steps", default=4, min=1, max=1000, tooltip="As you will sample."),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="As you will sample."),
                io.Combo.Input("sampler_name", options=list(EXACT_SAMPLERS), tooltip="As you will sample."),
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
        seed,
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
        settings = Settings(space=space, radius=radius, trials=trials, k=k, seeds=verdict_seeds, seed=seed)
        texts = read_prompts(input_text(prompt_file) if prompt_file.strip() else prompts, seed)
        recipe = Recipe(steps, cfg, sampler_name, scheduler)
        latent = check_latent(model, latent_image["samples"])
        if torch.count_nonzero(latent):
            raise CalibrationError(
                "the latent is not empty.", "plug in an empty latent: calibration makes its own noise"
            )
        run = _Run(cls.hidden.unique_id, texts, settings, load_scorer(metric), full_model is not None)
        conditionings = [encode(clip, text) for text in texts.texts]
        generator = HostGenerator(
            model, vae, conditionings, encode(clip, negative), latent, recipe, seed, batch_size, run.generated
        )
        outcome = run(generator, full_model)
        shown = ui.PreviewImage(outcome.picture, cls=cls).as_dict()
        shown.update(ui.PreviewText(outcome.text).as_dict())
        shown["qsched_report"] = [json.dumps(outcome.report)]
        return io.NodeOutput(outcome.preset, outcome.text, outcome.picture, ui=shown)


class _Outcome:
    def __init__(self, preset: Preset, text: str, picture: torch.Tensor, report: dict):
        self.preset, self.text, self.picture, self.report = preset, text, picture, report


class _Run:
    """One calibration in a graph: the study of the quantised model, and of the full one if it is there."""

    def __init__(self, unique_id: str | None, prompts: Prompts, settings: Settings, scorer: Scorer, control: bool):
        self.prompts, self.settings, self.scorer = prompts, settings, scorer
        self.score, self.judge = scorer.bind(prompts.texts)
        self.parts = split(len(prompts), settings)
        study = (settings.trials + 1) * len(self.parts.search) + 2 * len(self.parts.held_out)
        self.total = study * (1 + control) + len(self.parts.held_out) * control
        self.done = 0
        self.bar = NodeProgress(unique_id, self.total)
        self.started = time.monotonic()
        self.line = "starting"
        self.best: Progress | None = None

    def generated(self, count: int) -> None:
        self.done += count
        spent = time.monotonic() - self.started
        left = spent / self.done * max(0, self.total - self.done)
        self.bar.update(min(self.done, self.total), f"{self.line} - about {_clock(left)} left")

    def __call__(self, generator: HostGenerator, full_model) -> _Outcome:
        try:
            result = self._study(generator, "quantised model")
        except InterruptProcessingException:
            self._keep_best(generator)
            raise
        rows, control = [], None
        if full_model is not None:
            full = generator.with_model(full_model)
            own = self._study(full, "full-precision control", keep_best=False)
            self.line = "control: same coefficients on the full model"
            seconds = full.seconds_per_picture
            same, _ = judged(full, self.score, self.judge, result.coefficients, self.parts.held_out, self.settings.k)
            gains = all_gains(own.identity, same, len(self.prompts), self.settings)
            control = Control(gains["jaq"], own)
            bytes_full = _weight_bytes(full_model)
            rows += [Row("full precision", own.identity, bytes_full, seconds)]
        seconds, size = generator.seconds_per_picture, _weight_bytes(generator.model)
        rows += [
            Row("quantised", result.identity, size, seconds),
            Row("quantised + Q-Sched", result.candidate, size, seconds),
        ]
        if control is not None:
            rows += [
                Row("full precision + Q-Sched (same)", same, bytes_full, full.seconds_per_picture),
                Row(
                    "full precision + Q-Sched (own search)", control.own.candidate, bytes_full, full.seconds_per_picture
                ),
            ]
        return self._outcome(generator, full_model, result, control, rows)

    def _study(self, generator: HostGenerator, name: str, keep_best: bool = True) -> Result:
        def told(progress: Progress) -> None:
            if keep_best and progress.phase == "search":
                self.best = progress
            gain = progress.best_jaq - progress.identity_jaq
            self.line = f"{name}, {progress.phase}: best JAQ so far {gain:+.4f}"
            self.bar.update(min(self.done, self.total), self.line, mosaic(progress.pictures))

        self.line = f"{name}: identity"
        return calibrate(
            generator,
            self.score,
            len(self.prompts),
            generator.recipe.steps,
            self.settings,
            judge=self.judge,
            journal=journal_path(self._key(generator)),
            on_progress=told,
        )

    def _key(self, generator: HostGenerator) -> str:
        """sha256 of everything that decides the figures: equal inputs find their journal again."""
        patches = sorted((key, [part[0] for part in parts]) for key, parts in generator.model.patches.items())
        inputs = [
            asdict(self._binding(generator)),
            asdict(self.settings),
            asdict(generator.recipe),
            generator.sigmas,
            generator.seed,
            generator.batch_size,
            list(generator.latent.shape),
            self.prompts.digest,
            self.scorer.name,
            str(patches),
            [float(entry[0].double().sum()) for entry in [*generator.prompts[0], *generator.negative]],
        ]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]

    def _binding(self, generator: HostGenerator):
        recipe = generator.recipe
        return describe(generator.model, recipe.sampler, recipe.scheduler, recipe.cfg)

    def _keep_best(self, generator: HostGenerator) -> None:
        if self.best is None:
            return
        record = {"search JAQ": self.best.best_jaq, "search JAQ of identity": self.best.identity_jaq}
        preset = Preset(self.best.best, generator.sigmas, self._binding(generator), "not validated", record)
        save_preset(preset, unused_preset_path("cancelled calibration"))

    def _outcome(self, generator, full_model, result: Result, control: Control | None, rows: list[Row]) -> _Outcome:
        held_out = f"{result.gain.prompts} prompts x {self.settings.seeds} noises"
        lines = verdict(result, control, held_out)
        if self.prompts.note:
            lines.append(f"Prompts: {self.prompts.note}.")
        record = {
            "metric": self.scorer.name,
            "settings": asdict(self.settings),
            "prompts": len(self.prompts),
            "prompts sha256": self.prompts.digest,
            "network evaluations": result.nfe,
            "gain": as_json(result.gains)["jaq"],
            "gains": as_json(result.gains),
            "candidate": {"c_x": result.coefficients.c_x, "c_eps": result.coefficients.c_eps},
            "on border": list(result.on_border),
            "verdict": lines,
            "date": time.strftime("%Y-%m-%d"),
        }
        if control is not None:
            record["control"] = {"same": asdict(control.same), "own": as_json(control.own.gains)["jaq"]}
        preset = Preset(
            result.recommended,
            generator.sigmas,
            self._binding(generator),
            "accepted" if result.accepted else "identity recommended",
            record,
        )
        report = {
            "table": table(rows),
            "verdict": lines,
            "accepted": result.accepted,
            "coefficients": record["candidate"],
            "sigmas": generator.sigmas,
            "gains": record["gains"],
            "network evaluations": result.nfe,
            "trace": [{**point, "jaq": value} for point, value in result.trace],
        }
        return _Outcome(preset, "\n".join(lines), self._gallery(generator, full_model, result), report)

    def _gallery(self, generator: HostGenerator, full_model, result: Result) -> torch.Tensor:
        indices = self.parts.held_out[:SHOWN]
        identity = Coefficients.identity(generator.recipe.steps)
        rows = [
            ("quantised", generator(identity, indices)),
            ("quantised + Q-Sched", generator(result.coefficients, indices)),
        ]
        if full_model is not None:
            rows.insert(0, ("full precision", generator.with_model(full_model)(identity, indices)))
        return gallery(rows)


def _weight_bytes(model) -> int:
    return module_bytes(model.model.diffusion_model)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


NODES = [QSchedCalibrate]
