"""One calibration in a graph: the study of the quantised model and of its control, resumed, cancelled, judged."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict

from comfy.model_management import InterruptProcessingException

from ...calibration import Result, Settings, calibrate
from ...calibration.prompt_syntax import plain_text
from ...calibration.record import unfinished_record
from ...calibration.reference_pictures import ReferencePictures, guard_of
from ...calibration.search.storage import STUDIES, STUDY
from ...calibration.split import split
from ...qsched_core import CalibrationError, Preset, save_preset
from ..host.folders import PRESETS_FOLDER, journal_path, unused_path
from ..host.model_info import describe, quantization, sums
from ..host.reports import keep_note
from ..sampling.model_library import library_of
from ..sampling.step_precision import precision_on
from .gallery_pictures import GalleryPictures
from .generator import HostGenerator
from .outcome import FinishedStudy, Outcome
from .run_progress import RunProgress
from .scorer import NearScorer, Scorer

NODE_ID = "QSchedCalibrate"

GALLERY_PROMPTS = 6
"""Held-out prompts in the before/after picture and in the page's slider."""


class Run:
    """A study on some prompts, with its journal; the best candidate so far outlives a cancel.

    Raises:
        CalibrationError: prompts or settings that make no study.
    """

    def __init__(
        self, unique_id: str | None, prompts, settings: Settings, scorer: Scorer | NearScorer, reference: bool
    ):
        self.unique_id, self.prompts, self.scorer = unique_id, prompts, scorer
        self.settings = settings.resolved(reference)
        self.verdict_prompts = getattr(prompts, "verdict", ())
        self.parts = split(len(prompts.texts), settings, self.verdict_prompts)
        if scorer.needs_reference and not reference:
            fix = "plug the model before quantising into reference, or choose another metric"
            raise CalibrationError("this metric compares with a reference, and there is none.", fix)
        if scorer.reads_prompts and not getattr(prompts, "has_texts", True):
            raise CalibrationError(
                "a text-image score needs the prompts' texts.", "plug them in beside the conditionings"
            )
        search, held_out = len(self.parts.search), len(self.parts.held_out)
        most = (settings.trials + 1 + reference) * search + (2 + 2 * reference) * held_out
        self.progress = RunProgress(unique_id, most, self.settings.radius)

    def __call__(self, generator: HostGenerator, full_model, other_model, stay_near: bool) -> Outcome:
        """``other_model``: only shown beside the others, or None.

        Raises InterruptProcessingException when cancelled, after the best candidate so far was saved.
        """
        try:
            full, other = (
                None if model is None else generator.with_model(model) for model in (full_model, other_model)
            )
            places = self.parts.held_out[:GALLERY_PROMPTS]
            own, of_full, of_other = (
                None if each is None else GalleryPictures(each, places) for each in (generator, full, other)
            )
            indices = [*self.parts.held_out, *self.parts.search]
            reference = None if full is None else ReferencePictures(of_full, indices, generator.setup.steps)
            key = self._key(generator, full, stay_near)
            result = self._study(own, key, reference, stay_near)
            finished = FinishedStudy(
                result, self.settings, self.prompts, self.scorer, own, of_full, of_other, reference
            )  # fmt: skip
            return finished.outcome(_binding(generator))
        except InterruptProcessingException:
            self._keep_best(generator)
            keep_note(self.unique_id, NODE_ID, self.progress.stopped(self.settings.trials))
            raise
        finally:
            self.scorer.release()

    def _study(
        self,
        pictures: GalleryPictures,
        key: str,
        reference: ReferencePictures | None,
        stay_near: bool,
    ) -> Result:
        self.progress.line = "pictures of the reference" if reference is not None else "identity"
        shared = os.environ.get(STUDIES)
        score, judge = self.scorer.bind(self.prompts.texts, reference)
        return calibrate(
            pictures,
            score,
            len(self.prompts.texts),
            pictures.generator.setup.steps,
            self.settings,
            judge=judge,
            reference=None if reference is None else reference.generate,
            guard=guard_of(reference, stay_near=stay_near),
            journal=shared or journal_path(key),
            name=f"{STUDY} {key}" if shared else STUDY,
            verdict_prompts=self.verdict_prompts,
            on_progress=lambda progress: self.progress.show(progress, key),
        )

    def _key(self, generator: HostGenerator, full: HostGenerator | None, stay_near: bool) -> str:
        """sha256 of everything that decides the figures: equal inputs find their journal again."""
        shared = [generator.prompts[0], generator.negative, list(generator.vae.first_stage_model.parameters())]
        setup = generator.setup
        options = sorted(map(str, _options(setup.sampler)))
        inputs = [
            asdict(_binding(generator)),
            self.settings.lasting(),
            [setup.name, setup.scheduler, setup.cfg, type(setup.guider).__name__, options],
            setup.sigmas,
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
            [] if full is None else [asdict(_binding(full)), weights_of(full.model)],
            weights_of(generator.model),
            sums(shared),
            ["guarded", stay_near],
            *([sums(self.scorer.set_pictures)] if self.scorer.set_pictures else []),
            *_plan(generator),
        ]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]

    def _keep_best(self, generator: HostGenerator) -> None:
        best = self.progress.best
        if best is None or not best.finished:
            return
        record = unfinished_record(best.best_jaq, best.identity_jaq)
        plan = precision_on(generator.model, generator.sigmas)
        preset = Preset(best.best, generator.sigmas, _binding(generator), "not validated", record, precision=plan)
        save_preset(preset, unused_path(PRESETS_FOLDER, "cancelled calibration"))


def _binding(generator: HostGenerator):
    setup = generator.setup
    return describe(generator.model, setup.name, setup.scheduler, setup.cfg)


def weights_of(model) -> list:
    """What tells a MODEL from others with the same fingerprint: its size, and the LoRAs on it."""
    patches = sorted((key, [sums(part) for part in parts]) for key, parts in model.patches.items())
    return [model.model_size(), patches]


def _plan(generator: HostGenerator) -> list:
    """The precision of the steps, and the models that they are given to; nothing where the model has no plan."""
    plan = precision_on(generator.model, generator.sigmas)
    others = library_of(generator.model)[1:]
    return [] if plan is None else [plan.text(), [[quantization(model), weights_of(model)] for model in others]]


def _options(sampler) -> list:
    return [*getattr(sampler, "extra_options", {}).items(), *getattr(sampler, "inpaint_options", {}).items()]
