"""A study of the steps in a graph: the MODELs as options, its file, and what a person is told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from ...calibration.frames import stills
from ...calibration.metrics.reference import DISTANCE
from ...calibration.prompts import Prompts, read_prompts
from ...calibration.settings import Settings
from ...calibration.split import split
from ...calibration.step_plan import StepOption
from ...calibration.step_rows import StepRows
from ...calibration.step_study import Plan, StepResult, StepStudy, squared
from ...qsched_core import Coefficients, Precision
from ...qsched_core.precision import read_steps, step_text
from ...qsched_core.quant import bit_cost
from ..host.folders import journal_path
from ..host.model_info import describe, sums
from ..host.progress import NodeProgress
from ..host.random_prompts import random_texts
from ..sampling.model_library import with_library
from .generator import HostGenerator
from .run import weights_of

RANDOM_PROMPTS = 12
"""Of words at random where no prompts are given: as many as a calibration asks for."""


def prompts_of(text: str, clip, seed: int) -> tuple[Prompts, bool]:
    """(The prompts, whether they can be scored): without any, words at random, whose pictures are compared.

    Raises:
        QuantizationError: no prompts, and a text encoder whose vocabulary cannot be read.
    """
    if text.strip():
        return read_prompts(text), True
    return read_prompts("\n".join(random_texts(clip, RANDOM_PROMPTS, seed))), False


def options_of(models: Sequence, text: str) -> tuple[StepOption, ...]:
    """What a step may get. An empty text: each model as it is, and with 8-bit activations where that changes something.

    Raises:
        QuantizationError: a text that names no such models.
    """
    networks = [model.model.diffusion_model for model in models]
    if text.strip():
        pairs = list(dict.fromkeys(read_steps(text, len(models))))
    else:
        pairs = []
        for number, network in enumerate(networks):
            finer = bit_cost(network, 8) > bit_cost(network)
            pairs += [(number, 4), *([(number, 8)] if finer else [])]
    return tuple(
        StepOption(step_text(number, bits), number, bits, bit_cost(networks[number], bits), models[number].model_size())
        for number, bits in pairs
    )


class StepRun:
    """A study of some MODELs; what it has measured outlives a cancel.

    Raises:
        CalibrationError: too few prompts, or one option alone.
    """

    def __init__(self, unique_id: str | None, generator: HostGenerator, models, options, prompts, scorer, seed: int):
        self.generator, self.models, self.options, self.scorer = generator, models, options, scorer
        self.sigmas = generator.sigmas
        self.parts = split(len(prompts.texts), Settings(seeds=1, seed=seed))
        self._progress = NodeProgress(unique_id)
        score = None if scorer is None else self._score(prompts.texts)
        self.study = StepStudy(
            self._pictures, options, len(self.sigmas) - 1, self.parts, len(prompts.texts), score,
            StepRows(journal_path(self._key(prompts))), seed=seed, on_row=self._tell,
        )  # fmt: skip
        self._count = 0

    def __call__(self, budget: float, cost: str) -> StepResult:
        try:
            return self.study.run(budget, cost)
        finally:
            if self.scorer is not None:
                self.scorer.release()

    def precision(self, plan: Plan) -> Precision:
        """A plan of the study as the sampling nodes take it."""
        options = [self.options[choice] for choice in plan]
        return Precision(tuple(o.bits for o in options), self.sigmas, tuple(o.model for o in options))

    def model(self, plan: Plan):
        return with_library(self.models, self.precision(plan))

    def pictures_made(self, count: int) -> None:
        """Progress within a row. Every call is a place where a cancel takes effect."""
        self._count += count
        total = max(self._count, self.study.most_pictures())
        self._progress.update(self._count, f"{self._count} of at most {total} pictures", total)

    def _pictures(self, plan: Plan, indices: Sequence[int]):
        return self.generator.with_model(self.model(plan))(Coefficients.identity(len(plan)), indices)

    def _tell(self, done: int, total: int, pictures) -> None:
        self._progress.update(self._count, total=max(self._count, total), picture=stills(pictures)[0])

    def _score(self, texts: Sequence[str]):
        score, judge = self.scorer.bind(texts)
        return lambda pictures, indices: {**score(pictures, indices), **judge(pictures, indices)}

    def _key(self, prompts: Prompts) -> str:
        """sha256 of everything that decides the figures: equal inputs find their rows again."""
        generator, setup = self.generator, self.generator.setup
        shared = [generator.prompts[0], generator.negative, list(generator.vae.first_stage_model.parameters())]
        inputs = [
            "steps",
            [[asdict(describe(m, setup.name, setup.scheduler, setup.cfg)), weights_of(m)] for m in self.models],
            [[option.name, option.cost] for option in self.options],
            [setup.name, setup.scheduler, setup.cfg, setup.sigmas],
            [generator.seed, generator.batch_size, list(generator.latent.shape)],
            [prompts.digest, prompts.texts, list(self.parts.search), list(self.parts.held_out)],
            None if self.scorer is None else [self.scorer.name, self.scorer.note],
            sums(shared),
        ]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def result_text(result: StepResult, run: StepRun) -> str:
    """A study for a person: the plan first, then what it rests on."""
    name = run.precision(result.plan).text()
    lines = [f"{name}: mean cost {result.mean_cost(result.plan):.3f} of the best precision."]
    lines += _verdict(result, run)
    lines += _steps(result, run.scorer is not None)
    lines += [
        f"{run.precision(plan).text()}: mean cost {result.mean_cost(plan):.3f}, distance {squared(row) ** 0.5:.4f}."
        for plan, row in sorted(result.rows.items(), key=lambda item: result.mean_cost(item[0]))
    ]
    factors = [predicted / actual for predicted, actual in result.mixed if actual > 0]
    if factors and result.adds:
        lines.append(f"Steps add up: predicted to measured {min(factors):.2f} to {max(factors):.2f}.")
    elif factors:
        lines.append("Losses of the steps do not add up here: the plan was chosen among those that were measured.")
    lines.append(f"{result.pictures} pictures were made.")
    return "\n".join(lines)


def _steps(result: StepResult, has_scores: bool) -> list[str]:
    """What each step loses; the JAQ lost in brackets."""
    lines = ["Distance when one step alone is coarser:"]
    if has_scores:
        lines = ["Distance when one step alone is coarser, and JAQ lost:"]
    others = [i for i in range(len(result.options)) if i != result.best]
    for step, (distances, losses) in enumerate(zip(result.distances, result.losses, strict=True), start=1):
        values = [
            f"{result.options[i].name} {distances[i] ** 0.5:.4f}{f' ({losses[i]:+.4f})' if has_scores else ''}"
            for i in others
        ]
        lines.append(f"{step}: {', '.join(values)}")
    return lines


def _verdict(result: StepResult, run: StepRun) -> list[str]:
    if result.candidate == result.uniform:
        return ["Nothing that was tried within the budget is better than one precision for all steps."]
    uniform = run.precision(result.uniform).text()
    if not result.gains:
        return ["No single precision fits the budget: the plan has nothing to be compared with."]
    lines = [f"On other prompts and noises, against {uniform}: distance {result.gains[DISTANCE]}."]
    if "jaq" in result.gains:
        lines.append(f"JAQ {result.gains['jaq']}.")
    if not result.accepted:
        candidate = run.precision(result.candidate).text()
        lines.insert(0, f"{candidate} was not clear of noise, or something got worse: one precision is recommended.")
    if result.drift_names:
        lines.append(f"Worse with it: {', '.join(result.drift_names)}.")
    return lines
