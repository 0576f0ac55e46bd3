"""The command line of `python -m calibration run`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..choices import ACCEPT, AUTOMATIC, SPACES, STRATEGIES
from ..settings import Settings


def add_run_arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="a diffusers pipeline (with model_index.json)")
    _add_needs(to.add_argument_group("what it needs"))
    _add_pictures(to.add_argument_group("pictures"))
    _add_search(to.add_argument_group("search"), Settings())
    _add_verdict(to.add_argument_group("verdict"), Settings())
    _add_files(to.add_argument_group("files"))


def _add_needs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompts", type=Path, required=True, metavar="FILE", help=".txt, .csv, .tsv, .yaml or .json")
    group.add_argument(
        "--metric",
        required=True,
        metavar="FOLDER|NAMES",
        help='an open_clip model\'s folder (CLIPScore + CLIP-IQA), or "NAME + NAME" from --metrics',
    )
    group.add_argument(
        "--steps", type=_count, metavar="N", required=True, help="sampling steps; the preset is for this number"
    )
    group.add_argument("--output", type=Path, required=True, metavar="PRESET.safetensors", help="is overwritten")


def _add_pictures(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", default="w4a8", help='how the network is quantised, or "none" (%(default)s)')
    group.add_argument("--guidance", type=float, default=1.0, help="guidance scale (%(default)s)")
    group.add_argument("--negative", default="", metavar="TEXT", help="negative prompt")
    group.add_argument("--scheduler", default="", metavar="CLASS", help="of diffusers, in place of the pipeline's own")
    group.add_argument("--size", type=_size, metavar="WxH", help="pixels (the pipeline's own)")
    group.add_argument(
        "--batch", type=_count, default=4, help="pictures at once; less where memory is short (%(default)s)"
    )
    group.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    group.add_argument(
        "--reference",
        metavar="FORMAT|full|none|FOLDER",
        help="the model whose pictures are right: this pipeline in another format, unquantised, or another pipeline"
        " (w8a8; none where --format is none)",
    )


def _add_search(group: argparse._ArgumentGroup, default: Settings) -> None:
    group.add_argument("--trials", type=int, default=default.trials, help="candidates to try (%(default)s)")
    group.add_argument("--minutes", type=float, default=default.minutes, help="ends the search earlier; 0: no limit")
    group.add_argument("--pictures", type=int, default=default.pictures, help="ends the search earlier; 0: no limit")
    group.add_argument("--space", choices=(AUTOMATIC, *SPACES), default=default.space, help="of numbers (%(default)s)")
    group.add_argument("--strategy", choices=STRATEGIES, default=default.strategy, help="(%(default)s)")
    group.add_argument(
        "--radius",
        type=float,
        default=default.radius,
        help="half-width of the region around 1; 0: automatic (%(default)s)",
    )
    group.add_argument("--grid", type=int, default=default.grid, help="points per axis of a grid (%(default)s)")
    group.add_argument("--seed", type=int, default=default.seed, help="of the search and of all noise (%(default)s)")
    group.add_argument("--k", type=float, default=default.k, help="JAQ = TC + k IQ (%(default)s)")
    group.add_argument("--normalised", action="store_true", help="TC and IQ in units of their own noise")
    group.add_argument(
        "--no-race", dest="race", action="store_false", help="try every candidate on all prompts, however bad it looks"
    )
    group.add_argument(
        "--free", dest="stay_near", action="store_false", help="do not hold the search near the reference's pictures"
    )


def _add_verdict(group: argparse._ArgumentGroup, default: Settings) -> None:
    group.add_argument("--accept", choices=ACCEPT, default=default.accept, help="as the result (%(default)s)")
    group.add_argument("--verdict-prompts", type=Path, metavar="FILE", help="a second set, which the search never sees")
    group.add_argument(
        "--holdout",
        type=float,
        default=default.holdout,
        help="else a share of the first; 0: automatic (%(default)s)",
    )
    group.add_argument(
        "--noises",
        type=int,
        default=default.seeds,
        dest="seeds",
        metavar="N",
        help="per prompt of the verdict; 0: automatic (%(default)s)",
    )
    group.add_argument("--confidence", type=float, default=default.confidence, help="of the interval (%(default)s)")


def _add_files(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--study",
        metavar="PATH|URL",
        help="a journal file, or a database for several machines: postgresql+psycopg://user:password@host/name"
        " (a .study.jsonl beside the preset)",
    )
    group.add_argument(
        "--metrics", type=Path, default=Path("models/qsched_metrics"), metavar="FOLDER", help="of metrics (%(default)s)"
    )
    group.add_argument("--plots", type=Path, metavar="FOLDER", help="draw before/after, map, pairs and curves")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(width), int(height)
