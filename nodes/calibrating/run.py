"""One calibration in a graph: the study of the quantised model, its control, and what is shown of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from comfy.model_management import InterruptProcessingException
from PIL import Image

from ...calibration import Progress, Result, Settings, calibrate
from ...calibration.frames import stills
from ...calibration.indices import prompt_of
from ...calibration.metrics.reference import DISTANCE
from ...calibration.plots.paired_gains import paired_plot
from ...calibration.plots.search_map import jaq_map
from ...calibration.prompt_syntax import plain_text
from ...calibration.record import study_record, unfinished_record
from ...calibration.reference_pictures import ReferencePictures, guard_of
from ...calibration.report import Row, preset_verdict, remarks, table, verdict
from ...calibration.search.search import Trial
from ...calibration.search.space import Space
from ...calibration.search.storage import STUDIES, STUDY
from ...calibration.split import split
from ...calibration.study import REFERENCE_PHASE
from ...calibration.time_left import TimeLeft, rounded
from ...calibration.validate import RETUNING, newly_broken
from ...qsched_core import CalibrationError, Coefficients, Preset, save_preset
from ...qsched_core.quant import label_of, module_bytes
from ..host.folders import PRESETS_FOLDER, journal_path, unused_path
from ..host.model_info import describe, sums
from ..host.progress import NodeProgress, tell
from ..host.reports import keep_note
from .gallery import gallery, picture_tensor
from .generator import HostGenerator
from .history import keep
from .scorer import Scorer
from .slider_pairs import LivePairs
from .warm_start import warm_starts

NODE_ID = "QSchedCalibrate"
STUDY_TITLE = "quantised model"
GALLERY_PROMPTS = 6
"""Held-out prompts in the before/after picture."""

WARM_START_PICTURES = 6
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

    def __init__(self, unique_id: str | None, prompts, settings: Settings, scorer: Scorer, reference: bool):
        self.unique_id, self.prompts, self.scorer = unique_id, prompts, scorer
        self.settings = settings.resolved(reference)
        self.verdict_prompts = getattr(prompts, "verdict", ())
        self.parts = split(len(prompts.texts), settings, self.verdict_prompts)
        if not getattr(prompts, "has_texts", True):
            raise CalibrationError(
                "a text-image score needs the prompts' texts.", "plug them in beside the conditionings"
            )
        # At most: candidates that are raced out make fewer.
        search, held_out = len(self.parts.search), len(self.parts.held_out)
        self.done, self.remaining = 0, (settings.trials + 1 + reference) * search + (2 + 2 * reference) * held_out
        self.bar = NodeProgress(unique_id, self.remaining)
        self.time_left = TimeLeft()
        self.resumed: int | None = None  # pictures of an earlier run
        self.line = f"at most {self.remaining} pictures"
        self.beside: list = []
        self.pairs = LivePairs()
        self.best: Progress | None = None
        self.bar.update(0, self.line)

    def generated(self, count: int) -> None:
        self.done, self.remaining = self.done + count, max(0, self.remaining - count)
        time_left = rounded(self.time_left(self.done, self.remaining))
        self._update_bar(f"{self.line} - about {time_left} left")

    def _update_bar(self, text: str) -> None:
        done = self.done + (self.resumed or 0)
        self.bar.update(done, text, total=done + self.remaining)

    def __call__(self, generator: HostGenerator, full_model, warm_start: bool, stay_near: bool) -> Outcome:
        """Raises InterruptProcessingException when cancelled, after the best candidate so far was saved."""
        try:
            full = None if full_model is None else generator.with_model(full_model)
            starts = self._warm_starts(generator, full) if full is not None and warm_start else {}
            self.beside = [] if full is None else [asdict(self._binding(full)), _weights(full.model)]
            indices = [*self.parts.held_out, *self.parts.search]
            reference = None if full is None else ReferencePictures(full, indices, generator.way.steps)
            self.score, self.judge = self.scorer.bind(self.prompts.texts, reference)
            result = self._study(generator, tuple(starts.values()), reference, stay_near)
            return self._outcome(generator, full, result, reference, starts)
        except InterruptProcessingException:
            self._keep_best(generator)
            keep_note(self.unique_id, NODE_ID, self._stopped())
            raise
        finally:
            self.scorer.release()

    def _warm_starts(self, generator: HostGenerator, full: HostGenerator) -> dict[str, Coefficients]:
        def show_text(done: int, total: int, text: str) -> None:
            self.bar.update(self.done, text)

        indices = self.parts.search[:WARM_START_PICTURES]
        way = generator.way
        return warm_starts(
            generator.sampled,
            generator.model,
            full.model,
            indices,
            way.sampler,
            way.sigmas,
            generator.batch_size,
            show_text,
        )

    def _study(
        self,
        generator: HostGenerator,
        starts: tuple[Coefficients, ...],
        reference: ReferencePictures | None,
        stay_near: bool,
    ) -> Result:
        def show_progress(progress: Progress) -> None:
            self.best = progress
            if self.resumed is None:
                finished = sum(trial.pictures for trial in progress.finished)
                self.resumed = finished - (progress.trial.pictures if progress.trial else 0)
            self.remaining = max(0, progress.total - progress.done)
            self.line = _line(progress)
            self._update_bar(self.line)
            event = {**_event(progress), "radius": self.settings.radius, "pictures": self._pair(progress)}
            event = keep(self.unique_id, key, event, lambda: [_trial(trial) for trial in progress.finished])
            tell(self.unique_id, "qsched.progress", event)

        self.line = "pictures of the reference" if reference is not None else "identity"
        key = self._key(generator, starts, stay_near=stay_near)
        shared = os.environ.get(STUDIES)
        return calibrate(
            generator,
            self.score,
            len(self.prompts.texts),
            generator.way.steps,
            self.settings,
            judge=self.judge,
            reference=None if reference is None else reference.generate,
            guard=guard_of(reference, stay_near=stay_near),
            journal=shared or journal_path(key),
            name=f"{STUDY} {key}" if shared else STUDY,
            starts=starts,
            verdict_prompts=self.verdict_prompts,
            on_progress=show_progress,
        )

    def _pair(self, progress: Progress) -> dict | None:
        """The stock sampler's pictures and the candidate's; none of the reference model's."""
        if progress.pictures is None or progress.phase == REFERENCE_PHASE:
            return None
        return self.pairs(STUDY_TITLE, progress.indices, stills(progress.pictures))

    def _key(self, generator: HostGenerator, starts: tuple[Coefficients, ...], *, stay_near: bool) -> str:
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
            ["guarded", stay_near],
        ]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]

    def _binding(self, generator: HostGenerator):
        way = generator.way
        return describe(generator.model, way.name, way.scheduler, way.cfg)

    def _keep_best(self, generator: HostGenerator) -> None:
        if self.best is None or not self.best.finished:
            return
        record = unfinished_record(self.best.best_jaq, self.best.identity_jaq)
        preset = Preset(self.best.best, generator.sigmas, self._binding(generator), "not validated", record)
        save_preset(preset, unused_path(PRESETS_FOLDER, "cancelled calibration"))

    def _stopped(self) -> dict:
        """How far a cancelled run came, the identity not counted."""
        if self.best is None:
            return {"kind": "stopped", "count": 0, "total": self.settings.trials}
        return {"kind": "stopped", "count": max(0, len(self.best.finished) - 1), "total": self.best.trials - 1}

    def _outcome(
        self, generator: HostGenerator, full: HostGenerator | None, result: Result,
        reference: ReferencePictures | None, starts: Mapping[str, Coefficients],
    ) -> Outcome:  # fmt: skip
        lines = verdict(result)
        if reference is not None:
            lines += _reseed(reference, result, len(self.prompts.texts))
        if starts:
            lines.append(f"Warm start: {', '.join(starts)} were tried as candidates.")
        lines += [
            f"{what}: {note}." for what, note in (("Prompts", self.prompts.note), ("Metric", self.scorer.note)) if note
        ]
        lines += [*self.scorer.reading(self.prompts.texts), *filter(None, [generator.note])]
        record = study_record(
            result,
            self.settings,
            metric=self.scorer.name,
            n_prompts=len(self.prompts.texts),
            digest=self.prompts.digest,
            lines=lines,
        )
        preset = Preset(
            result.recommended,
            generator.sigmas,
            self._binding(generator),
            preset_verdict(result),
            record,
        )
        sentences = [*lines, *remarks(result)]
        report = {
            "table": table(_rows(generator, full, result)),
            "verdict": sentences,
            "answer": result.answer,
            "accepted": result.accepted,
            "why not": _why_not(result),
            "held_out": {"prompts": result.gain.prompts, "noises": self.settings.seeds},
            "drifts": list(result.drifts),
            "coefficients": record["candidate"],
            "sigmas": generator.sigmas,
            "radius": self.settings.radius,
            "gains": record["gains"],
            "network evaluations": result.nfe,
            "trace": [{**t.point, "jaq": _plain(t.value), "whole": t.whole} for t in result.finished],
        }
        space = Space(self.settings, generator.way.steps)
        indices = self.parts.held_out[:GALLERY_PROMPTS]
        pictured = self._pictures(generator, full, result, indices)
        pictures = (
            gallery(pictured),
            picture_tensor(jaq_map(result.finished, space, result.coefficients)),
            picture_tensor(_paired(result, self.prompts)),
        )
        texts = tuple(self.prompts.texts[prompt_of(index, len(self.prompts.texts))] for index in indices)
        return Outcome(preset, "\n".join(sentences), *pictures, report, pictured, texts)

    def _pictures(
        self, generator: HostGenerator, full: HostGenerator | None, result: Result, indices
    ) -> tuple[tuple[str, torch.Tensor], ...]:
        identity = Coefficients.identity(generator.way.steps)
        rows = [
            ("quantised", stills(generator(identity, indices))),
            ("quantised + Q-Sched", stills(generator(result.coefficients, indices))),
        ]
        if full is not None:
            rows.insert(0, (_reference_title(full), stills(full(identity, indices))))
        return tuple(rows)


def _why_not(result: Result) -> str:
    """Why the identity is recommended, in the words of the page's texts; "" where it is not."""
    if result.accepted:
        return ""
    if newly_broken(result.identity, result.candidate):
        return "broken"
    if result.answer == RETUNING:
        return "retuning"
    if result.coefficients.is_identity:
        return "none"
    if result.gain.low > 0:
        return "drift"
    return "worse" if result.gain.high < 0 else "noise"


def _rows(generator: HostGenerator, full: HostGenerator | None, result: Result) -> list[Row]:
    """The table: the quantised model without and with the coefficients, the reference around it."""
    rows = [
        _row("quantised", generator, result.identity),
        _row("quantised + Q-Sched", generator, result.candidate),
    ]
    if (there := result.on_reference) is None:
        return rows
    title = _reference_title(full)
    return [_row(title, full, there.identity), *rows, _row(f"{title} + Q-Sched", full, there.candidate)]


def _reference_title(full: HostGenerator) -> str:
    quantization = label_of(full.model.model.diffusion_model)
    return "full precision" if quantization == "none" else f"reference {quantization}"


def _reseed(reference: ReferencePictures, result: Result, n_prompts: int) -> list[str]:
    """The distance to the reference's pictures beside what a person gets who only turns the seed."""
    floor = reference.reseed_distance(result.identity.indices, n_prompts)
    if floor != floor:
        return []
    before, after = (row.mean(DISTANCE) for row in (result.identity, result.candidate))
    return [f"From the reference's pictures: {before:.4f}, with Q-Sched {after:.4f}; from noise to noise {floor:.4f}."]


def _line(progress: Progress) -> str:
    if progress.phase == REFERENCE_PHASE:
        return "the reference's pictures"
    gain = progress.best_jaq - progress.identity_jaq
    return f"{progress.phase}: best JAQ so far {gain:+.4f}" if gain == gain else progress.phase


def _paired(result: Result, prompts) -> Image.Image:
    return paired_plot(result.identity, result.candidate, len(prompts.texts), prompts.texts)


def _row(name: str, generator: HostGenerator, evaluation) -> Row:
    size = module_bytes(generator.model.model.diffusion_model)
    return Row(name, evaluation, size, generator.seconds_per_picture)


def _event(progress: Progress) -> dict:
    """What a live plot needs, in plain JSON values."""
    best, trial = progress.best, progress.trial
    return {
        "study": STUDY_TITLE,
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
