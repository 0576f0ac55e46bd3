"""Whole calls of a network in a file: their tensors, and beside them a tree of plain values as JSON.

A call is repeated later, so that what a file says is checked: nothing but containers, numbers, texts and tensors comes
out of it. Calls that hold anything else (a host's options may: functions, objects) are not written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from .input_recorder import Call, Calls, Sample

PREFIX = "calls/"
"""Of the tensors' names."""

_DEEPEST = 32
"""Containers inside each other in a call's arguments: networks take a few, and Python's own calls end at a thousand."""

_KEY_DEPTH = _DEEPEST - 1
"""A key is a tuple with at most one level of others in it."""

_SCALARS = (type(None), bool, int, float, str)
_CONTAINERS = {"list": list, "tuple": tuple}


class NotPlain(ValueError):
    """Something that no file can hold, or that no file of ours holds."""


def record_of(calls: Calls | None) -> tuple[str, dict[str, Tensor]]:
    """(JSON, tensors by name) of ``calls``; "" where there are none, or where one holds what is not plain."""
    tensors: dict[str, Tensor] = {}
    if calls is None:
        return "", tensors
    try:
        entries = [_written_call(call, tensors) for call in calls.kept]
    except NotPlain:
        return "", {}
    return json.dumps({"seen": calls.seen, "batch": calls.batch, "few": calls.few, "calls": entries}), tensors


def read_calls(text: str, tensors: Mapping[str, Tensor], device: torch.device) -> Calls:
    """What ``record_of`` wrote. Tensors that were on an accelerator are brought to ``device``.

    Raises:
        ValueError, KeyError, TypeError or RecursionError: not written by it.
    """
    record = json.loads(text)
    calls = Calls(Sample(0), _count(record["few"]), _count(record["seen"]), _count(record["batch"]))
    calls.kept = [_read_call(entry, tensors, device, calls.seen) for entry in record["calls"]]
    if len({call.number for call in calls.kept}) < len(calls.kept):
        raise NotPlain("two calls of one number")
    return calls


def _written_call(call: Call, tensors: dict[str, Tensor]) -> dict:
    means = {}
    for layer, values in call.means.items():
        means[layer] = _named(torch.stack(values), tensors)
    return {
        "number": call.number, "lot": call.lot, "given": _written([list(call.args), call.kwargs], tensors),
        "output": None if call.output is None else _named(call.output, tensors), "means": means,
    }  # fmt: skip


def _read_call(entry: dict, tensors: Mapping[str, Tensor], device: torch.device, total: int) -> Call:
    args, kwargs = _read(entry["given"], tensors, device)
    number, lot = _count(entry["number"]), entry["lot"]
    if type(kwargs) is not dict or not all(type(name) is str for name in kwargs) or type(args) is not list:
        raise NotPlain("given")
    if number >= total or type(lot) is not float or not math.isfinite(lot):
        raise NotPlain("number")
    output = None if entry["output"] is None else tensors[entry["output"]]
    means = {str(layer): tensors[name] for layer, name in entry["means"].items()}
    if any(values.ndim != 2 or not values.is_floating_point() for values in means.values()):
        raise NotPlain("means")
    if output is not None and not output.is_floating_point():
        raise NotPlain("output")
    return Call(number, tuple(args), kwargs, lot, output, {layer: list(values) for layer, values in means.items()})


def _named(value: Tensor, tensors: dict[str, Tensor]) -> str:
    name = f"{PREFIX}{len(tensors)}"
    tensors[name] = value
    return name


def _written(value: Any, tensors: dict[str, Tensor], depth: int = 0) -> Any:
    """A node of the tree: a scalar as it is, anything else as a pair of its kind and its content."""
    if type(value) in _SCALARS:
        return value
    if depth > _DEEPEST:
        raise NotPlain("too deep")
    if type(value) is Tensor and not value.is_meta and value.layout == torch.strided:
        return ["tensor", [_named(value, tensors), value.device.type != "cpu"]]
    if type(value) is UUID:
        return ["uuid", value.hex]
    if type(value) is dict:
        return ["dict", [[_written_key(key), _written(item, tensors, depth + 1)] for key, item in value.items()]]
    for kind, container in _CONTAINERS.items():
        if type(value) is container:
            return [kind, [_written(item, tensors, depth + 1) for item in value]]
    raise NotPlain(type(value).__name__)


def _written_key(key: Any) -> Any:
    """What ``_key`` reads: a scalar, or a tuple without tensors."""
    tensors: dict[str, Tensor] = {}
    node = _written(key, tensors, _KEY_DEPTH)
    if type(key) not in (*_SCALARS, tuple) or tensors:
        raise NotPlain("key")
    return node


def _read(node: Any, tensors: Mapping[str, Tensor], device: torch.device, depth: int = 0) -> Any:
    if type(node) in _SCALARS:
        return node
    if type(node) is not list or len(node) != 2 or depth > _DEEPEST:
        raise NotPlain("node")
    kind, content = node
    if kind == "tensor":
        name, on_device = content
        return tensors[name].to(device) if on_device is True else tensors[name]
    if kind == "uuid":
        return UUID(hex=content)
    if kind == "dict":
        return {_key(key): _read(item, tensors, device, depth + 1) for key, item in content}
    return _CONTAINERS[kind](_read(item, tensors, device, depth + 1) for item in content)


def _key(node: Any) -> Any:
    if type(node) not in _SCALARS:
        key = _read(node, {}, torch.device("cpu"), _KEY_DEPTH)
        if type(key) is not tuple:
            raise NotPlain("key")
        return key
    return node


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**31:
        raise NotPlain("count")
    return number
