"""Which point comes next: one optuna sampler per trial, chosen by the trial's place in the study alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from ..settings import Settings
from .space import Space
from .storage import import_optuna

SAME_SHARE, NEAR_SHARE = 0.01, 0.08
"""Shares of the trust region's width: nearer points are the same; how far around the best is looked instead."""

STARTS_PER_AXIS = 2
"""Random points before the model of the landscape takes over. Measured once on two axes: four of them found with
eleven candidates what eight found with twenty-four, in the median of twelve searches on the flow toy."""


def scattered_points(space: Space) -> int:
    """How many random points there are before the model of the landscape takes over."""
    return STARTS_PER_AXIS * len(space.axes)


def grid_points(space: Space, per_axis: int) -> list[dict[str, float]]:
    """The paper's grid: ``per_axis`` even points of every axis, the first axis slowest."""
    values = [float(value) for value in np.linspace(space.low, space.high, per_axis)]
    return [dict(zip(space.axes, point, strict=True)) for point in product(values, repeat=len(space.axes))]


def sampler_for(order: int, space: Space, settings: Settings, fixed: Sequence[dict[str, float]]):
    """The sampler of trial ``order``: the ``fixed`` points first, then what the strategy asks for.

    Seeded by the order, so that a search that was cut off and resumed asks what the uninterrupted one would have
    asked, and two workers never ask the same.
    """
    optuna = import_optuna()
    samplers, seed = optuna.samplers, settings.seed * 100_003 + order
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if order < len(fixed):
            return samplers.PartialFixedSampler(fixed[order], samplers.RandomSampler(seed=seed))
        if settings.strategy == "random" or order < len(fixed) + scattered_points(space):
            return samplers.RandomSampler(seed=seed)
        if settings.strategy == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=0)
        return samplers.GPSampler(seed=seed, n_startup_trials=0, deterministic_objective=True)


def fresh(
    proposal: dict[str, float],
    earlier: Sequence[tuple[float, ...]],
    best: Mapping[str, float],
    space: Space,
    seed: int,
    order: int,
) -> dict[str, float]:
    """The point asked for; where it has been tried already, another one near the best.

    A Gaussian process that takes every value for exact comes to ask for its best point again and again: quantised
    activations make the landscape a little rough, and it sees no hill left.
    """
    width = space.high - space.low
    place = [proposal[axis] for axis in space.axes]
    if not any(math.dist(place, point) < SAME_SHARE * width for point in earlier):
        return proposal
    step = np.random.default_rng((seed, order)).normal(0, NEAR_SHARE * width, len(space.axes))
    return {a: float(np.clip(best[a] + d, space.low, space.high)) for a, d in zip(space.axes, step, strict=True)}
