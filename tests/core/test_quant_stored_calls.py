"""Calls of a network in a file: how deep what they were given may be, and that what is written can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import torch

from qsched_core.quant import stored_calls
from qsched_core.quant.input_recorder import Call, Calls, Sample
from qsched_core.quant.stored_calls import NotPlain, read_calls, record_of

CPU = torch.device("cpu")
NESTS: dict[str, Callable[[Any], Any]] = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"a": inner},
}


def calls_with(options: object) -> Calls:
    return Calls(Sample(1), few=1, seen=1, kept=[Call(0, (), {"options": options}, 0.5)])


def nested(nest: Callable[[Any], Any], depth: int) -> Any:
    node: Any = 1
    for _ in range(depth):
        node = nest(node)
    return node


def deepest(nest: Callable[[Any], Any]) -> int:
    return max(depth for depth in range(100) if record_of(calls_with(nested(nest, depth)))[0])


@pytest.mark.parametrize("name", NESTS)
def test_every_container_may_lie_as_deep_and_no_deeper_one_is_read(monkeypatch, name):
    nest, most = NESTS[name], deepest(NESTS["list"])
    assert 20 < most < 60  # networks take a few; Python's own calls end at a thousand
    assert deepest(nest) == most
    options = nested(nest, most)
    assert read_calls(*record_of(calls_with(options)), CPU).kept[0].kwargs == {"options": options}
    with monkeypatch.context() as patch:
        patch.setattr(stored_calls, "_DEEPEST", 100)  # as a stranger may write it
        text, tensors = record_of(calls_with(nested(nest, most + 1)))
    with pytest.raises(NotPlain):
        read_calls(text, tensors, CPU)


@pytest.mark.parametrize("key", [1, None, 0.5, "a", ("a", 1), ("a", (1, 2)), ("a", UUID(int=3))], ids=str)
def test_keys_come_back(key):
    assert read_calls(*record_of(calls_with({key: 1})), CPU).kept[0].kwargs == {"options": {key: 1}}


@pytest.mark.parametrize("key", [UUID(int=3), torch.ones(1), ("a", torch.ones(1)), ((((1,),),),), frozenset()], ids=str)
def test_calls_with_keys_that_cannot_be_read_are_not_written(key):
    """Regression: they were, and the whole observation was "damaged" when it was loaded."""
    assert record_of(calls_with({key: 1})) == ("", {})
