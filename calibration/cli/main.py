"""Calibrate a diffusers pipeline from the command line, in one process or in many on one study.

  python -m calibration run models/lcm --prompts prompts.txt --metric models/clip --steps 4 --output mine.safetensors
  python -m calibration show mine.study.jsonl

The same `run` once more goes on where it was stopped, and only reads when all is done. Started several times, on one
machine or on many with a database as --study, the processes share the work.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

# From a checkout alone, as the pipelines.
from qsched_core import Preset, QSchedError, quantize, save_preset
from qsched_core.quant import FORMATS

from .. import report
from ..core import Coefficients
from ..indices import prompt_of
from ..metrics.base import Pair, too_long
from ..metrics.pixels import pixel_statistics
from ..metrics.reference import DISTANCE
from ..pipelines import PipelineGenerator, check_reference, network, take_turns
from ..progress import Progress
from ..prompt_syntax import plain_text
from ..prompts import Prompts
from ..record import study_record, unfinished_record
from ..reference_pictures import ReferencePictures, guard_of
from ..result import Result
from ..search.storage import STUDY, close_storage, open_storage, open_study, storage_errors
from ..settings import Settings
from ..split import split
from ..study import calibrate
from .arguments import add_run_arguments
from .console import Watch, result_table
from .inputs import (
    FULL_MODEL,
    NO_MODEL,
    check_output,
    generator_of,
    load_metric,
    load_pipeline,
    read_prompts,
    reference_name,
    settings_of,
    study_inputs,
    study_key,
)
from .show import INPUTS_KEY, show_study

EXIT_ACCEPTED, EXIT_BAD_INPUT, EXIT_REFUSED, EXIT_CANCELLED = 0, 2, 3, 130
"""As EXIT_CODES explains them; 2 is argparse's own, 130 a shell's for Ctrl-C."""

EXIT_CODES = """exit codes:
  0    accepted: the preset holds the coefficients that were found (a repair; with --accept re-tuning that too)
  2    bad input; a line says what is wrong and how to fix it
  3    not accepted: the preset is the identity, which changes nothing
  130  stopped with Ctrl-C or SIGTERM: the best so far is in the preset, marked "not validated"
"""

SCORE_BATCH = 16
"""Pictures that are scored at once."""

GALLERY_PROMPTS = 6
"""Held-out prompts in the before/after picture."""


def run(args: argparse.Namespace) -> int:
    """search coefficients for a pipeline on your prompts, judge them on others, and write a preset"""
    settings = settings_of(args).resolved(reference_name(args) != NO_MODEL)
    check_output(args.output)
    prompts = read_prompts(args.prompts, args.verdict_prompts, args.seed)
    metric, pair = load_metric(args.metric, args.metrics)
    pair.to(args.device)
    if long_count := too_long(pair, [plain_text(prompt) for prompt in prompts.texts]):
        print(f"{long_count} of {len(prompts)} prompts are longer than the metric reads: it scores their beginnings.")
    pipe = load_pipeline(args.model, args.device, args.scheduler)
    inputs = study_inputs(args, settings, prompts, metric, pipe)
    if args.format != NO_MODEL:
        print(quantize(network(pipe), args.format, device=torch.device(args.device)).text(), flush=True)
    generate = generator_of(pipe.to(args.device), prompts, args)
    right = _reference_pictures(args, prompts, settings, generate)
    score, judge = scoring(pair, prompts.texts, right)
    study = args.study or str(args.output.with_suffix(".study.jsonl"))
    name = f"{STUDY} {study_key({**inputs, 'settings': settings.lasting()})}"
    _enter(study, name, inputs)
    where = "the database" if "://" in study else study
    print(f"{name} in {where}: {len(prompts)} prompts. {prompts.note}".strip(), flush=True)
    watch = Watch()
    try:
        result = calibrate(
            generate,
            score,
            len(prompts),
            generate.steps,
            settings,
            judge=judge,
            reference=right and right.generate,
            guard=guard_of(right, stay_near=args.stay_near),
            journal=study,
            name=name,
            verdict_prompts=prompts.verdict,
            on_progress=watch,
        )
    except KeyboardInterrupt:
        _keep_best(watch.last, generate, inputs, args.output)
        raise
    lines = report.verdict(result)
    print("\n" + "\n".join([*result_table(result), "", *lines, *report.remarks(result)]))
    preset = Preset(
        result.recommended,
        generate.sigmas,
        generate.binding,
        report.preset_verdict(result),
        _record(inputs, result, settings, lines),
    )
    save_preset(preset, args.output)
    print(f"Wrote {args.output} ({preset.verdict}).")
    if args.plots:
        _draw(args.plots, generate, result, settings, prompts)
    return EXIT_ACCEPTED if result.accepted else EXIT_REFUSED


def show(args: argparse.Namespace) -> int:
    """list what is in a journal or a database: trials, the best, lost ones, and who works on it"""
    print(show_study(args.study))
    return EXIT_ACCEPTED


def parser() -> argparse.ArgumentParser:
    common = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": EXIT_CODES}
    top = argparse.ArgumentParser(prog="python -m calibration", description=__doc__, **common)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    subparsers = {}
    for command in (run, show):
        subparsers[command] = commands.add_parser(
            command.__name__, help=command.__doc__, description=command.__doc__, **common
        )
        subparsers[command].set_defaults(run=command)
    subparsers[show].add_argument("study", metavar="STUDY", help="a journal's path, or a database's URL")
    add_run_arguments(subparsers[run])
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except QSchedError as error:
        print(f"\n{error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return EXIT_CANCELLED


def scoring(
    pair: Pair, prompts: Sequence[str], reference: ReferencePictures | None = None
) -> tuple[Callable, Callable]:
    """(score, judge) as ``calibrate`` calls them; pixel statistics and the distance to the reference's pictures are for
    the verdict alone."""

    plain = [plain_text(prompt) for prompt in prompts]

    def score(pictures: torch.Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        texts = [plain[prompt_of(i, len(plain))] for i in indices]
        parts = [
            pair.score(pictures[i : i + SCORE_BATCH], texts[i : i + SCORE_BATCH])
            for i in range(0, len(texts), SCORE_BATCH)
        ]
        return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}

    def judge(pictures: torch.Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        statistics = {name: values.double().numpy() for name, values in pixel_statistics(pictures).items()}
        return statistics if reference is None else {**statistics, DISTANCE: reference.distance(pictures, indices)}

    return score, judge


def _reference_pictures(
    args: argparse.Namespace, prompts: Prompts, settings: Settings, generate: PipelineGenerator
) -> ReferencePictures | None:
    reference = reference_name(args)
    if reference == NO_MODEL:
        return None
    here = reference == FULL_MODEL or reference in FORMATS
    pipe = load_pipeline(args.model if here else Path(reference), args.device, args.scheduler)
    if reference in FORMATS:
        quantize(network(pipe), reference, device=torch.device(args.device))
    other_generator = generator_of(pipe.to(args.device), prompts, args)
    check_reference(generate, other_generator)
    take_turns(args.device, generate, other_generator)
    parts = split(len(prompts), settings, prompts.verdict)
    return ReferencePictures(other_generator, [*parts.held_out, *parts.search], generate.steps)


def _enter(study: str, name: str, inputs: dict) -> None:
    """Puts beside the trials what they are about, for people."""
    with storage_errors(study):
        storage = open_storage(study)
        try:
            entry = open_study(storage, name)
            if INPUTS_KEY not in entry.user_attrs:  # a finished study may lie on a disk that is only read
                entry.set_user_attr(INPUTS_KEY, json.dumps(inputs))
        finally:
            close_storage(storage, study)


def _record(inputs: dict, result: Result, settings: Settings, lines: list[str]) -> dict:
    """What every preset says of its study, and what this one was started with."""
    about = {"metric": inputs["metric"], "n_prompts": inputs["prompts"], "digest": inputs["prompts sha256"]}
    return {**inputs, **study_record(result, settings, **about, lines=lines)}


def _keep_best(last: Progress | None, generate: PipelineGenerator, inputs: dict, output: Path) -> None:
    if last is None:
        return
    record = inputs | unfinished_record(last.best_jaq, last.identity_jaq)
    save_preset(Preset(last.best, generate.sigmas, generate.binding, "not validated", record), output)
    print(f"\nWrote the best so far to {output} (not validated). The same command goes on from here.", file=sys.stderr)


def _draw(folder: Path, generate: PipelineGenerator, result: Result, settings: Settings, prompts: Prompts) -> None:
    from PIL import Image

    from ..plots.curves import curves
    from ..plots.paired_gains import paired_plot
    from ..plots.search_map import jaq_map
    from ..search.space import Space

    indices = result.identity.indices[:GALLERY_PROMPTS]
    rows = [generate(c, indices) for c in (Coefficients.identity(generate.steps), result.coefficients)]
    sheet = torch.cat([torch.cat(list(row), dim=1) for row in rows]).nan_to_num().clamp(0, 1)
    images = {
        "before and after": Image.fromarray((sheet * 255).round().byte().numpy()),
        "map": jaq_map(result.finished, Space(settings, generate.steps), result.coefficients),
        "pairs": paired_plot(
            result.identity, result.candidate, len(prompts), prompts.texts, confidence=settings.confidence
        ),
        "curves": curves(result.coefficients, generate.sigmas),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    print(f"Drew {', '.join(images)} in {folder} (above: without, below: with Q-Sched).")
