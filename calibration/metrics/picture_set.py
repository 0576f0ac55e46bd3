"""How far a row of pictures is, as a set, from a set of pictures that somebody gave."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..core import CalibrationError
from .base import Metric

LEAST_PICTURES = 8
"""In a set: the distance to fewer says more of them than of what they stand for."""


class ReferenceSet(Protocol):
    """``name`` is that of the metric, "distance to …"; ``features`` (B, D) are those of any pictures (B, H, W, 3), and
    ``own_features`` (m, D) those of the set. On the CPU, float64."""

    name: str

    def features(self, pictures: Tensor) -> Tensor: ...

    def own_features(self) -> Tensor: ...


class PictureSet:
    """The set ``pictures`` (N, H, W, 3) in [0, 1], seen by the first of ``metrics`` that embeds pictures. No search
    asks for it: a score that is gamed leads away from pictures that people took.

    Raises:
        CalibrationError: too few pictures that differ, another shape, values that are not finite, or no metric that
            embeds.
    """

    name = "distance to set"

    def __init__(self, metrics: Sequence[nn.Module], pictures: Tensor):
        embedders = [metric for metric in metrics if isinstance(metric, Metric) and metric.embeds]
        if not embedders:
            raise CalibrationError(
                "none of these metrics can tell how far pictures are from a set.",
                "choose CLIPScore, CLIP-IQA, AQ-Map, HPSv2.1 or PickScore for tc or iq, or unplug picture_set",
            )
        if pictures.ndim != 4 or pictures.shape[-1] < 3 or not pictures.isfinite().all():
            shape = tuple(pictures.shape)
            raise CalibrationError(f"a set of shape {shape} is no set of pictures.", "give an IMAGE batch", shape=shape)
        if len(pictures) < LEAST_PICTURES:
            raise CalibrationError(
                f"a set of {len(pictures)} pictures is too small.",
                f"plug in {LEAST_PICTURES} or more; 50 tell much more",
            )
        self.pictures, self._metric = pictures[..., :3], embedders[0]
        distinct = len({hashlib.sha256(one.float().cpu().numpy().tobytes()).digest() for one in self.pictures})
        if distinct < LEAST_PICTURES:
            raise CalibrationError(
                f"this set of {len(pictures)} has too few different pictures: {distinct}.",
                f"plug in {LEAST_PICTURES} or more that are not alike: one picture many times tells of no kind",
            )
        self._own: Tensor | None = None

    @property
    def metric_name(self) -> str:
        """Of the metric that sees the pictures."""
        return self._metric.name

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        return self._metric.embed(pictures).double().cpu()

    def own_features(self) -> Tensor:
        if self._own is None:
            self._own = torch.cat([self.features(part) for part in self.pictures.split(LEAST_PICTURES)])
        return self._own


def set_distance(features: Tensor, own_features: Tensor) -> Tensor:
    """(B,) of a row's ``features`` (B, D); their mean is the distance, 0 on average for pictures of the set's kind. NaN
    for pictures without finite features, and in a row of fewer than three."""
    is_finite = features.isfinite().all(1)
    values = torch.full((len(features),), float("nan"), dtype=torch.float64)
    if is_finite.sum() > 2:
        values[is_finite] = energy_distance(features[is_finite], own_features)
    return values


def set_row(reference: ReferenceSet, pictures: Tensor) -> dict[str, Tensor]:
    """{name: (B,)} of a row of pictures."""
    return {reference.name: set_distance(reference.features(pictures), reference.own_features())}


def energy_distance(points: Tensor, reference: Tensor) -> Tensor:
    """(n,) jackknife pseudo-values of the unbiased energy distance (Szekely and Rizzo 2013) of points (n, d) from a
    reference (m, d); n > 2, m > 1. A U-statistic: their mean is the distance itself. So two rows of pictures can be
    compared picture by picture."""
    n, m = len(points), len(reference)
    own, across = torch.cdist(points, points).sum(1), torch.cdist(points, reference).mean(1)
    constant = torch.cdist(reference, reference).sum() / (m * (m - 1))
    whole = 2 * across.mean() - own.sum() / (n * (n - 1)) - constant
    without = 2 * (across.sum() - across) / (n - 1) - (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - constant
    return n * whole - (n - 1) * without
