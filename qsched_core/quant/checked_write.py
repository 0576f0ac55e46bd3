"""Writing a ``.safetensors`` file so that what is there afterwards is whole, aligned and what was given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..atomic import replacing
from ..errors import QuantizationError

_ALIGNMENT = 64
"""Bytes of the widest vector registers: from there a matrix product on a mapped file rounds as one in memory does."""


def write_checked(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str],
    read: Callable[[Path], Mapping[str, Tensor]],
) -> None:
    """Write a ``.safetensors`` file atomically: beside the target, ``read`` back and compared, then renamed over it.

    Raises:
        QuantizationError: the file cannot be written, or what is read back differs (nothing is left behind).
    """
    path = Path(path)
    tensors = _apart({name: value.to("cpu").detach().contiguous() for name, value in tensors.items()})
    try:
        with replacing(path) as temporary:
            _save_aligned(tensors, temporary, dict(metadata))
            content = read(temporary)
            if content.keys() != tensors.keys() or not all(_equal(content[k], tensors[k]) for k in tensors):
                raise OSError("what was read back differs")
    except (OSError, SafetensorError) as error:
        raise QuantizationError(f"cannot write {path.name}: {error}", "free some space, or another folder") from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values; those that share memory (a layer in two places) are copied: the format cannot hold a tensor
    twice."""
    places: set[int] = set()
    copies = {}
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        copies[name] = value.clone() if place in places else value
        places.add(place)
    return copies


def _save_aligned(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Values start at multiples of 64 bytes: a matrix product on the mapped file rounds as one from memory does."""
    for _ in range(2):
        save_file(dict(tensors), path, metadata)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length).rstrip()
        if (8 + length) % _ALIGNMENT == 0:
            return
        unpadded = 8 + len(text) + len(',"padding":""')
        metadata["padding"] = " " * (-unpadded % _ALIGNMENT)


def _equal(one: Tensor, other: Tensor) -> bool:
    # Float8 knows no comparison: its bytes do.
    alike = one.dtype == other.dtype and one.shape == other.shape
    one, other = (value.contiguous().flatten() for value in (one, other))  # a single number has no bytes to view
    return alike and torch.equal(one.view(torch.uint8), other.view(torch.uint8))
