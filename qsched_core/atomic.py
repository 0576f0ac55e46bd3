"""Files that are whole or not there: written beside their place, and put into it at the end."""

from __future__ import annotations

import errno
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABANDONED_SECONDS = 3600.0
"""A temporary file that nobody has written to for so long has lost its process: writing a model of 12 GB changes the
date all the time, and reading it back takes minutes."""

_TEMPORARY = re.compile(r"\.qsched-[0-9a-f]{32}\.tmp")
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What ``os.link`` answers on FAT, exFAT and some network shares."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name near ``path`` to write to. It takes the place of ``path``, and of what is there, at the end of the
    block; if the block raises, nothing is left of it. Folders are made.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    with _beside(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """As ``replacing``, for a file that must not be there: nothing is overwritten, and ``path`` is never an empty file,
    not even for a moment.

    Raises:
        FileExistsError: at the end of the block, a file, a folder or a link of that name is there.
        OSError: the folder cannot be made or written to.
    """
    with _beside(path) as temporary:
        yield temporary
        move_new(temporary, path)


def move_new(source: Path, target: Path) -> None:
    """Give a file another name in its folder, unless that name is taken; ``os.rename`` would overwrite without a word.

    Raises:
        FileExistsError: a file, a folder or a link is at ``target``.
        OSError: the folder cannot be written to.
    """
    if os.name == "nt":
        os.rename(source, target)  # Windows itself refuses a name that is taken
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _move_without_links(source, target)
        return
    try:
        os.unlink(source)
    except OSError:
        os.unlink(target)
        raise


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, through to the disk: a rename may otherwise outlive what it renames.

    Raises:
        OSError: it is there, or cannot be written.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sweep(folder: Path) -> list[Path]:
    """Delete what killed processes of ours left in a folder, by name and age; the folders of ours that are gone."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []  # not there yet, or not to be read
    removed_places = []
    for place in (Path(folder, name) for name in names if _TEMPORARY.fullmatch(name)):
        if place.is_symlink():  # to somebody's folder
            continue
        try:
            inside = [Path(place, name) for name in os.listdir(place)]
            if time.time() - max(path.lstat().st_mtime for path in (place, *inside)) > ABANDONED_SECONDS:
                for path in inside:
                    path.unlink()
                place.rmdir()
                removed_places.append(place)
        except OSError:
            continue  # no folder of ours, another process was faster, or somebody still has it open
    return removed_places


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in a folder of its own: safetensors writes to another file beside it first, whose name is not ours."""
    # Not mkdtemp: its folder, and mkstemp's file, are for the owner alone, and presets are shared.
    place = path.with_name(f".qsched-{uuid.uuid4().hex}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir()
    try:
        yield place / "file"
    finally:
        for name in os.listdir(place):
            Path(place, name).unlink(missing_ok=True)
        place.rmdir()


def _move_without_links(source: Path, target: Path) -> None:
    """A name is reserved by an empty file: between two lines there is no better way on such a disk."""
    target.open("xb").close()
    try:
        os.replace(source, target)
    except OSError:
        target.unlink(missing_ok=True)
        raise
