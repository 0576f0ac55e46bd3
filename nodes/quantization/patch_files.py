"""LoRAs of packed layers in a file: their own matrices beside the packed weight, since packed codes cannot take them.

The patches are the host's tuples; what is written of one is its adapter's kind and ``weights``, its strengths and its
offset. Files come from strangers: kinds, counts, names and types are checked before an adapter is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

import comfy.weight_adapter
from torch import Tensor

from ...qsched_core import QuantizationError
from ...qsched_core.quant import Stored
from .layer_patches import is_adapter

RECORD = "patches"
"""The metadata's key; tensors are named ``patches.0``, ``patches.1`` and on."""

_KINDS = {kind.name: kind for kind in comfy.weight_adapter.adapters}
_WEIGHTS = {"lora": 6, "loha": 8, "lokr": 9, "glora": 6, "oft": 4, "boft": 4}
"""How many entries the host's adapters have in ``weights``."""


def is_written(patch: tuple) -> bool:
    """Whether a file can hold this patch: an adapter of a known kind, over the weight or a range of it."""
    return is_adapter(patch) and _WEIGHTS.get(patch[1].name) == len(patch[1].weights) and patch[4] is None


def record_of(patches: Mapping[str, list[tuple]]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors) of patches that ``is_written`` of, by the name of their layer's weight."""
    tensors: dict[str, Tensor] = {}

    def item(value) -> Any:
        if not isinstance(value, Tensor):
            return value
        name = f"{RECORD}.{len(tensors)}"
        # A copy: two patches of one file may share a tensor, which safetensors refuses.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}

    record = {
        key: [
            {
                "kind": value.name,
                "weights": [item(part) for part in value.weights],
                "strength": float(strength),
                "strength_model": float(strength_model),
                "offset": None if offset is None else list(offset),
            }
            for strength, value, strength_model, offset, _ in layer_patches
        ]
        for key, layer_patches in patches.items()
        if layer_patches
    }
    return ({RECORD: json.dumps(record)} if record else {}), tensors


def without_patches(content: Stored) -> tuple[Stored, dict[str, list[tuple]]]:
    """(the file's model alone, its patches by the name of their layer's weight).

    Raises:
        QuantizationError: a record that cannot be true.
    """
    about = dict(content.about)
    tensors = dict(content.tensors)
    try:
        record = json.loads(about.pop(RECORD, "{}"))
        patches = {
            _layer_of(key, content): [_patch(entry, tensors) for entry in entries] for key, entries in record.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantizationError(
            "the file's list of LoRAs is damaged.", "download it again, or save it again", why=str(error)[:60]
        ) from error
    rest = {name: value for name, value in tensors.items() if not name.startswith(f"{RECORD}.")}
    return replace(content, tensors=rest, about=about), patches


def _layer_of(key: str, content: Stored) -> str:
    if key.removesuffix(".weight") not in content.layers:
        raise ValueError(key)
    return key


def _patch(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple:
    """Raises ValueError, KeyError or TypeError for what no writer of ours has written."""
    kind = _KINDS[entry["kind"]]
    weights = tuple(_weight(part, tensors) for part in entry["weights"])
    if len(weights) != _WEIGHTS[kind.name] or not any(isinstance(part, Tensor) for part in weights):
        raise ValueError(kind.name)
    if kind.name == "lora" and not all(isinstance(part, Tensor) and part.ndim >= 2 for part in weights[:2]):
        raise ValueError(kind.name)
    offset = entry["offset"]
    if offset is not None:
        dim, start, length = (_whole(number) for number in offset)
        offset = (dim, start, length)
    return _number(entry["strength"]), kind(set(), weights), _number(entry["strength_model"]), offset, None


def _weight(part: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(part, dict):
        value = tensors[part["tensor"]]
        if not part["tensor"].startswith(f"{RECORD}.") or not value.is_floating_point():
            raise ValueError(part)
        return value
    if isinstance(part, list):
        return [_whole(number) for number in part]
    return None if part is None else _number(part)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(value)
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(value)
    return value
