"""All tests here run on one thread, and write into memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memory_paths import memory_root, tmp_path

__all__ = ["calm", "memory_root", "tmp_path"]


@pytest.fixture(autouse=True, scope="module")
def calm(one_thread: None) -> None:
    """See ``one_thread``."""


@pytest.fixture(scope="session")
def one_vocabulary() -> Iterator[None]:
    """open_clip reads its vocabulary, a twentieth of a second, for each tokenizer that is made; with this, once."""
    from open_clip.tokenizer import SimpleTokenizer

    read, states = SimpleTokenizer.__init__, {}

    def init(self: SimpleTokenizer, *arguments: object, **options: object) -> None:
        key = repr((arguments, options))
        if key not in states:
            read(self, *arguments, **options)
            states[key] = dict(vars(self))
        vars(self).update(states[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimpleTokenizer, "__init__", init)
        yield
