"""Calibrate a diffusers pipeline from the command line, in one process or in many on one study.

  python -m calibration run models/lcm --prompts prompts.txt --metric models/clip --steps 4 --output mine.safetensors
  python -m calibration show mine.study.jsonl

The same `run` once more goes on where it was stopped, and only reads when all is done. Started several times, on one
machine or on many with a database as --study, the processes share the work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

# From a checkout alone, as the pipelines.
from qsched_core import Preset, QSchedError, quantize, save_preset
from qsched_core.quant import FORMATS

from .. import report
from ..core import CalibrationError, Coefficients, DependencyError
from ..indices import prompt_of
from ..metrics.base import IQ, TC, Pair, too_long
from ..metrics.catalog import catalog
from ..metrics.clip import ClipScorer
from ..metrics.pixels import pixel_statistics
from ..metrics.reference import DISTANCE
from ..pipelines import PipelineGenerator, check_reference, fingerprint, network, take_turns
from ..prompt_files import MAX_FILE_BYTES, parse_file, parse_sets
from ..prompt_syntax import plain_text
from ..prompts import Prompts, select
from ..record import study_record, unfinished_record
from ..reference_pictures import ReferencePictures, guard_of
from ..search.storage import STUDY, close_storage, open_storage, open_study, storage_errors
from ..settings import Settings
from ..split import split
from ..study import Progress, Result, calibrate
from .arguments import add_run_arguments
from .show import INPUTS_KEY, show_study

EXIT_ACCEPTED, EXIT_BAD_INPUT, EXIT_REFUSED, EXIT_CANCELLED = 0, 2, 3, 130

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

SUFFIX = ".safetensors"

EIGHT_BITS = [name for name in FORMATS if name.startswith("w8")]
"""As good as floats where pictures are compared, at half their size."""

NO_MODEL, FULL_MODEL = "none", "full"
"""Of --format and --reference: as it is; of --reference: the pipeline before it was quantised."""


def run(args: argparse.Namespace) -> int:
    """search coefficients for a pipeline on your prompts, judge them on others, and write a preset"""
    settings = _settings(args).resolved(reference_name(args) != NO_MODEL)
    _check_output(args.output)
    prompts = _prompts(args.prompts, args.verdict_prompts, args.seed)
    metric, pair = load_metric(args.metric, args.metrics)
    pair.to(args.device)
    if long_count := too_long(pair, [plain_text(prompt) for prompt in prompts.texts]):
        print(f"{long_count} of {len(prompts)} prompts are longer than the metric reads: it scores their beginnings.")
    pipe = load_pipeline(args.model, args.device, args.scheduler)
    inputs = _inputs(args, settings, prompts, metric, pipe)
    if args.format != NO_MODEL:
        print(quantize(network(pipe), args.format, device=torch.device(args.device)).text(), flush=True)
    generate = _generator(pipe.to(args.device), prompts, args)
    right = _reference_pictures(args, prompts, settings, generate)
    score, judge = scoring(pair, prompts.texts, right)
    study = args.study or str(args.output.with_suffix(".study.jsonl"))
    name = f"{STUDY} {_key({**inputs, 'settings': settings.lasting()})}"
    _enter(study, name, inputs)
    where = "the database" if "://" in study else study
    print(f"{name} in {where}: {len(prompts)} prompts. {prompts.note}".strip(), flush=True)
    watch = _Watch()
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
    print("\n" + "\n".join([*_table(result), "", *lines, *report.remarks(result)]))
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


# --- what is read


def load_pipeline(folder: Path, device: str, scheduler: str = "") -> Any:
    """The diffusers pipeline in a local folder, still on the CPU; nothing is downloaded, and no code in it is run.

    Half precision for a GPU. ``scheduler`` is the class of another scheduler, made from the pipeline's own.

    Raises:
        DependencyError: diffusers is not installed.
        CalibrationError: not such a folder, or no such scheduler.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise CalibrationError(f"{folder.name!r} is no diffusers pipeline.", "give a folder with a model_index.json")
    try:
        import diffusers
    except ImportError as error:
        raise DependencyError("pipelines need the package diffusers.", "pip install diffusers transformers") from error
    # As these families were trained.
    half = torch.bfloat16 if '"transformer"' in index.read_text("utf-8") else torch.float16
    dtype = {} if device == "cpu" else {"torch_dtype": half}
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True, **dtype)
    except (OSError, ValueError, AttributeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CalibrationError(f"the pipeline in {folder.name!r} cannot be loaded.", reason) from error
    if scheduler:
        kind = getattr(diffusers, scheduler, None)
        if not hasattr(kind, "set_timesteps"):
            raise CalibrationError(f"diffusers has no scheduler {scheduler!r}.", "for example EulerDiscreteScheduler")
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_metric(metric: str, folder: Path) -> tuple[str, Pair]:
    """(name, metrics): of an open_clip model's folder CLIPScore and CLIP-IQA, of "NAME + NAME" two from ``folder``.

    Raises:
        CalibrationError: neither, or not one metric of compatibility and one of quality.
    """
    if Path(metric).is_dir():
        return Path(metric).name, ClipScorer(Path(metric))
    entries = catalog([folder])
    choices = [entries.get(name.strip()) for name in metric.split(" + ")]
    by_role = {entry.metric.role: entry for entry in choices if entry}
    if None in choices or len(choices) != 2 or set(by_role) != {TC, IQ}:
        names = {role: [name for name, entry in entries.items() if entry.metric.role == role] for role in (TC, IQ)}
        raise CalibrationError(
            f"{metric[:40]!r} is no metric.",
            f"give an open_clip model's folder, or two names: one of {names[TC]}, one of {names[IQ]}",
        )
    return metric, Pair(by_role[TC].load(), by_role[IQ].load())


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


def reference_name(args: argparse.Namespace) -> str:
    """What --reference says: NO_MODEL, FULL_MODEL, one of EIGHT_BITS or a folder.

    Raises:
        CalibrationError: nothing of these, or what is searched itself.
    """
    reference = args.reference or (NO_MODEL if args.format == NO_MODEL else EIGHT_BITS[0])
    if reference in FORMATS and reference not in EIGHT_BITS:
        raise CalibrationError(
            f"reference {reference} has fewer than 8 bits.", f"use one of {', '.join(EIGHT_BITS)}, or {FULL_MODEL}"
        )
    if reference not in (NO_MODEL, FULL_MODEL, *FORMATS) and not Path(reference).is_dir():
        names = ", ".join(EIGHT_BITS)
        raise CalibrationError(
            f"reference {reference[:40]!r} is unknown.", f"give a folder, {FULL_MODEL}, {NO_MODEL}, {names}"
        )
    if reference == (FULL_MODEL if args.format == NO_MODEL else args.format):
        raise CalibrationError("the reference is the model itself.", f"use --reference {FULL_MODEL}, or {NO_MODEL}")
    return reference


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
    other_generator = _generator(pipe.to(args.device), prompts, args)
    check_reference(generate, other_generator)
    take_turns(args.device, generate, other_generator)
    parts = split(len(prompts), settings, prompts.verdict)
    return ReferencePictures(other_generator, [*parts.held_out, *parts.search], generate.steps)


def _generator(pipe: Any, prompts: Prompts, args: argparse.Namespace) -> PipelineGenerator:
    try:
        return PipelineGenerator(
            pipe,
            prompts.texts,
            steps=args.steps,
            guidance_scale=args.guidance,
            seed=args.seed,
            size=args.size,
            batch_size=args.batch,
            negative=args.negative,
        )
    except QSchedError:
        raise
    except ValueError as error:  # such as a size that is no multiple of 8
        raise CalibrationError("the pipeline refuses these settings.", str(error)) from error


def _prompts(first: Path, second: Path | None, seed: int) -> Prompts:
    search = parse_sets(first.name, _content(first))
    if second is None:
        return select(search.texts, search.verdict, seed, [search.note])
    verdict = parse_file(second.name, _content(second))
    return select(search.texts, verdict.texts, seed, [search.note, verdict.note])


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CalibrationError(f"cannot read {path.name}: {error.strerror}.", "check the path") from error


def _check_output(path: Path) -> None:
    """Before hours are spent."""
    if path.suffix != SUFFIX or path.is_dir():
        raise CalibrationError(f"{path.name!r} is no name for a preset.", f"end it in {SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CalibrationError(f"cannot write to {path.parent}: {error.strerror}.", "choose another folder") from error


# --- what the study is about


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(**{item.name: getattr(args, item.name) for item in fields(Settings) if hasattr(args, item.name)})


def _inputs(args: argparse.Namespace, settings: Settings, prompts: Prompts, metric: str, pipe: Any) -> dict:
    """All that decides the figures: processes with the same share a study, wherever their files lie."""
    return {
        "model": args.model.resolve().name,
        "pipeline": type(pipe).__name__,
        "weights": fingerprint(pipe),
        "format": args.format,
        "reference": [Path(reference_name(args)).name, "guarded", args.stay_near],
        "scheduler": [type(pipe.scheduler).__name__, _digest(pipe.scheduler.config)],
        "steps": args.steps,
        "guidance": args.guidance,
        "size": args.size,
        "negative": args.negative,
        "metric": metric,
        "prompts": len(prompts),
        "prompts sha256": prompts.digest,
        "settings": asdict(settings),
    }


def _key(inputs: dict) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def _digest(config: Any) -> str:
    return hashlib.sha256(json.dumps(dict(config), sort_keys=True, default=str).encode()).hexdigest()[:16]


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


# --- what is told


@dataclass
class _Watch:
    """Prints a line per trial; what it was told last is kept for a stop."""

    last: Progress | None = None
    phase: str = ""
    start_time: float = 0.0
    before: int = 0

    def __call__(self, progress: Progress) -> None:
        if self.last is None:
            self.start_time, self.before = time.monotonic(), progress.done
        worth_a_line = progress.trial is not None or progress.phase != self.phase or progress.phase == "verdict"
        self.last, self.phase = progress, progress.phase
        if worth_a_line:
            gain = progress.best_jaq - progress.identity_jaq
            print(
                f"{progress.phase}: {progress.done} of about {progress.total} pictures, "
                f"best JAQ {progress.best_jaq:.4f} ({gain:+.4f}), {self._left(progress)}",
                flush=True,
            )

    def _left(self, progress: Progress) -> str:
        count = progress.done - self.before
        if count <= 0:
            return "time left unknown"
        seconds = (time.monotonic() - self.start_time) / count * max(0, progress.total - progress.done)
        minutes, seconds = divmod(round(seconds), 60)
        return f"about {minutes} min {seconds:02d} s left"


def _table(result: Result) -> list[str]:
    rows = [report.Row("without", result.identity), report.Row("with Q-Sched", result.candidate)]
    if (there := result.on_reference) is not None:
        rows = [
            report.Row("reference", there.identity), *rows, report.Row("reference with Q-Sched", there.candidate)
        ]  # fmt: skip
    table = report.table(rows)
    lines = [["", *table["columns"]]]
    lines += [[row["name"], *(_number(row[column]) for column in table["columns"])] for row in table["rows"]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


# --- what is kept


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

    from ..plots.search_map import curves, jaq_map, paired_plot
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
