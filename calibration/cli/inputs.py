"""What a command is about, read and checked before hours are spent."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

# From a checkout alone, as the pipelines.
from qsched_core import QSchedError
from qsched_core.quant import FORMATS

from ..core import CalibrationError, DependencyError
from ..metrics.base import IQ, TC, Pair
from ..metrics.catalog import catalog
from ..metrics.clip import ClipScorer
from ..pipelines import PipelineGenerator, fingerprint
from ..prompt_files import MAX_FILE_BYTES, parse_file, parse_sets
from ..prompts import Prompts, select
from ..settings import Settings

SUFFIX = ".safetensors"

EIGHT_BITS = [name for name in FORMATS if name.startswith("w8")]
"""As good as floats where pictures are compared, at half their size."""

NO_MODEL, FULL_MODEL = "none", "full"
"""Of --format and --reference: as it is; of --reference: the pipeline before it was quantised."""


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
    if metric.strip() and Path(metric).is_dir():
        return Path(metric).resolve().name, ClipScorer(Path(metric))
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


def generator_of(pipe: Any, prompts: Prompts, args: argparse.Namespace) -> PipelineGenerator:
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


def read_prompts(first: Path, second: Path | None, seed: int) -> Prompts:
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


def check_output(path: Path) -> None:
    """Before hours are spent."""
    if path.suffix != SUFFIX or path.is_dir():
        raise CalibrationError(f"{path.name!r} is no name for a preset.", f"end it in {SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CalibrationError(f"cannot write to {path.parent}: {error.strerror}.", "choose another folder") from error


def settings_of(args: argparse.Namespace) -> Settings:
    return Settings(**{item.name: getattr(args, item.name) for item in fields(Settings) if hasattr(args, item.name)})


def study_inputs(args: argparse.Namespace, settings: Settings, prompts: Prompts, metric: str, pipe: Any) -> dict:
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


def study_key(inputs: dict) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def _digest(config: Any) -> str:
    return hashlib.sha256(json.dumps(dict(config), sort_keys=True, default=str).encode()).hexdigest()[:16]
