"""All tests here run on one thread, and write into memory."""

from __future__ import annotations

import pytest
from memory_paths import memory_root, tmp_path

__all__ = ["calm", "memory_root", "tmp_path"]


@pytest.fixture(autouse=True, scope="module")
def calm(one_thread: None) -> None:
    """See ``one_thread``."""
