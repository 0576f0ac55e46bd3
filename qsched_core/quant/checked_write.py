"""Writing a ``.safetensors`` file so that what is there afterwards is whole, aligned and what was given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
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
    write_together({Path(path): tensors}, metadata, lambda files: [read(file) for file in files])


def write_together(
    contents: Mapping[Path, Mapping[str, Tensor]],
    metadata: Mapping[str, str],
    read: Callable[[Sequence[Path]], Sequence[Mapping[str, Tensor]]],
) -> None:
    """The same of files that are of use together alone: all are ``read`` back, in the order of ``contents``, before the
    first of them gets its name.

    Raises:
        QuantizationError: as ``write_checked``.
    """
    tensors = [
        _apart({name: value.to("cpu").detach().contiguous() for name, value in values.items()})
        for values in contents.values()
    ]
    try:
        with ExitStack() as stack:
            temporary = [stack.enter_context(replacing(path)) for path in contents]
            for values, file in zip(tensors, temporary, strict=True):
                _save_aligned(values, file, dict(metadata))
            for values, content in zip(tensors, read(temporary), strict=True):
                if content.keys() != values.keys() or not all(_equal(content[k], values[k]) for k in values):
                    raise OSError("what was read back differs")
    except (OSError, SafetensorError) as error:
        names = ", ".join(path.name for path in contents)
        raise QuantizationError(f"cannot write {names}: {error}", "free some space, or another folder") from error


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
