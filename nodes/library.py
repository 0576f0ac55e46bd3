"""The presets of this installation: a list for the page, and what a person does with their files."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ..qsched_core import Preset, PresetError, load_preset
from ..qsched_core.atomic import replacing, write_new
from .cards import THUMBNAIL, clean, gain_of, safe_thumbnail
from .folders import FOLDER, FORBIDDEN, SUFFIX, file_names, file_path, file_stem, home, is_shipped, unused_path

MOST = 500
"""Presets in a list; whoever has more searches by folder."""

_FORBIDDEN = re.compile(f"[{FORBIDDEN}]+")


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
        _reserve(target)
        with _reserved(target):
            os.replace(path, target)
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
    stem = _FORBIDDEN.sub(" ", re.split(r"[\\/]", file_name)[-1]).removesuffix(SUFFIX).strip(" .")[:60] or "preset"
    try:
        with tempfile.TemporaryDirectory() as folder:
            checked = Path(folder) / (stem + SUFFIX)
            checked.write_bytes(content)
            load_preset(checked)
        home(FOLDER).mkdir(parents=True, exist_ok=True)
        target = _reserve_unused(stem)
        with _reserved(target), replacing(target) as temporary:
            write_new(temporary, content)
    except OSError as error:
        raise _unwritable(home(FOLDER), error) from error
    return target.name


def _reserve_unused(stem: str) -> Path:
    while True:
        path = unused_path(FOLDER, stem)
        try:
            _reserve(path)
            return path
        except FileExistsError:
            continue  # another page was faster


def _reserve(path: Path) -> None:
    """An empty file in a name's place: a rename onto a name that is taken would go through without a word."""
    path.open("xb").close()


@contextmanager
def _reserved(path: Path) -> Iterator[None]:
    """Frees a name that was reserved for something that failed."""
    try:
        yield
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _unwritable(path: Path, error: OSError) -> PresetError:
    return PresetError(f"cannot write {path.name}: {error.strerror or error}.", "make models/qsched_presets writable")
