"""Pairs of pictures for a blind vote: read from a graph, told apart from equal ones, and shown as files."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor

from ...qsched_core import VoteError
from ..host.progress import NodeProgress
from .ballots import MAX_PAIRS, Ballot

SUBFOLDER = "qsched_arena"
MAX_TEXT_LENGTH = 300
"""Characters of a text beside a pair."""


def read_pairs(without: Sequence[Tensor], with_preset: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Lists of IMAGE batches (B, H, W, C) -> pairs of pictures (H, W, C).

    Raises:
        VoteError: nothing, unequal numbers or sizes, too many, or no pictures at all.
    """
    first, second = (
        list(_pictures(name, batches)) for name, batches in (("without", without), ("with_preset", with_preset))
    )
    if len(first) != len(second):
        raise VoteError(
            f"{len(first)} pictures without and {len(second)} with the preset.",
            "make both from the same prompts and seeds: each pair is one prompt with one seed",
            without=len(first),
            with_preset=len(second),
        )
    if not 1 <= len(first) <= MAX_PAIRS:
        raise VoteError(
            f"{len(first)} pairs cannot be voted on.", f"plug in 1 to {MAX_PAIRS} pictures each", pairs=len(first)
        )
    for number, (one, other) in enumerate(zip(first, second, strict=True), 1):
        if one.shape != other.shape:
            raise VoteError(
                f"pair {number} has pictures of {_size(one)} and {_size(other)}.",
                "give both lists in the same order and the same size",
                pair=number,
            )
    return list(zip(first, second, strict=True))


def ballot_key(pairs: Sequence[tuple[Tensor, Tensor]], ballot: int) -> tuple[str, list[int]]:
    """(The sha256 of all pictures as shown and of the ballot's number, the pairs whose pictures differ).

    Raises:
        VoteError: no pair differs.
    """
    digest, indices = hashlib.sha256(f"ballot {ballot}".encode()), []
    for index, pair in enumerate(pairs):
        one, other = (_pixels(picture) for picture in pair)
        if not np.array_equal(one, other):
            indices.append(index)
        for pixels in (one, other):
            digest.update(str(pixels.shape).encode())
            digest.update(pixels.tobytes())
    if not indices:
        raise VoteError(
            "the pictures of every pair are equal.", "plug in some made without, and some made with a preset"
        )
    return digest.hexdigest(), indices


def texts_of(texts: Sequence[str], pairs: int) -> list[str]:
    """One text per pair, cut to what a page shows.

    Raises:
        VoteError: neither none, nor one, nor as many as pairs.
    """
    if len(texts) not in (0, 1, pairs):
        raise VoteError(
            f"texts and pairs differ in number: {len(texts)} and {pairs}.",
            "give one text for each pair, or one for all",
        )
    lines = [" ".join(str(text).split())[:MAX_TEXT_LENGTH] for text in texts] or [""]
    return lines * pairs if len(lines) == 1 else lines


def write_pairs(pairs: Sequence[tuple[Tensor, Tensor]], ballot: Ballot, unique_id: str | None) -> list:
    """PNGs in the host's temporary folder, (left, right) per pair. Names are drawn, the left file is always the older
    one, and nothing is written into them but pixels: they tell a page nothing of the sides."""
    folder = Path(folder_paths.get_temp_directory()) / SUBFOLDER
    folder.mkdir(parents=True, exist_ok=True)
    bar, files = NodeProgress(unique_id, len(pairs)), []
    for number, ((without, with_preset), side) in enumerate(zip(pairs, ballot.sides, strict=True), 1):
        pictures = (with_preset, without) if side == "left" else (without, with_preset)
        paths = tuple(folder / f"{secrets.token_hex(16)}.png" for _ in pictures)
        for path, picture in zip(paths, pictures, strict=True):
            Image.fromarray(_pixels(picture)).save(path, compress_level=1)
        files.append(paths)
        bar.update(number)
    return files


def _pictures(name: str, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        if getattr(batch, "ndim", 0) != 4 or batch.shape[-1] not in (1, 3, 4) or 0 in batch.shape[1:3]:
            raise VoteError(f"{name} holds something that is no picture.", "plug in an IMAGE", name=name)
        yield from batch


def _pixels(picture: Tensor) -> np.ndarray:
    """(H, W, C) or (H, W) in 8 bits; what is no number is black."""
    return (picture.detach().cpu().float().nan_to_num(0).clamp(0, 1) * 255).round().byte().squeeze(-1).numpy()


def _size(picture: Tensor) -> str:
    height, width, channels = picture.shape
    return f"{width} x {height}" + ("" if channels == 3 else f" x {channels}")
