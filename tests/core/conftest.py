"""All tests here run on one thread, and those of diffusers share its import."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(autouse=True, scope="module")
def calm(one_thread: None) -> None:
    """See ``one_thread``."""


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    import diffusers

    return diffusers
