"""Temporary folders in memory, for tests that write journals: each line takes a lock, which is a file, and is written
through to the disk. On a disk that is half of their time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.attack.tally import memory_folder

ENOUGH = 256 * 2**20
"""Bytes; a container's folder in memory may have less, and the disk is taken then. No test here writes a tenth."""


@pytest.fixture(scope="session")
def memory_root() -> Iterator[Path]:
    place = memory_folder()
    if place and shutil.disk_usage(place).free < ENOUGH:
        place = None
    with tempfile.TemporaryDirectory(prefix="qsched-tests-", dir=place) as name:
        yield Path(name)


@pytest.fixture
def tmp_path(memory_root: Path) -> Path:
    """In place of pytest's. The folder of the test before goes now: then nothing that it had patched is in the way."""
    for folder in memory_root.iterdir():
        shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=memory_root))
