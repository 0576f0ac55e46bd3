"""Where presets and quantised models live, and names that cannot leave those folders."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import folder_paths

from ...qsched_core import PresetError
from ...qsched_core.atomic import sweep
from .extra_paths import default_paths

PRESETS_FOLDER = "qsched_presets"
METRICS_FOLDER = "qsched_metrics"
MODELS_FOLDER = "qsched_models"
"""Not ``diffusion_models``: stock loaders cannot read packed convolutions and should not list them."""
STOCK_FOLDER = "diffusion_models"
TEXT_ENCODERS_FOLDER, STOCK_TEXT_FOLDER = "qsched_text_encoders", "text_encoders"
"""The same two of text encoders."""
SHIPPED_PRESETS = Path(__file__).parents[2] / "presets"
"""Presets that come with the pack. Nothing is ever written there."""
SUFFIX = ".safetensors"
_RESERVED_SIGNS = frozenset('\\/:*?"<>|')
"""In no file's name, on one system or another."""
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""They turn what a person reads around: "gnp.exe" is shown as "exe.png"."""
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)
"""Windows opens the device, whatever stands behind the first dot."""
_MAX_NAME_CHARACTERS, _MAX_NAME_BYTES = 120, 200
"""A line that is read at once; and file systems take 255 bytes, of which a number and the suffix need some."""


def register_folders() -> None:
    """Adds our folders to the host's model folders; the user's extra_model_paths.yaml is honoured: what it calls a
    default comes before ours, as it comes before the host's own folders."""
    for name in (PRESETS_FOLDER, METRICS_FOLDER, MODELS_FOLDER, TEXT_ENCODERS_FOLDER):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name), is_default=True)
        for path in default_paths(name):
            folder_paths.add_model_folder_path(name, path, is_default=True)
    folder_paths.add_model_folder_path(PRESETS_FOLDER, str(SHIPPED_PRESETS))
    for name in (PRESETS_FOLDER, MODELS_FOLDER, TEXT_ENCODERS_FOLDER):
        paths, extensions = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, {SUFFIX} | set(extensions))


def sweep_folders() -> None:
    """Deletes what processes of ours that were killed have left, see ``sweep``."""
    user = Path(folder_paths.get_system_user_directory("qsched"))
    presets = [Path(folder) for folder, _, _ in os.walk(home(PRESETS_FOLDER))]
    own = [user / name for name in ("votes", "studies", "observations")]
    models = [home(name) for name in (MODELS_FOLDER, STOCK_FOLDER, TEXT_ENCODERS_FOLDER, STOCK_TEXT_FOLDER)]
    for folder in (*presets, *models, *own):
        sweep(folder)


def metric_roots() -> list[Path]:
    """Where metrics lie, each in a folder of its own."""
    return [Path(root) for root in folder_paths.get_folder_paths(METRICS_FOLDER)]


def metric_folders() -> dict[str, Path]:
    """open_clip models a user has put into ``models/qsched_metrics``, one folder each, by name."""
    folders = {}
    for root in metric_roots():
        for config in sorted(root.glob("*/open_clip_config.json")):
            folders.setdefault(config.parent.name, config.parent)
    return folders


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
    # The host lists every case of the suffix.
    path = folder_paths.get_full_path(folder, name) if name.lower().endswith(SUFFIX) and "\0" not in name else None
    if path is None:
        raise PresetError(f"{name[:60]!r} is not in {shown_folder(home(folder))}.", "put the file there and press R")
    return Path(path)


def unused_path(folder: str, name: str) -> Path:
    """A path for a file to be saved under ``name`` (no folders, no suffix needed); nothing is overwritten: a number is
    appended while a file, a folder or a link of that name exists.

    Raises:
        PresetError: as ``file_stem``.
    """
    name = file_stem(name)
    path = home(folder) / (name + SUFFIX)
    number = 2
    # Not exists(): that says no of a link that leads nowhere.
    while os.path.lexists(path):
        path = path.with_name(f"{name} ({number}){SUFFIX}")
        number += 1
    return path


def file_stem(name: str) -> str:
    """A name as somebody wrote it, without the suffix.

    Raises:
        PresetError: a name that is empty or too long, or that some system cannot hold, hides or reads as something
            else: separators, reserved and control characters, marks of direction, halves of characters, names of
            Windows' devices, a dot at the start or the end.
    """
    name = _without_suffix(name.strip()).strip()
    too_long = len(name) > _MAX_NAME_CHARACTERS or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES
    if _DEVICES.fullmatch(name):
        raise PresetError(f"{name[:40]!r} names a device on Windows.", "choose another name")
    if not name or too_long or name[0] == "." or name[-1] == "." or any(map(_is_unfit, name)):
        raise PresetError(f"{name[:40]!r} is no file name.", "use letters, digits, spaces, - and _ only")
    return name


def fitting_stem(name: str) -> str:
    """The stem that a stranger's file is to have here: what is unfit becomes a blank, and it is short."""
    blanks = "".join(" " if _is_unfit(letter) else letter for letter in _without_suffix(re.split(r"[\\/]", name)[-1]))
    stem = " ".join(blanks.split()).strip(" .")[:60].rstrip(" .") or "preset"
    return f"preset {stem}" if _DEVICES.fullmatch(stem) else stem


def home(folder: str) -> Path:
    """Where files of one of our folders are saved: the first, which is the user's default if there is one."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(folder) if Path(root) != SHIPPED_PRESETS]
    # The host lists diffusion models in "unet" too, an older name of the folder, and lists that first.
    own_root = roots[0].with_name(folder)
    return own_root if roots[0].name == "unet" and own_root in roots else roots[0]


def shown_folder(path: Path) -> str:
    """A folder as a message names it: "models/qsched_presets", or all of it where it is none of the host's own."""
    models = Path(folder_paths.models_dir)
    return f"models/{path.relative_to(models).as_posix()}" if models in path.parents else str(path)


def is_shipped(path: Path) -> bool:
    """Whether a preset came with the pack."""
    return SHIPPED_PRESETS in path.parents


def journal_path(key: str) -> Path:
    """Where a calibration keeps its trials; not reachable over HTTP."""
    return Path(folder_paths.get_system_user_directory("qsched")) / "studies" / f"{key}.jsonl"


def observations_folder() -> Path:
    """Where it is kept what models' layers see; not reachable over HTTP."""
    return Path(folder_paths.get_system_user_directory("qsched")) / "observations"


def _without_suffix(name: str) -> str:
    return name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name


def _is_unfit(letter: str) -> bool:
    """Control characters, halves of characters, line and paragraph ends, and what has another meaning somewhere."""
    return (
        letter in _RESERVED_SIGNS
        or letter in _DIRECTION_MARKS
        or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
    )
