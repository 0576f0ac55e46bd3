"""The parameters of Q-Sched: two positive numbers per sampling step (Frumkin & Marculescu, arXiv 2509.01624)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import CoefficientError

MAX_STEPS = 1000
SAME_SIGMA = 0.02
"""Relative difference of two first sigmas that still begin one schedule: samplers and nodes shave a little off."""

LIMITS = (0.1, 10.0)
"""No published or searched coefficient lies outside [0.6, 1.6]; this range only catches what is certainly wrong."""


@dataclass(frozen=True)
class Coefficients:
    """``c_x[i]`` scales the sample and ``c_eps[i]`` the network's output in the update of step i.

    Equal-length tuples of finite floats in [0.1, 10]; step 0 is the noisiest. All ones is the stock sampler.

    Raises:
        CoefficientError: lengths differ, no step or more than 1000, or a value not finite or out of range.
    """

    c_x: tuple[float, ...]
    c_eps: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "c_x", _checked("c_x", self.c_x))
        object.__setattr__(self, "c_eps", _checked("c_eps", self.c_eps))
        if len(self.c_x) != len(self.c_eps):
            raise CoefficientError(
                f"c_x has {len(self.c_x)} values and c_eps has {len(self.c_eps)}.",
                "give one of each per step",
                c_x=len(self.c_x),
                c_eps=len(self.c_eps),
            )

    def __len__(self) -> int:
        return len(self.c_x)

    @property
    def is_identity(self) -> bool:
        return all(value == 1.0 for value in self.c_x + self.c_eps)

    @classmethod
    def identity(cls, steps: int) -> Coefficients:
        """All ones: the stock sampler, bit for bit."""
        return cls((1.0,) * steps, (1.0,) * steps)

    @classmethod
    def constant(cls, steps: int, *, c_x: float = 1.0, c_eps: float = 1.0) -> Coefficients:
        """The same two numbers at every step."""
        return cls.ramp(steps, c_x=(c_x, c_x), c_eps=(c_eps, c_eps))

    @classmethod
    def ramp(
        cls, steps: int, *, c_x: tuple[float, float] = (1.0, 1.0), c_eps: tuple[float, float] = (1.0, 1.0)
    ) -> Coefficients:
        """Straight lines from the (first, last) value; the paper searches the first and pins the last to 1."""
        return cls(_line(c_x, steps), _line(c_eps, steps))

    def resample(self, steps: int) -> Coefficients:
        """The same curves over another number of steps, linear between the old ones; both ends are kept."""
        if steps == len(self):
            return self
        places = _line((0.0, len(self) - 1.0), steps)
        return Coefficients(
            tuple(_interpolate(self.c_x, place) for place in places),
            tuple(_interpolate(self.c_eps, place) for place in places),
        )

    def take(self, steps: int) -> Coefficients:
        """The first ``steps`` pairs in order; where there are too few, the last one goes on."""
        if steps < 1:
            raise CoefficientError(f"{steps} steps cannot be sampled.", "use 1 or more", steps=steps)
        more = max(0, steps - len(self))
        return Coefficients(
            self.c_x[:steps] + self.c_x[-1:] * more,
            self.c_eps[:steps] + self.c_eps[-1:] * more,
        )

    def blend(self, strength: float) -> Coefficients:
        """0 is the identity, 1 is as is; between and beyond it is linear: 1 + strength·(c - 1)."""
        if not math.isfinite(strength):
            raise CoefficientError(
                f"strength is {strength}.", "use a finite number, 1 is as calibrated", strength=strength
            )
        if strength == 1.0:
            return self
        return Coefficients(
            tuple(1.0 + strength * (value - 1.0) for value in self.c_x),
            tuple(1.0 + strength * (value - 1.0) for value in self.c_eps),
        )

    def at(self, step: int) -> tuple[float, float]:
        """(c_x, c_eps) of one step."""
        return self.c_x[step], self.c_eps[step]

    def for_sigmas(self, own: Sequence[float], run: Sequence[float]) -> Coefficients:
        """The coefficients for the steps of a run that may be a part of the schedule they were made for.

        ``own`` and ``run`` are descending sigmas, n + 1 each, the last ends the last step. As many steps from the
        same first sigma are taken as the same schedule (perhaps with another shift). All else (denoise < 1, start
        or end step, split sampling, other steps) is looked up by sigma: exactly at a known one, linear between two.
        """
        steps = len(run) - 1
        whole = math.isclose(float(run[0]), float(own[0]), rel_tol=SAME_SIGMA)
        if (steps == len(self) and whole) or len(own) != len(self) + 1:
            return self.resample(steps)
        ascending = [float(sigma) for sigma in own[:-1]][::-1]
        places = [len(self) - 1 - _place(ascending, float(sigma)) for sigma in run[:-1]]
        return Coefficients(
            tuple(_interpolate(self.c_x, place) for place in places),
            tuple(_interpolate(self.c_eps, place) for place in places),
        )


def _checked(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise CoefficientError(f"{name} is not a list of numbers.", "give one number per step", name=name) from error
    if not 1 <= len(numbers) <= MAX_STEPS:
        raise CoefficientError(f"{name} has {len(numbers)} values.", f"give 1 to {MAX_STEPS}, one per step", name=name)
    for step, value in enumerate(numbers):
        if not (math.isfinite(value) and LIMITS[0] <= value <= LIMITS[1]):
            raise CoefficientError(
                f"{name}[{step}] is {value:g}.",
                f"use finite values in [{LIMITS[0]}, {LIMITS[1]}]",
                name=name,
                value=value,
            )
    return numbers


def _line(ends: tuple[float, float], steps: int) -> tuple[float, ...]:
    first, last = ends
    if steps <= 1:
        return (first,) * steps
    # The last value as given, not as computed: rounding would miss it, and 1 must stay exactly 1.
    return (*(first + (last - first) * i / (steps - 1) for i in range(steps - 1)), last)


def _interpolate(values: Sequence[float], place: float) -> float:
    left = min(int(place), len(values) - 1)
    right = min(left + 1, len(values) - 1)
    part = place - left
    return values[left] if part == 0 else values[left] + part * (values[right] - values[left])


def _place(ascending: Sequence[float], value: float) -> float:
    """Fractional index of ``value`` in an ascending list, clamped to its ends."""
    right = bisect_left(ascending, value * (1 - 1e-6))
    if right >= len(ascending):
        return len(ascending) - 1.0
    if right == 0 or abs(ascending[right] - value) <= 1e-6 * abs(value):
        return float(right)
    left = right - 1
    return left + (value - ascending[left]) / (ascending[right] - ascending[left])
