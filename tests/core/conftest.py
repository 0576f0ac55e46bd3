"""All tests here run on one thread."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def calm(one_thread: None) -> None:
    """See ``one_thread``."""
