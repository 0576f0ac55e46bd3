"""One calibration in a graph: the study of the quantised model, its control, and what is shown of them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass

import torch
from comfy.model_management import InterruptProcessingException

from ..calibration import Evaluation, Progress, Result, Settings, calibrate
from ..calibration.prompts import Prompts
from ..calibration.study import all_gains, judged, split
from ..qsched_core import Coefficients, Preset, save_preset
from ..qsched_core.quant import module_bytes
from .control import Control, Row, as_json, table, verdict
from .describe import describe, sums
from .folders import FOLDER, journal_path, unused_path
from .gallery import gallery, mosaic
from .generate import HostGenerator
from .metrics import Scorer
from .progress import NodeProgress

QUANTISED = "quantised model"
SHOWN = 6
"""Held-out prompts in the before/after picture."""


@dataclass(frozen=True)
class Outcome:
    """What the node hands on: the preset, the verdict in words, the before/after picture, and all of it as JSON."""

    preset: Preset
    text: str
    picture: torch.Tensor
    report: dict


class Run:
    """Counts pictures for the bar, keeps the best candidate for a cancel, and puts the table together."""

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

    def __call__(self, generator: HostGenerator, full_model) -> Outcome:
        """Raises InterruptProcessingException when cancelled, after the best candidate so far was saved."""
        try:
            result = self._study(generator, QUANTISED)
            rows = [
                _row("quantised", generator, result.identity),
                _row("quantised + Q-Sched", generator, result.candidate),
            ]
            control = None
            if full_model is not None:
                control, more = self._control(generator.with_model(full_model), result)
                rows = [more[0], *rows, *more[1:]]
            return self._outcome(generator, full_model, result, control, rows)
        except InterruptProcessingException:
            self._keep_best(generator)
            raise

    def _control(self, full: HostGenerator, result: Result) -> tuple[Control, list[Row]]:
        """The full-precision model with nothing, with our coefficients, and with a search of its own."""
        own = self._study(full, "full-precision control")
        self.line = "control: same coefficients on the full model"
        same, _ = judged(full, self.score, self.judge, result.coefficients, self.parts.held_out, self.settings.k)
        gains = all_gains(own.identity, same, len(self.prompts), self.settings)
        return Control(gains["jaq"], own), [
            _row("full precision", full, own.identity),
            _row("full precision + Q-Sched (same)", full, same),
            _row("full precision + Q-Sched (own search)", full, own.candidate),
        ]

    def _study(self, generator: HostGenerator, name: str) -> Result:
        def told(progress: Progress) -> None:
            if name == QUANTISED:
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
        patches = sorted((key, [sums(part) for part in parts]) for key, parts in generator.model.patches.items())
        shared = [generator.prompts[0], generator.negative, list(generator.vae.first_stage_model.parameters())]
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
            patches,
            generator.model.model_size(),
            sums(shared),
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
        save_preset(preset, unused_path(FOLDER, "cancelled calibration"))

    def _outcome(self, generator, full_model, result: Result, control: Control | None, rows: list[Row]) -> Outcome:
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
        return Outcome(preset, "\n".join(lines), self._gallery(generator, full_model, result), report)

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


def _row(name: str, generator: HostGenerator, evaluation: Evaluation) -> Row:
    size = module_bytes(generator.model.model.diffusion_model)
    return Row(name, evaluation, size, generator.seconds_per_picture)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
