"""Makes the checkout importable for the tests, and keeps pytest from importing it as a package."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Last, never first: this repository's nodes/ must not shadow ComfyUI's nodes.py. `python -m pytest` has put the
# current folder first, so it is taken out of there.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT] + [str(ROOT)]
sys.path.append(str(ROOT / "tests" / "support"))  # what tests of several folders import


class CheckoutIsNoTestPackage:
    """The root's `__init__.py` is ComfyUI's door to the pack. pytest takes it for a test package and would import it,
    under a name in which its relative imports cannot work."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    # As a plugin of its own: hooks of a conftest are not asked about the folders above it.
    config.pluginmanager.register(CheckoutIsNoTestPackage())


def pytest_collection() -> None:
    """What is imported stays: Python's collector need not go through it while it comes in, nor between tests."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def refused() -> Refused:
    """``with refused(Kind, "part of the text", field=value): ...`` expects one of our errors, as a person reads it:
    a first line that fits the host's box, a way out, and the values that the text speaks of. Parts stand in this order,
    the first of them before the way out, if it does not begin with "Fix: ": the two cannot be swapped."""

    @contextmanager
    def check(kind: type[Exception], *parts: str, **fields: object) -> Iterator[pytest.ExceptionInfo]:
        with pytest.raises(kind) as caught:
            yield caught
        text = str(caught.value)
        assert text.startswith("Q-Sched: ")
        assert "Fix: " in text
        assert len(text.splitlines()[0]) <= 90
        place = 0
        for part in parts:
            assert part in text[place:], text
            place = text.index(part, place) + len(part)
        if parts and not parts[0].startswith("Fix: "):
            assert parts[0] in text.partition("Fix: ")[0], text
        assert {name: caught.value.fields[name] for name in fields} == fields

    return check


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tests without a host work on small tensors, where threads of a busy machine only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    """Imported by the tests that ask for it alone: that takes seconds."""
    import diffusers

    return diffusers
