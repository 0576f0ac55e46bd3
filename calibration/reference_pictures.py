"""Pictures of the reference model: what a quantised model's pictures are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .core import Coefficients
from .frames import over_frames
from .indices import prompt_of
from .metrics.pixels import pixel_statistics
from .metrics.reference import DISTANCE, distance
from .search.guard import Guard, can_guard

COMPARISON_SIDE = 256
"""Longest side in pixels at which pictures are compared: a hundred of 1024 x 1024 would fill the memory."""

Generate = Callable[[Coefficients, Sequence[int]], Tensor]


class ReferencePictures:
    """Thumbnails of the reference model's pictures without coefficients, made at one go: models are swapped once.

    96 of them are 19 MB.
    """

    def __init__(self, generate: Generate, indices: Sequence[int], steps: int):
        self._generate, self._indices, self._steps = generate, tuple(indices), steps
        self._thumbnails: dict[int, Tensor] = {}
        self._statistics: dict[int, dict[str, float]] = {}

    def generate(self, coefficients: Coefficients, indices: Sequence[int]) -> Tensor:
        """The reference's pictures, as ``calibrate`` asks for them. Those without coefficients are the ones compared
        with: they are not made twice."""
        pictures = self._generate(coefficients, indices)
        if coefficients.is_identity:
            self._add(pictures, indices)
            self._complete()
        return pictures

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Thumbnails (B, h, w, 3), of videos (B, F, h, w, 3), in [0, 1]."""
        self._complete()
        return torch.stack([self._thumbnails[index] for index in indices])

    def distance(self, pictures: Tensor, indices: Sequence[int]) -> np.ndarray:
        """(B,) float64: how far pictures (B, H, W, 3) or videos are from the reference's; see ``metrics.reference``."""
        return _distance(thumbnails(pictures), self(indices)).numpy()

    def statistics(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Of the pictures in their own size; see ``metrics.pixels``."""
        self._complete()
        rows = [self._statistics[index] for index in indices]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def reseed_distance(self, indices: Sequence[int], n_prompts: int) -> float:
        """Mean distance between two of the reference's pictures of one prompt with different noises: what a person who
        turns the seed gets. NaN where no prompt has two noises."""
        by_prompt: dict[int, list[int]] = {}
        for index in indices:
            by_prompt.setdefault(prompt_of(index, n_prompts), []).append(index)
        pairs = [pair for group in by_prompt.values() for pair in zip(group, group[1:], strict=False)]
        if not pairs:
            return float("nan")
        first, second = zip(*pairs, strict=True)
        return _distance(self(first), self(second)).mean().item()

    def _add(self, pictures: Tensor, indices: Sequence[int]) -> None:
        self._thumbnails |= dict(zip(indices, thumbnails(pictures), strict=True))
        statistics = over_frames(pixel_statistics, pictures)
        for place, index in enumerate(indices):
            self._statistics[index] = {name: values[place].item() for name, values in statistics.items()}

    def _complete(self) -> None:
        missing = [index for index in self._indices if index not in self._thumbnails]
        if missing:
            self._add(self._generate(Coefficients.identity(self._steps), missing), missing)


def guard_of(reference: ReferencePictures | None, *, stay_near: bool) -> Guard | None:
    """What no candidate of a search may worsen: pixel statistics, and with ``stay_near`` the distance to the
    reference's pictures.

    None where there is nothing to stay near to and optuna knows no constraints: the verdict refuses drifts all the
    same.
    """

    def measure(pictures: Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        statistics = over_frames(pixel_statistics, pictures)
        values_by_name = {name: values.double().cpu().numpy() for name, values in statistics.items()}
        near = stay_near and reference is not None
        return {**values_by_name, **({DISTANCE: reference.distance(pictures, indices)} if near else {})}

    if reference is None and not can_guard():
        return None
    return Guard(measure, None if reference is None else reference.statistics)


def thumbnails(pictures: Tensor) -> Tensor:
    """(B, H, W, 3) or (B, F, H, W, 3) -> the same shape, at most COMPARISON_SIDE on the longer side."""
    sides = pictures.shape[-3:-1]
    scale = COMPARISON_SIDE / max(sides)
    if scale >= 1:
        return pictures
    size = [max(1, round(side * scale)) for side in sides]
    flat = pictures.flatten(0, -4)
    return F.interpolate(flat.movedim(-1, 1), size=size, mode="area").movedim(1, -1).unflatten(0, pictures.shape[:-3])


def _distance(pictures: Tensor, reference: Tensor) -> Tensor:
    return over_frames(distance, pictures, reference)[DISTANCE].double()
