"""The presets of this installation: a list for the page, and what a person does with their files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ...qsched_core import Binding, Preset, PresetError, encode_preset, load_preset, parse_preset, save_preset
from ...qsched_core.atomic import creating, move_new, write_new
from ..host.folders import (
    PRESETS_FOLDER,
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
from .card import THUMBNAIL, WORKFLOW_KEYS, clean, gain_of, safe_thumbnail, workflow_allowed
from .picture import carried_preset, share_picture

_MAX_FACTS, _MAX_PICTURES = 20_000, 1000
"""What is remembered of files that have not changed: about 2 KB of texts each, and some 20 KB of picture."""


@dataclass(frozen=True)
class Facts:
    """What is known of a preset's file without its picture: ``entry`` for the page, plain values and texts that are
    capped, or the ``error`` that the file is refused with; what it is bound to, for ``match``."""

    entry: dict
    steps: int = 0
    binding: Binding = field(default_factory=Binding)


def entries() -> list[dict]:
    """Every preset for the page. A file that is refused is listed with the reason."""
    return [entry(name) for name in file_names(PRESETS_FOLDER)]


def entry(name: str) -> dict:
    """One preset for the page, with its picture."""
    plain = facts(name).entry
    if "error" in plain:
        return plain
    try:
        path = file_path(PRESETS_FOLDER, name)
        status = path.stat()
        return {**plain, "thumbnail": _thumbnail(path, status.st_mtime_ns, status.st_size)}
    except (ValueError, OSError) as error:  # gone since it was listed
        return {"name": name, "shipped": False, "error": _reason(error)}


def facts(name: str) -> Facts:
    """One preset, from what is remembered of its file where that has not changed."""
    try:
        path = file_path(PRESETS_FOLDER, name)
        status = path.stat()
        content = _facts(path, status.st_mtime_ns, status.st_size)
    except (PresetError, OSError) as error:  # gone since it was listed
        return Facts({"name": name, "shipped": False, "error": _reason(error)})
    return replace(content, entry={"name": name, "shipped": is_shipped(path), **content.entry})


def _reason(error: Exception) -> str:
    """As much of an error as the list has room for."""
    return clean(error, 400)


@lru_cache(maxsize=_MAX_PICTURES)
def _thumbnail(path: Path, _mtime_ns: int, _size: int) -> str:
    return safe_thumbnail(load_preset(path).card.get(THUMBNAIL, ""))


@lru_cache(maxsize=_MAX_FACTS)
def _facts(path: Path, _mtime_ns: int, _size: int) -> Facts:
    try:
        preset = load_preset(path)
    except ValueError as error:
        return Facts({"error": _reason(error)})
    card, bound, gain = preset.card, preset.binding, gain_of(preset)
    entry = {
        "title": clean(card.get("modelspec.title", ""), 120) or path.stem,
        "author": clean(card.get("modelspec.author", ""), 80),
        "license": clean(card.get("modelspec.license", ""), 80),
        "description": clean(card.get("modelspec.description", ""), 600),
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
    return Facts(entry, preset.steps, bound)


def load(name: str) -> Preset:
    """A listed preset. Raises PresetError."""
    return load_preset(file_path(PRESETS_FOLDER, name))


def picture(name: str) -> bytes:
    """A listed preset as a picture to share, with its file and, if files may say it, its workflow in it.

    Raises:
        PresetError: no such preset.
    """
    preset = load_preset(file_path(PRESETS_FOLDER, name))
    if not workflow_allowed():
        preset = replace(preset, card={key: text for key, text in preset.card.items() if key not in WORKFLOW_KEYS})
    return share_picture(preset, encode_preset(preset))


def rename(name: str, new_name: str) -> str:
    """Gives a preset another name in its folder; the name it is listed under now.

    Raises:
        PresetError: no such preset, one that came with the pack, a name that is none or is taken, a read-only folder.
    """
    path = file_path(PRESETS_FOLDER, name)
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
        raise unwritable(target, error) from error
    return str(Path(name).with_name(target.name))


def import_preset(file_name: str, content: bytes) -> tuple[str, bool]:
    """Adds a file that somebody gave, a preset or a picture that carries one: (the name it is listed under, whether it
    is new). What is there already, byte for byte, is not added again; a number is appended to a name that another has.

    Raises:
        PresetError: not a preset, or a folder that cannot be written to.
    """
    file_name, content = carried_preset(file_name, content)
    stem = fitting_stem(file_name)
    # Written anew: what our own writer would not write stays outside, a picture from somebody's server for one.
    ours = encode_preset(parse_preset(content, stem + SUFFIX))
    if (twin := _twin(content, ours)) is not None:
        return twin, False
    while True:
        target = unused_path(PRESETS_FOLDER, stem)
        try:
            with creating(target) as temporary:
                write_new(temporary, ours)
            return target.name, True
        except FileExistsError:
            if not home(PRESETS_FOLDER).is_dir():  # a file or a dangling link in the folder's own place
                raise PresetError(
                    "there is no folder for presets.", f"make {shown_folder(home(PRESETS_FOLDER))} a folder"
                ) from None
            # Another page was faster: the next number.
        except OSError as error:
            raise unwritable(target, error) from error


def _twin(*contents: bytes) -> str | None:
    """The name of a listed file that holds one of these."""
    for name in file_names(PRESETS_FOLDER):
        try:
            path = file_path(PRESETS_FOLDER, name)
            if path.stat().st_size in map(len, contents) and path.read_bytes() in contents:
                return name
        except (PresetError, OSError):  # gone since it was listed
            continue
    return None


def unwritable(path: Path, error: OSError) -> PresetError:
    """What is raised for a folder of presets that cannot be written to."""
    why, folder = error.strerror or error, shown_folder(path.parent)
    return PresetError(f"cannot write {path.name}: {why}.", f"free some space, or make {folder} writable")


def save_with_workflow(preset, card: dict[str, str], workflow: dict[str, str], path: Path) -> str:
    """Writes the file, without the workflow where that is too large. What the report has to say of it."""
    try:
        save_preset(replace(preset, card={**card, **workflow}), path)
        return ""
    except PresetError as error:
        if not workflow or "header_bytes" not in error.fields:
            raise
    save_preset(replace(preset, card=card), path)
    return "\nThe workflow is not in it: the file would be larger than 1 MiB."
