"""What a file says of its packed layers: written of a module, and checked before a layer is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import QuantizationError
from .backends.quanto import QuantoLayer
from .convolutions import OPTIONS, QuantizedConvolution
from .formats import Format
from .inspection import is_packed
from .layers import FIRST_TOKEN, INPUT_SCALE, NORM_SHIFT, QuantizedLayer
from .packing import row_bytes
from .rotation import SIZES, rotation_of

LOW_RANK = ("low_rank.up", "low_rank.down")

_FLOATS = ("F16", "BF16", "F32", "F64")

_MOST_PER_VALUE = 2
"""Weights in one stored value of a native layout: two of four bits in a byte."""


def layer_records(module: nn.Module) -> dict[str, dict[str, Any]]:
    """What a file says of each packed layer, by its name: ``Stored.layers``.

    Raises:
        QuantizationError: a layer that no file holds.
    """
    every = module.named_modules(remove_duplicate=False)
    return {name: _record(child) for name, child in every if is_packed(child)}


def checked_records(text: str, tensors: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The list of layers of a file's metadata. Of ``tensors`` no more is asked than what its header says of them.

    Raises:
        QuantizationError: a record that cannot be true of them.
    """
    try:
        layers = json.loads(text)
        for name, layer in layers.items():
            _check(name, layer, tensors[f"{name}.weight"])
            _check_first_token(layer, [tensors.get(f"{name}.{part}") for part in FIRST_TOKEN])
            _check_input_scale(layer, tensors.get(f"{name}.{INPUT_SCALE}"))
            _check_norm_shift(layer, tensors.get(f"{name}.{NORM_SHIFT}"))
            _check_low_rank(layer, [tensors.get(f"{name}.{part}") for part in LOW_RANK])
        for key in tensors:
            # A layer inside a layer would have its values counted twice.
            owner = next((key.removesuffix(f".{part}") for part in LOW_RANK if key.endswith(f".{part}")), key)
            owner = owner if owner != key else key.rpartition(".")[0]
            while owner := owner.rpartition(".")[0]:
                if owner in layers:
                    raise ValueError(key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantizationError(f"{path.name}: its list of layers is damaged.", "download or save it again") from error
    return layers


def _record(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, QuantoLayer):
        raise QuantizationError(
            "quanto's layers are not written to files.", "quantise with the torch or kitchen backend to save"
        )
    if not isinstance(layer, QuantizedLayer):
        if "comfy_quant" not in layer.state_dict():
            kind = type(layer.weight.data).__name__
            raise QuantizationError(f"layers of {kind} cannot be saved.", "quantise with another backend", kind=kind)
        return {"native": True, "shape": list(layer.weight.shape)}
    record = {"format": asdict(layer.format), "shape": list(layer.shape)}
    if isinstance(layer, QuantizedConvolution):
        record |= {key: getattr(layer, key) for key in OPTIONS}
    elif layer.rotation != rotation_of(layer.in_features):
        record["rotation"] = layer.rotation
    return record


def format_of(layer: Mapping[str, Any]) -> Format:
    """Of one layer's record."""
    record = {"symmetric": True, **layer["format"]}  # records of before there were others say nothing of it
    sizes = [record[name] for name in ("weight_bits", "activation_bits", "group_size")]
    name = record["name"]  # it goes into presets and messages
    has_name = isinstance(name, str) and name and len(name) <= 40 and name.isprintable()
    if not has_name or type(record["symmetric"]) is not bool or not all(type(size) is int for size in sizes):
        raise ValueError(name)
    return Format(**{item.name: record[item.name] for item in fields(Format)})


def _check(name: str, layer: Mapping[str, Any], packed: Any) -> None:
    """Raises ValueError, TypeError or KeyError for a record that cannot be true of ``packed``, a slice of the file."""
    shape, packed_shape = layer["shape"], packed.get_shape()
    if not name or len(shape) not in (2, 4, 5) or not all(type(size) is int and 0 < size < 2**31 for size in shape):
        raise ValueError(name)
    if layer.get("native"):
        # Who makes the layer checks its bytes; the width is what the host makes room for, before it has read one.
        if (
            len(shape) != 2
            or len(packed_shape) != 2
            or packed_shape[0] != shape[0]
            or shape[1] > _MOST_PER_VALUE * packed_shape[1]
        ):
            raise ValueError(name)
        return
    form = format_of(layer)
    if packed.get_dtype() != "U8" or packed_shape != [shape[0], row_bytes(prod(shape[1:]), form)]:
        raise ValueError(name)
    if len(shape) > 2:
        for key in OPTIONS:
            values = layer[key] if isinstance(layer[key], list) else [layer[key]]
            is_word = values == ["same"] or values == ["valid"]
            if not (is_word and key == "padding") and not all(isinstance(v, int) and 0 <= v < 4096 for v in values):
                raise ValueError(name)


def _check_low_rank(layer: Mapping[str, Any], parts: list[Any]) -> None:
    """Raises ValueError for one without the other, or not of the layer's outputs and inputs. ``parts`` are slices."""
    if all(part is None for part in parts):
        return
    up, down = parts
    if layer.get("native") or len(layer["shape"]) != 2 or any(part is None for part in parts):
        raise ValueError("low rank")
    rank = up.get_shape()[-1]
    if any(part.get_dtype() not in _FLOATS for part in parts) or not 0 < rank <= min(layer["shape"]):
        raise ValueError("low rank")
    if up.get_shape() != [layer["shape"][0], rank] or down.get_shape() != [rank, layer["shape"][1]]:
        raise ValueError("low rank")


def _check_input_scale(layer: Mapping[str, Any], part: Any) -> None:
    """Raises ValueError for a scale of other inputs, or a rotation that does not fit them. ``part`` is a slice."""
    if part is not None and (
        layer.get("native") or len(layer["shape"]) != 2 or part.get_dtype() not in _FLOATS
        or part.get_shape() != layer["shape"][1:]
    ):  # fmt: skip
        raise ValueError(INPUT_SCALE)
    size = layer.get("rotation", 0)
    if type(size) is not int or size not in (0, *SIZES) or (size and layer["shape"][1] % size):
        raise ValueError("rotation")


def _check_norm_shift(layer: Mapping[str, Any], part: Any) -> None:
    """Raises ValueError for one of other outputs. ``part`` is a slice."""
    if part is not None and (
        layer.get("native") or part.get_dtype() not in _FLOATS or part.get_shape() != layer["shape"][:1]
    ):
        raise ValueError(NORM_SHIFT)


def _check_first_token(layer: Mapping[str, Any], parts: list[Any]) -> None:
    """Raises ValueError for one without the other, or not of the layer's inputs and outputs. ``parts`` are slices."""
    if all(part is None for part in parts):
        return
    for part, size in zip(parts, reversed(layer["shape"]), strict=True):
        if layer.get("native") or part is None or part.get_dtype() not in _FLOATS or part.get_shape() != [size]:
            raise ValueError(size)
