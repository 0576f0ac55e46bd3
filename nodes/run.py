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
from ..calibration.search import Trial
from ..calibration.space import Space
from ..calibration.split import split
from ..calibration.storage import STUDIES, STUDY
from ..calibration.study import Hold, all_gains, judged
from ..calibration.validate import newly_broken
from ..qsched_core import CalibrationError, Coefficients, Preset, save_preset
from ..qsched_core.quant import module_bytes
from .compare import LivePairs
from .describe import describe, sums
from .folders import FOLDER, journal_path, unused_path
from .frames import stills
from .gallery import gallery, picture_tensor
from .generate import HostGenerator
from .history import keep
from .metrics import FullPictures, Scorer, distance_from
from .progress import NodeProgress, tell
from .reports import keep_note
from .time_left import TimeLeft, rounded
from .warm import warm_starts

NODE = "QSchedCalibrate"
QUANTISED, CONTROL = "quantised model", "full-precision control"
SHOWN = 6
"""Held-out prompts in the before/after picture."""

PAIRS = 6
"""Pictures that both models are compared on for a warm start."""


@dataclass(frozen=True)
class Outcome:
    """What the node hands on: the preset, the verdict in words, pictures (1, H, W, 3), and all of it as JSON.

    ``rows`` are the same held-out prompts by each model, (name, pictures (B, H, W, 3)), of the prompts ``row_texts``.
    """

    preset: Preset
    text: str
    before_after: torch.Tensor
    map: torch.Tensor
    per_prompt: torch.Tensor
    report: dict
    rows: tuple[tuple[str, torch.Tensor], ...] = ()
    row_texts: tuple[str, ...] = ()


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
        self.time_left = TimeLeft()
        self.resumed: dict[str, int] = {}  # pictures of an earlier run, by study
        self.line = f"at most {self.left} pictures"
        self.beside: list = []
        self.pairs = LivePairs()
        self.best: Progress | None = None
        self.bar.update(0, self.line)

    def generated(self, count: int) -> None:
        self.done, self.left = self.done + count, max(0, self.left - count)
        left = rounded(self.time_left(self.done, self.left))
        self._update_bar(f"{self.line} - about {left} left")

    def _update_bar(self, text: str) -> None:
        done = self.done + sum(self.resumed.values())
        self.bar.update(done, text, total=done + self.left)

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
            keep_note(self.unique_id, NODE, self._stopped())
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
            before = sum(t.pictures for t in progress.finished) - (progress.trial.pictures if progress.trial else 0)
            self.resumed.setdefault(name, before)
            self.left = max(0, progress.total - progress.done) + self.later
            gain = progress.best_jaq - progress.identity_jaq
            self.line = f"{name}, {progress.phase}: best JAQ so far {gain:+.4f}"
            self._update_bar(self.line)
            event = {**_event(name, progress), "pictures": self._pair(name, progress)}
            event = keep(self.unique_id, key, event, lambda: [_trial(trial) for trial in progress.finished])
            tell(self.unique_id, "qsched.progress", event)

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

    def _pair(self, study: str, progress: Progress) -> dict | None:
        pictures = progress.pictures
        return None if pictures is None else self.pairs(study, progress.indices, stills(pictures))

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

    def _stopped(self) -> dict:
        """How far a cancelled run came, the identity not counted."""
        if self.best is None:
            return {"kind": "stopped", "count": 0, "total": self.settings.trials}
        return {"kind": "stopped", "count": max(0, len(self.best.finished) - 1), "total": self.best.trials - 1}

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
            "why not": _why_not(result),
            "held_out": {"prompts": result.gain.prompts, "noises": self.settings.seeds},
            "drifts": list(result.drifts),
            "coefficients": record["candidate"],
            "sigmas": generator.sigmas,
            "gains": record["gains"],
            "network evaluations": result.nfe,
            "trace": [{**t.point, "jaq": _plain(t.value), "whole": t.whole} for t in result.finished],
        }
        space = Space(self.settings, generator.way.steps)
        indices = self.parts.held_out[:SHOWN]
        pictured = self._rows(generator, full, result, indices)
        pictures = (
            gallery(pictured),
            picture_tensor(jaq_map(result.finished, space, result.coefficients)),
            picture_tensor(_paired(result, self.prompts)),
        )
        texts = tuple(self.prompts.texts[index % len(self.prompts.texts)] for index in indices)
        return Outcome(preset, "\n".join(lines), *pictures, report, pictured, texts)

    def _rows(
        self, generator: HostGenerator, full: HostGenerator | None, result: Result, indices
    ) -> tuple[tuple[str, torch.Tensor], ...]:
        identity = Coefficients.identity(generator.way.steps)
        rows = [
            ("quantised", stills(generator(identity, indices))),
            ("quantised + Q-Sched", stills(generator(result.coefficients, indices))),
        ]
        if full is not None:
            rows.insert(0, ("full precision", stills(full(identity, indices))))
        return tuple(rows)


def _why_not(result: Result) -> str:
    """Why the identity is recommended, in the words of the page's texts; "" where it is not."""
    if result.accepted:
        return ""
    if newly_broken(result.identity, result.candidate):
        return "broken"
    if result.coefficients.is_identity:
        return "none"
    return "worse" if result.gain.high < 0 else "noise"


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
        "count": len(progress.finished),
        "trials": progress.trials,
        "trial": None if trial is None else _trial(trial),
    }


def _trial(trial: Trial) -> dict:
    return {"point": dict(trial.point), "jaq": _plain(trial.value), "whole": trial.whole}


def _weights(model) -> list:
    """What tells a MODEL from others with the same fingerprint: its size, and the LoRAs on it."""
    patches = sorted((key, [sums(part) for part in parts]) for key, parts in model.patches.items())
    return [model.model_size(), patches]


def _options(sampler) -> list:
    return [*getattr(sampler, "extra_options", {}).items(), *getattr(sampler, "inpaint_options", {}).items()]


def _plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if value == value and abs(value) != float("inf") else None
