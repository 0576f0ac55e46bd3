"""What a list of sigmas must be before anything is sampled, calibrated or looked up on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import SamplingError


def check_schedule(sigmas: Sequence[float], source: str = "the schedule", *, strict: bool = False) -> None:
    """Whether sigmas (n + 1,) are a schedule: finite, not negative, and falling. ``source`` is who made them.

    Samplers pass over two equal sigmas without a step; ``strict`` does not.

    Raises:
        SamplingError: they are not; names the first that is wrong.
    """
    for place, sigma in enumerate(sigmas, start=1):
        if not math.isfinite(sigma) or sigma < 0:
            raise SamplingError(
                f"{source} is no schedule: sigma {place} of {len(sigmas)} is {sigma:g}.",
                "take another scheduler, or more steps",
                sigma=sigma,
            )
    if len(sigmas) < 2:
        raise SamplingError(
            f"{source} has {len(sigmas)} sigma{'s' * (len(sigmas) != 1)}.",
            "give two or more: one step has a start and an end",
        )
    for step, (before, after) in enumerate(zip(sigmas, sigmas[1:], strict=False), start=1):
        if after > before or (strict and after == before):
            how = "rises" if after > before else "stays"
            raise SamplingError(
                f"{source} {how} at step {step}, from sigma {before:.5g} to {after:.5g}.",
                "give one schedule, from noise to picture",
                step=step,
            )


def schedule_name(scheduler: str, steps: int) -> str:
    """As errors call it: "kl_optimal at 1 step"."""
    return f"{scheduler} at {steps} step{'s' * (steps != 1)}" if scheduler else "the schedule"
