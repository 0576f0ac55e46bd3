"""The presets of this installation: a list for the page, and what a person does with their files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..qsched_core import Preset, PresetError, encode_preset, load_preset, parse_preset
from ..qsched_core.atomic import creating, move_new, write_new
from .cards import THUMBNAIL, clean, gain_of, safe_thumbnail
from .folders import (
    FOLDER,
    SUFFIX,
    file_names,
    file_path,
    file_stem,
    fitting_stem,
    home,
    is_shipped,
    shown_folder,
    unused_path,
)

MOST = 500
"""Presets in a list; whoever has more searches by folder."""


def entries() -> list[dict]:
    """Every preset for the page, plain values, texts capped. A file that is refused is listed with the reason."""
    return [entry(name) for name in file_names(FOLDER)[:MOST]]


def entry(name: str) -> dict:
    """One preset for the page."""
    try:
        path = file_path(FOLDER, name)
        status = path.stat()
        return {"name": name, "shipped": is_shipped(path), **_about(path, status.st_mtime_ns, status.st_size)}
    except (PresetError, OSError) as error:  # gone since it was listed
        return {"name": name, "shipped": False, "error": clean(error, 400)}


@lru_cache(maxsize=MOST)
def _about(path: Path, _modified: int, _size: int) -> dict:
    try:
        preset = load_preset(path)
    except ValueError as error:
        return {"error": clean(error, 400)}
    card, bound, gain = preset.card, preset.binding, gain_of(preset)
    return {
        "title": clean(card.get("modelspec.title", ""), 120) or path.stem,
        "author": clean(card.get("modelspec.author", ""), 80),
        "license": clean(card.get("modelspec.license", ""), 80),
        "description": clean(card.get("modelspec.description", ""), 600),
        "thumbnail": safe_thumbnail(card.get(THUMBNAIL, "")),
        "steps": preset.steps,
        "sampler": clean(bound.sampler, 80),
        "scheduler": clean(bound.scheduler, 80),
        "cfg": bound.cfg,
        "model": clean(bound.model, 80),
        "quantization": clean(bound.quantization, 80),
        "verdict": preset.verdict,
        "gain": None if gain is None else dict(zip(("gain", "low", "high"), gain, strict=True)),
        "workflow": "workflow" in card,
    }


def load(name: str) -> Preset:
    """A listed preset. Raises PresetError."""
    return load_preset(file_path(FOLDER, name))


def rename(name: str, new_name: str) -> str:
    """Gives a preset another name in its folder; the name it is listed under now.

    Raises:
        PresetError: no such preset, one that came with the pack, a name that is none or is taken, a read-only folder.
    """
    path = file_path(FOLDER, name)
    if is_shipped(path):
        raise PresetError("this preset came with the pack.", "load it, and save it under the name you want")
    target = path.with_name(file_stem(new_name) + SUFFIX)
    if target == path:
        return name
    try:
        move_new(path, target)
    except FileExistsError as error:
        raise PresetError(f"{target.name} is there already.", "choose another name") from error
    except OSError as error:
        raise _unwritable(target, error) from error
    return str(Path(name).with_name(target.name))


def import_preset(file_name: str, content: bytes) -> str:
    """Adds a file that somebody gave; the name it is listed under. A number is appended to a name that is taken.

    Raises:
        PresetError: not a preset, or a folder that cannot be written to.
    """
    stem = fitting_stem(file_name)
    # Written anew: what our own writer would not write stays outside, a picture from somebody's server for one.
    ours = encode_preset(parse_preset(content, stem + SUFFIX))
    while True:
        target = unused_path(FOLDER, stem)
        try:
            with creating(target) as temporary:
                write_new(temporary, ours)
            return target.name
        except FileExistsError:
            if not home(FOLDER).is_dir():  # a file or a dangling link in the folder's own place
                raise PresetError(
                    "there is no folder for presets.", f"make {shown_folder(home(FOLDER))} a folder"
                ) from None
            # Another page was faster: the next number.
        except OSError as error:
            raise _unwritable(target, error) from error


def _unwritable(path: Path, error: OSError) -> PresetError:
    why, folder = error.strerror or error, shown_folder(path.parent)
    return PresetError(f"cannot write {path.name}: {why}.", f"free some space, or make {folder} writable")
