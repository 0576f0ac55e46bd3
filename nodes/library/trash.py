"""Presets that a person deleted: they lie in a folder of our own for a while, so that a deletion can be undone."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path

import folder_paths

from ...qsched_core import PresetError
from ...qsched_core.atomic import creating, write_new
from ..host.folders import PRESETS_FOLDER, SUFFIX, file_path, is_shipped
from .files import unwritable

MAX_DELETED = 100
"""Deleted presets that can come back: small files, of which the oldest go first."""

_TOKEN = re.compile(r"[0-9a-f]{32}")


def delete(name: str) -> str:
    """Takes a preset out of the list; the token that ``restore`` brings it back by.

    Raises:
        PresetError: no such preset, one that came with the pack, a folder that cannot be written to.
    """
    path = file_path(PRESETS_FOLDER, name)
    if is_shipped(path):
        raise PresetError("this preset came with the pack.", "leave it: it is never chosen by itself")
    token = secrets.token_hex(16)
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        # Copied before it is deleted: our folder may be on another disk, and whatever happens, nothing is lost.
        write_new(_file(token), path.read_bytes())
        write_new(_origin(token), json.dumps({"path": str(path), "name": name}).encode())
        path.unlink()
    except OSError as error:
        _forget(token)
        raise unwritable(path, error) from error
    _sweep()
    return token


def restore(token: str) -> str:
    """Puts a deleted preset back under its name; that name.

    Raises:
        PresetError: it is gone for good, its name is taken by now, or its folder cannot be written to.
    """
    try:
        if not _TOKEN.fullmatch(token):
            raise ValueError("no token")
        origin = json.loads(_origin(token).read_text("utf-8"))
        target, name = Path(origin["path"]), str(origin["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PresetError("this preset cannot come back.", "import its file again") from error
    try:
        content = _file(token).read_bytes()
        with creating(target) as temporary:
            write_new(temporary, content)
    except FileExistsError as error:
        raise PresetError(f"{target.name} is there already.", "rename that one first") from error
    except OSError as error:
        raise unwritable(target, error) from error
    _forget(token)
    return name


def _folder() -> Path:
    return Path(folder_paths.get_system_user_directory("qsched")) / "deleted"  # not reachable over HTTP


def _file(token: str) -> Path:
    return _folder() / (token + SUFFIX)


def _origin(token: str) -> Path:
    return _folder() / f"{token}.json"


def _sweep() -> None:
    """The oldest go; a file that another process has just taken away is no fault."""
    origins = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for origin in origins[:-MAX_DELETED]:
        _forget(origin.stem)


def _forget(token: str) -> None:
    for path in (_file(token), _origin(token)):
        path.unlink(missing_ok=True)
