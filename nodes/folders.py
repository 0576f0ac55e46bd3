"""Where presets and quantised models live, and names that cannot leave those folders."""

from __future__ import annotations

import os
import re
from pathlib import Path

import folder_paths

from ..qsched_core import PresetError

FOLDER = "qsched_presets"
METRICS_FOLDER = "qsched_metrics"
MODELS_FOLDER = "qsched_models"
"""Not ``diffusion_models``: stock loaders cannot read packed convolutions and should not list them."""
STOCK_FOLDER = "diffusion_models"
SHIPPED = Path(__file__).parents[1] / "presets"
"""Presets that come with the pack. Nothing is ever written there."""
SUFFIX = ".safetensors"
FORBIDDEN = r"\\/:*?\"<>|\x00-\x1f"
"""In a file's name, on one system or another; as within the brackets of an expression."""
_NAME = re.compile(f"[^{FORBIDDEN}]{{1,120}}")
_NAME_BYTES = 200
"""File systems take 255, and a number and the suffix have to fit behind."""


def register_folders() -> None:
    """Adds our folders to the host's model folders; the user's extra_model_paths.yaml is honoured."""
    for name in (FOLDER, METRICS_FOLDER, MODELS_FOLDER):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name), is_default=True)
    folder_paths.add_model_folder_path(FOLDER, str(SHIPPED))
    for name in (FOLDER, MODELS_FOLDER):
        paths, extensions = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, {SUFFIX} | set(extensions))


def metric_roots() -> list[Path]:
    """Where metrics lie, each in a folder of its own."""
    return [Path(root) for root in folder_paths.get_folder_paths(METRICS_FOLDER)]


def metric_folders() -> dict[str, Path]:
    """open_clip models a user has put into ``models/qsched_metrics``, one folder each, by name."""
    found = {}
    for root in metric_roots():
        for config in sorted(root.glob("*/open_clip_config.json")):
            found.setdefault(config.parent.name, config.parent)
    return found


def file_names(folder: str) -> list[str]:
    """What can be loaded from one of our folders, as the host lists it."""
    try:
        return folder_paths.get_filename_list(folder)
    except FileNotFoundError:  # the host remembers a folder that is gone by now
        folder_paths.filename_list_cache.pop(folder, None)
        return folder_paths.get_filename_list(folder)


def file_path(folder: str, name: str) -> Path:
    """A listed file.

    Raises:
        PresetError: no such file.
    """
    path = folder_paths.get_full_path(folder, name)
    if path is None or not name.endswith(SUFFIX):
        raise PresetError(f"{name[:60]!r} is not in models/{folder}.", "put the file there and press R")
    return Path(path)


def unused_path(folder: str, name: str) -> Path:
    """A path for a file to be saved under ``name`` (no folders, no suffix needed); nothing is overwritten: a number is
    appended while a file of that name exists.

    Raises:
        PresetError: a name that is empty or holds a separator or a reserved character.
    """
    name = file_stem(name)
    path = home(folder) / (name + SUFFIX)
    number = 2
    while path.exists():
        path = path.with_name(f"{name} ({number}){SUFFIX}")
        number += 1
    return path


def file_stem(name: str) -> str:
    """A name as somebody wrote it, without the suffix.

    Raises:
        PresetError: a name that is empty or too long, or holds a separator or a reserved character.
    """
    name = name.strip().removesuffix(SUFFIX).strip()
    too_long = len(name.encode("utf-8", "replace")) > _NAME_BYTES
    if not _NAME.fullmatch(name) or name.startswith(".") or too_long:
        raise PresetError(f"{name[:40]!r} is no file name.", "use letters, digits, spaces, - and _ only")
    return name


def home(folder: str) -> Path:
    """Where files of one of our folders are saved: among those that the user may have named, the one of its name."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(folder) if Path(root) != SHIPPED]
    # The host lists diffusion models in "unet" too, an older name of the folder.
    return next((root for root in roots if root.name == folder), roots[0])


def is_shipped(path: Path) -> bool:
    """Whether a preset came with the pack."""
    return SHIPPED in path.parents


def journal_path(key: str) -> Path:
    """Where a calibration keeps its trials; not reachable over HTTP."""
    return Path(folder_paths.get_system_user_directory("qsched")) / "studies" / f"{key}.jsonl"
