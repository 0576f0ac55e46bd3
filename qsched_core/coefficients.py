"""The parameters of Q-Sched: two positive numbers per sampling step (Frumkin & Marculescu, arXiv 2509.01624)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import CoefficientError

MAX_STEPS = 1000
"""Of a schedule: as many as diffusion models have timesteps in training."""

SAME_SIGMA = 0.02
"""Relative difference of two first sigmas that still begin one schedule: samplers and nodes shave a little off."""

COEFFICIENT_LIMITS = (0.1, 10.0)
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
                f"c_x and c_eps differ in number: {len(self.c_x)} and {len(self.c_eps)}.",
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
        """The coefficients for the steps of a run on other sigmas than those they were made for.

        ``own`` and ``run`` are descending sigmas, n + 1 each, the last ends the last step. As many steps between
        the same first and last sigma are taken as the same schedule (perhaps with another shift), and so are the steps
        of a part of it (start or end step, split sampling): both get their own values, bit for bit.

        All else (other steps, denoise < 1, a second pass) gets the same *effect over the same range of sigma*, however
        many steps lie in it. The published update from sigma a to b makes s·x + m·(b - a)·f of x, with s = c_x, m =
        c_eps and f the network's output: a straight line in sigma (of a flow: in time), along which f counts as
        constant. A part of the step, of the share w of its length, is then the w-th power of that map:

            s_w = s^w,    m_w = m · (1 - s^w) / ((1 - s) · w)    (m where s = 1)

        This is the motion dx/du = ln(s)·x + r·(b - a)·f, r = m·ln(s)/(s - 1), over the part u = 0…w of the step, solved
        with f constant. ln(s) per step and r are the same for every part, so all divisions follow one motion:

        - Exact, for any division: the product of c_x; all of it where f is constant along the step, which is what
          few-step models are trained for; and the motion itself on any model. (The exact model of a Gaussian, which
          contracts by P from a to b, contracts by s·P^r in one part as in sixteen.)
        - To first order only: what the published step itself does where f changes along it. It is one exponential Euler
          step of that motion, so its error halves when the parts are twice as many, as that of the plain sampler does.

        A jump is divided, a rate stays. (s^w with m_w = m·s^(w-1) would be exact for Euler where f follows the scale of
        x and s = m; on the demo model it keeps 68 % of the effect from 4 to 16 steps, this rule 84 %.)

        Whole own steps keep their values, and a step of the run that covers several own ones gets their product.
        Outside of the own sigmas c_x is 1, and c_eps that of the nearest step.
        """
        steps = len(run) - 1
        whole = math.isclose(float(run[0]), float(own[0]), rel_tol=SAME_SIGMA) and same_sigma(run[-1], own[-1])
        if (steps == len(self) and whole) or len(own) != len(self) + 1:
            return self.resample(steps)
        own = [float(sigma) for sigma in own]
        places = [_snapped(float(sigma), own) for sigma in run]
        pairs = [self._between(own, start, end) for start, end in zip(places, places[1:], strict=False)]
        return Coefficients(tuple(c_x for c_x, _ in pairs), tuple(c_eps for _, c_eps in pairs))

    def _between(self, own: Sequence[float], start: float, end: float) -> tuple[float, float]:
        """(c_x, c_eps) of a step from sigma ``start`` to ``end``: see ``for_sigmas``."""
        # What has no step of its own, above and below, has no jump.
        bounds = [max(start, own[0]), *own, min(end, own[-1])]
        c_x, c_eps = (1.0, *self.c_x, 1.0), (self.c_eps[0], *self.c_eps, self.c_eps[-1])
        # ``excess``: how much farther than by the network's plain output; of the identity it is 0 to the last bit.
        scale, distance, excess = 1.0, 0.0, 0.0
        for s, m, above, below in zip(c_x, c_eps, bounds, bounds[1:], strict=False):
            length = min(start, above) - max(end, below)
            if length <= 0:
                continue
            share = length / (above - below)
            if length == start - end and share == 1:
                return s, m
            power, log = s**share, math.log(s)
            # expm1: the differences from 1 of factors near 1 would be rounding alone.
            rate = m * math.expm1(share * log) / (share * math.expm1(log)) if log else m
            excess = power * excess + (power - 1) * distance + (rate - 1) * length
            scale, distance = scale * power, distance + length
        return scale, 1 + excess / (start - end) if start > end else 1.0


def _checked(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise CoefficientError(f"{name} is not a list of numbers.", "give one number per step", name=name) from error
    if not 1 <= len(numbers) <= MAX_STEPS:
        raise CoefficientError(f"{name} has {len(numbers)} values.", f"give 1 to {MAX_STEPS}, one per step", name=name)
    for step, value in enumerate(numbers):
        if not (math.isfinite(value) and COEFFICIENT_LIMITS[0] <= value <= COEFFICIENT_LIMITS[1]):
            raise CoefficientError(
                f"{name}[{step}] is {value:g}.",
                f"use finite values in [{COEFFICIENT_LIMITS[0]}, {COEFFICIENT_LIMITS[1]}]",
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


def same_sigma(a: float, b: float) -> bool:
    """Schedules differ in the last digits between devices; a flow's first sigma may be 1 or 0.9999."""
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4)


def _snapped(sigma: float, own: Sequence[float]) -> float:
    nearest = min(own, key=lambda value: abs(value - sigma))
    return nearest if same_sigma(nearest, sigma) else sigma
