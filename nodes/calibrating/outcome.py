"""What a finished calibration hands on: preset, verdict in words, table and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...calibration import Result, Settings
from ...calibration.indices import prompt_of
from ...calibration.metrics.reference import DISTANCE
from ...calibration.plots.paired_gains import paired_plot
from ...calibration.plots.search_map import jaq_map
from ...calibration.record import study_record
from ...calibration.reference_pictures import ReferencePictures
from ...calibration.report import Row, preset_verdict, remarks, table, verdict
from ...calibration.search.space import Space
from ...calibration.validate import RETUNING, newly_broken
from ...qsched_core import Coefficients, Preset
from ...qsched_core.quant import UNQUANTIZED, module_bytes
from ..host.model_info import fitted_format, quantization
from ..sampling.step_precision import precision_on
from .gallery import gallery, picture_tensor
from .gallery_pictures import GalleryPictures
from .generator import HostGenerator
from .run_progress import trace
from .scorer import Scorer

FULL, QUANTIZED, REPAIRED, FITTED = "full precision", "quantised", "quantised + Q-Sched", "quantised, fitted"
"""Names of rows; ``web/calibration/slider.js`` translates them."""


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


@dataclass(frozen=True)
class FinishedStudy:
    """A study's result, and the models and prompts that it is of. ``full_pictures`` and ``reference`` are None without
    a reference model, ``other_pictures`` without one more to show."""

    result: Result
    settings: Settings
    prompts: object
    scorer: Scorer
    pictures: GalleryPictures
    full_pictures: GalleryPictures | None
    other_pictures: GalleryPictures | None
    reference: ReferencePictures | None

    @property
    def generator(self) -> HostGenerator:
        return self.pictures.generator

    @property
    def full(self) -> HostGenerator | None:
        return None if self.full_pictures is None else self.full_pictures.generator

    def outcome(self, binding) -> Outcome:
        """``binding``: what the preset is made for."""
        result, texts = self.result, self.prompts.texts
        lines = self._lines()
        record = study_record(
            result,
            self.settings,
            metric=self.scorer.name,
            n_prompts=len(texts),
            digest=self.prompts.digest,
            lines=lines,
        )
        sigmas, model = self.generator.sigmas, self.generator.model
        preset = Preset(
            result.recommended, sigmas, binding, preset_verdict(result), record, precision=precision_on(model, sigmas)
        )
        sentences = [*lines, *remarks(result)]
        space = Space(self.settings, self.generator.setup.steps)
        rows = self._picture_rows()
        pictures = (
            gallery(rows),
            picture_tensor(jaq_map(result.finished, space, result.coefficients)),
            picture_tensor(paired_plot(result.identity, result.candidate, len(texts), texts)),
        )
        row_texts = tuple(texts[prompt_of(index, len(texts))] for index in self.pictures.indices)
        report = self._report(sentences, record)
        return Outcome(preset, "\n".join(sentences), *pictures, report, rows, row_texts)

    def _lines(self) -> list[str]:
        """The verdict, and what has to be known to read it."""
        lines = verdict(self.result)
        if self.reference is not None:
            lines += self._reseed()
        lines += [
            f"{what}: {note}." for what, note in (("Prompts", self.prompts.note), ("Metric", self.scorer.note)) if note
        ]
        return [*lines, *self.scorer.reading(self.prompts.texts), *filter(None, [self.generator.note])]

    def _reseed(self) -> list[str]:
        """The distance to the reference's pictures beside what a person gets who only turns the seed."""
        floor = self.reference.reseed_distance(self.result.identity.indices, len(self.prompts.texts))
        if floor != floor:
            return []
        before, after = (row.mean(DISTANCE) for row in (self.result.identity, self.result.candidate))
        return [
            f"From the reference's pictures: {before:.4f}, with Q-Sched {after:.4f}; from noise to noise {floor:.4f}."
        ]

    def _report(self, sentences: Sequence[str], record: dict) -> dict:
        """For the page, as JSON values."""
        result = self.result
        return {
            "table": table(self._rows()),
            "verdict": list(sentences),
            "answer": result.answer,
            "accepted": result.accepted,
            "why not": _why_not(result),
            "held_out": {"prompts": result.gain.prompts, "noises": len(result.identity.indices) // result.gain.prompts},
            "drifts": list(result.drifts),
            "coefficients": record["candidate"],
            "sigmas": self.generator.sigmas,
            "radius": self.settings.radius,
            "gains": record["gains"],
            "network evaluations": result.nfe,
            "trace": trace(result.finished),
        }

    def _rows(self) -> list[Row]:
        """The table: the quantised model without and with the coefficients, the reference around it."""
        rows = [
            _row(QUANTIZED, self.generator, self.result.identity),
            _row(REPAIRED, self.generator, self.result.candidate),
        ]
        if (there := self.result.on_reference) is None:
            return rows
        title = _reference_title(self.full)
        return [
            _row(title, self.full, there.identity),
            *rows,
            _row(f"{title} + Q-Sched", self.full, there.candidate),
        ]

    def _picture_rows(self) -> tuple[tuple[str, torch.Tensor], ...]:
        identity = Coefficients.identity(self.generator.setup.steps)
        rows = [
            (QUANTIZED, self.pictures.row(identity)),
            (REPAIRED, self.pictures.row(self.result.coefficients)),
        ]
        if self.full is not None:
            rows.insert(0, (_reference_title(self.full), self.full_pictures.row(identity)))
        if self.other_pictures is not None:
            title = _other_title(self.generator.model, self.other_pictures.generator.model)
            rows.append((title, self.other_pictures.row(identity)))
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


def _row(name: str, generator: HostGenerator, evaluation) -> Row:
    size = module_bytes(generator.model.model.diffusion_model)
    return Row(name, evaluation, size, generator.seconds_per_picture)


def _reference_title(full: HostGenerator) -> str:
    label = quantization(full.model)
    return FULL if label == UNQUANTIZED else f"reference {label}"


def _other_title(model, other) -> str:
    """What tells it from the calibrated ``model``: its rounding where that is all, else what it is."""
    if fitted := fitted_format(other):
        return FITTED if fitted == quantization(model) else f"other model: {fitted}, fitted"
    label = quantization(other)
    return f"other model: {FULL if label == UNQUANTIZED else label}"
