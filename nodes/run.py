"""One calibration in a graph: the study of the quantised model, its control, and what is shown of them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass

import torch
from comfy.model_management import InterruptProcessingException
from PIL import Image

from ..calibration import Progress, Result, Settings, calibrate
from ..calibration.plots import jaq_map, paired_plot
from ..calibration.prompt_syntax import plain_text
from ..calibration.report import Control, Row, as_json, table, verdict
from ..calibration.space import Space
from ..calibration.split import split
from ..calibration.storage import STUDY
from ..calibration.study import Hold, all_gains, judged
from ..qsched_core import CalibrationError, Coefficients, Preset, save_preset
from ..qsched_core.quant import module_bytes
from .describe import describe, sums
from .folders import FOLDER, journal_path, unused_path
from .frames import stills
from .gallery import gallery, mosaic, picture_tensor
from .generate import HostGenerator
from .history import keep
from .metrics import FullPictures, Scorer, distance_from
from .progress import NodeProgress, tell
from .warm import warm_starts

QUANTISED, CONTROL = "quantised model", "full-precision control"
SHOWN = 6
"""Held-out prompts in the before/after picture."""

PAIRS = 6
"""Pictures that both models are compared on for a warm start."""

STUDIES = "QSCHED_STUDIES"
"""Environment variable: a database's URL, where several machines share their studies. Never part of a workflow: that
would hand passwords to strangers, and the strangers' addresses to this machine."""


@dataclass(frozen=True)
class Outcome:
    """What the node hands on: the preset, the verdict in words, pictures (1, H, W, 3), and all of it as JSON."""

    preset: Preset
    text: str
    before_after: torch.Tensor
    map: torch.Tensor
    per_prompt: torch.Tensor
    report: dict


class Run:
    """Counts pictures for the bar, keeps the best candidate for a cancel, and puts the table together."""

    def __init__(self, unique_id: str | None, prompts, settings: Settings, scorer: Scorer, control: bool):
        self.unique_id, self.prompts, self.settings, self.scorer = unique_id, prompts, settings, scorer
        self.verdict_prompts = getattr(prompts, "verdict", ())
        self.parts = split(len(prompts.texts), settings, self.verdict_prompts)
        if not getattr(prompts, "has_texts", True):
            raise CalibrationError(
                "a text-image score needs the prompts' texts.", "plug them in beside the conditionings"
            )
        # At most: candidates that are raced out make fewer.
        study = (settings.trials + 1) * len(self.parts.search) + 2 * len(self.parts.held_out)
        self.done, self.left = 0, study * (1 + control) + 2 * len(self.parts.held_out) * control
        self.later = self.left - study
        self.bar = NodeProgress(unique_id, self.left)
        self.started = time.monotonic()
        self.line = f"at most {self.left} pictures"
        self.beside: list = []
        self.before: dict[tuple, torch.Tensor] = {}
        self.best: Progress | None = None
        self.bar.update(0, self.line)

    def generated(self, count: int) -> None:
        self.done, self.left = self.done + count, max(0, self.left - count)
        left = (time.monotonic() - self.started) / self.done * self.left
        self.bar.update(self.done, f"{self.line} - about {_clock(left)} left", total=self.done + self.left)

    def finish(self, outcome: Outcome) -> None:
        self.bar.update(self.bar.total, outcome.text, outcome.before_after[0])

    def __call__(self, generator: HostGenerator, full_model, warm_start: bool, stay_near: bool) -> Outcome:
        """Raises InterruptProcessingException when cancelled, after the best candidate so far was saved."""
        try:
            full = None if full_model is None else generator.with_model(full_model)
            starts = self._warm_starts(generator, full) if full is not None and warm_start else {}
            self.beside = [] if full is None else [asdict(self._binding(full)), _weights(full.model)]
            looked_at = [*self.parts.held_out, *(self.parts.search if stay_near else ())]
            reference = None if full is None else FullPictures(full, looked_at, generator.way.steps)
            self.score, self.judge = self.scorer.bind(self.prompts.texts, reference)
            hold = distance_from(reference) if stay_near else None
            result = self._study(generator, QUANTISED, tuple(starts.values()), hold)
            rows = [
                _row("quantised", generator, result.identity),
                _row("quantised + Q-Sched", generator, result.candidate),
            ]
            control = None
            if full is not None:
                control, more = self._control(full, result)
                rows = [more[0], *rows, *more[1:]]
            return self._outcome(generator, full, result, control, rows, starts)
        except InterruptProcessingException:
            self._keep_best(generator)
            raise
        finally:
            self.scorer.release()

    def _warm_starts(self, generator: HostGenerator, full: HostGenerator) -> dict[str, Coefficients]:
        def told(done: int, total: int, text: str) -> None:
            self.bar.update(self.done, text)

        indices = self.parts.search[:PAIRS]
        way = generator.way
        return warm_starts(
            generator.sampled, generator.model, full.model, indices, way.sampler, way.sigmas, generator.batch_size, told
        )

    def _control(self, full: HostGenerator, result: Result) -> tuple[Control, list[Row]]:
        """The full-precision model with nothing, with our coefficients, and with a search of its own."""
        self.later = len(self.parts.held_out)
        own = self._study(full, CONTROL)
        self.line = "control: same coefficients on the full model"
        same, _ = judged(full, self.score, self.judge, result.coefficients, self.parts.held_out, result.objective)
        gains = all_gains(own.identity, same, len(self.prompts.texts), self.settings)
        return Control(gains["jaq"], own), [
            _row("full precision", full, own.identity),
            _row("full precision + Q-Sched (same)", full, same),
            _row("full precision + Q-Sched (own search)", full, own.candidate),
        ]

    def _study(
        self, generator: HostGenerator, name: str, starts: tuple[Coefficients, ...] = (), hold: Hold | None = None
    ) -> Result:
        def told(progress: Progress) -> None:
            if name == QUANTISED:
                self.best = progress
            self.left = max(0, progress.total - progress.done) + self.later
            gain = progress.best_jaq - progress.identity_jaq
            self.line = f"{name}, {progress.phase}: best JAQ so far {gain:+.4f}"
            self.bar.update(self.done, self.line, self._preview(name, progress), total=self.done + self.left)
            tell(self.unique_id, "qsched.progress", keep(self.unique_id, key, _event(name, progress)))

        self.line = f"{name}: identity"
        key = self._key(generator, starts, held=hold is not None)
        shared = os.environ.get(STUDIES)
        return calibrate(
            generator,
            self.score,
            len(self.prompts.texts),
            generator.way.steps,
            self.settings,
            judge=self.judge,
            hold=hold,
            journal=shared or journal_path(key),
            name=f"{STUDY} {key}" if shared else STUDY,
            starts=starts,
            verdict_prompts=self.verdict_prompts,
            on_progress=told,
        )

    def _preview(self, study: str, progress: Progress) -> torch.Tensor | None:
        """The stock sampler's pictures above those of the candidate of the moment: a few of each, the same prompts."""
        if progress.pictures is None:
            return None
        shown, place = mosaic(stills(progress.pictures)), (study, progress.indices)
        if place not in self.before:
            # The first to be sampled in every group is the identity.
            self.before[place] = shown
        return torch.cat([self.before[place], shown])

    def _key(self, generator: HostGenerator, starts: tuple[Coefficients, ...], *, held: bool) -> str:
        """sha256 of everything that decides the figures: equal inputs find their journal again."""
        shared = [generator.prompts[0], generator.negative, list(generator.vae.first_stage_model.parameters())]
        way = generator.way
        inputs = [
            asdict(self._binding(generator)),
            self.settings.lasting(),
            [way.name, way.scheduler, way.cfg, type(way.guider).__name__, sorted(map(str, _options(way.sampler)))],
            way.sigmas,
            generator.seed,
            generator.batch_size,
            list(generator.latent.shape),
            self.prompts.digest,
            list(self.verdict_prompts),
            # Older studies, whose prompts were scored with their syntax, go on where there is none.
            [
                self.scorer.name,
                self.scorer.note,
                *sorted({plain_text(text) for text in self.prompts.texts} - set(self.prompts.texts)),
            ],
            self.beside,
            _weights(generator.model),
            sums(shared),
            [[start.c_x, start.c_eps] for start in starts],
            held,
        ]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]

    def _binding(self, generator: HostGenerator):
        way = generator.way
        return describe(generator.model, way.name, way.scheduler, way.cfg)

    def _keep_best(self, generator: HostGenerator) -> None:
        if self.best is None:
            return
        record = {"search JAQ": _plain(self.best.best_jaq), "search JAQ of identity": _plain(self.best.identity_jaq)}
        preset = Preset(self.best.best, generator.sigmas, self._binding(generator), "not validated", record)
        save_preset(preset, unused_path(FOLDER, "cancelled calibration"))

    def _outcome(self, generator, full, result: Result, control: Control | None, rows, starts) -> Outcome:
        lines = verdict(result, control)
        if starts:
            lines.append(f"Warm start: {', '.join(starts)} were tried as candidates.")
        lines += [
            f"{what}: {note}." for what, note in (("Prompts", self.prompts.note), ("Metric", self.scorer.note)) if note
        ]
        lines += [*self.scorer.reading(self.prompts.texts), *filter(None, [generator.note])]
        objective = result.objective
        record = {
            "metric": self.scorer.name,
            "objective": asdict(objective),
            "settings": {**asdict(self.settings), "stay near": result.held},
            "prompts": len(self.prompts.texts),
            "prompts sha256": self.prompts.digest,
            "network evaluations": result.nfe,
            "failed candidates": result.failed,
            "gain": as_json(result.gains)["jaq"],
            "gains": as_json(result.gains),
            "drifts": list(result.drifts),
            "optimism": _plain(result.optimism),
            "candidate": {"c_x": result.coefficients.c_x, "c_eps": result.coefficients.c_eps},
            "on border": list(result.on_border),
            "verdict": lines,
            "date": time.strftime("%Y-%m-%d"),
        }
        if control is not None:
            same = as_json({"jaq": control.same})["jaq"]
            record["control"] = {"same": same, "own": as_json(control.own.gains)["jaq"]}
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
            "held_out": {"prompts": result.gain.prompts, "noises": self.settings.seeds},
            "drifts": list(result.drifts),
            "coefficients": record["candidate"],
            "sigmas": generator.sigmas,
            "gains": record["gains"],
            "network evaluations": result.nfe,
            "trace": [{**t.point, "jaq": _plain(t.value), "whole": t.whole} for t in result.finished],
        }
        space = Space(self.settings, generator.way.steps)
        pictures = (
            self._gallery(generator, full, result),
            picture_tensor(jaq_map(result.finished, space, result.coefficients)),
            picture_tensor(_paired(result, self.prompts)),
        )
        return Outcome(preset, "\n".join(lines), *pictures, report)

    def _gallery(self, generator: HostGenerator, full: HostGenerator | None, result: Result) -> torch.Tensor:
        indices = self.parts.held_out[:SHOWN]
        identity = Coefficients.identity(generator.way.steps)
        rows = [
            ("quantised", stills(generator(identity, indices))),
            ("quantised + Q-Sched", stills(generator(result.coefficients, indices))),
        ]
        if full is not None:
            rows.insert(0, ("full precision", stills(full(identity, indices))))
        return gallery(rows)


def _paired(result: Result, prompts) -> Image.Image:
    return paired_plot(result.identity, result.candidate, len(prompts.texts), prompts.texts)


def _row(name: str, generator: HostGenerator, evaluation) -> Row:
    size = module_bytes(generator.model.model.diffusion_model)
    return Row(name, evaluation, size, generator.seconds_per_picture)


def _event(study: str, progress: Progress) -> dict:
    """What a live plot needs, in plain JSON values."""
    best, trial = progress.best, progress.trial
    return {
        "study": study,
        "phase": progress.phase,
        "done": progress.done,
        "total": progress.total,
        "best": {"c_x": best.c_x, "c_eps": best.c_eps, "jaq": _plain(progress.best_jaq)},
        "identity": _plain(progress.identity_jaq),
        "trial": None
        if trial is None
        else {"point": dict(trial.point), "jaq": _plain(trial.value), "whole": trial.whole},
    }


def _weights(model) -> list:
    """What tells a MODEL from others with the same fingerprint: its size, and the LoRAs on it."""
    patches = sorted((key, [sums(part) for part in parts]) for key, parts in model.patches.items())
    return [model.model_size(), patches]


def _options(sampler) -> list:
    return [*getattr(sampler, "extra_options", {}).items(), *getattr(sampler, "inpaint_options", {}).items()]


def _plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if value == value and abs(value) != float("inf") else None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
