"""The precision of each sampling step: how finely activations are rounded there, over the same packed weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .coefficients import same_sigma
from .errors import QuantizationError
from .schedule import check_schedule

ACTIVATION_BITS = (4, 8, 16)
"""What activations may be rounded to; 16: they stay in floating point."""

LAST_STEP_BITS = 8
"""Of the last steps: with 8 bits in the last of four, two trained nets at W4A4 kept 95 and 94 % of what four bits take
from JAQ, without them 84 and 81 %."""

_MIN_OVERLAP = 0.5
"""A step of a run gets the bits of an own step when it covers this share of it, or is covered in this share by it."""


@dataclass(frozen=True)
class Precision:
    """The least bits of activations in each step of a schedule.

    ``activation_bits[i]`` hold from ``sigmas[i]`` down to ``sigmas[i + 1]``: n of ``ACTIVATION_BITS`` for n + 1 falling
    sigmas. A layer whose own format has more bits keeps them.

    Raises:
        QuantizationError: other bits, or another number of them.
        SamplingError: sigmas that do not fall.
    """

    activation_bits: tuple[int, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation_bits", tuple(self.activation_bits))
        object.__setattr__(self, "sigmas", tuple(float(sigma) for sigma in self.sigmas))
        check_schedule(self.sigmas, "the precision's schedule", strict=True)
        for step, bits in enumerate(self.activation_bits):
            if type(bits) is not int or bits not in ACTIVATION_BITS:
                raise QuantizationError(f"step {step + 1} has {bits!r} activation bits.", "use 4, 8 or 16", step=step)
        if len(self.activation_bits) != len(self.sigmas) - 1:
            count, steps = len(self.activation_bits), len(self.sigmas) - 1
            raise QuantizationError(f"{count} activation bits for {steps} steps.", "give one per step", steps=steps)

    def __len__(self) -> int:
        return len(self.activation_bits)

    @classmethod
    def last_steps(cls, sigmas: Sequence[float], count: int, bits: int = LAST_STEP_BITS) -> Precision:
        """``bits`` in the last ``count`` steps of a schedule, 4 before. A schedule that stops above sigma 0 is
        the start of another one: the last steps of the picture are not among its own."""
        if count < 0:
            raise QuantizationError(f"{count} last steps.", "use 0 (none) or more", count=count)
        steps = len(sigmas) - 1
        wide = min(count, steps) if float(sigmas[-1]) == 0.0 else 0
        return cls((ACTIVATION_BITS[0],) * (steps - wide) + (bits,) * wide, tuple(sigmas))

    def bits_at(self, sigma: float) -> int:
        """The bits of an evaluation at this sigma; above and below the schedule those of its ends. A sigma between two
        belongs to the step that passes it, and one that starts a step to that step."""
        step = -1
        for place, start in enumerate(self.sigmas[:-1]):
            if sigma <= start or same_sigma(sigma, start):
                step = place
        return self.activation_bits[max(step, 0)]

    def for_sigmas(self, run: Sequence[float]) -> Precision:
        """The bits for the steps of a run on other sigmas (m + 1,). A step gets the most bits of the own steps that it
        covers by half, or that cover half of it: fewer steps never lose a wide one."""
        run = tuple(float(sigma) for sigma in run)
        if len(run) == len(self.sigmas) and all(map(same_sigma, run, self.sigmas)):
            return Precision(self.activation_bits, run)
        return Precision(tuple(self._between(*ends) for ends in zip(run, run[1:], strict=False)), run)

    def _between(self, start: float, end: float) -> int:
        bits = [self.bits_at(start)]
        for own, above, below in zip(self.activation_bits, self.sigmas, self.sigmas[1:], strict=False):
            overlap = min(start, above) - max(end, below)
            if overlap > 0 and overlap >= _MIN_OVERLAP * min(above - below, start - end) * (1 - 1e-6):
                bits.append(own)
        return max(bits)


def last_step_bits(run: Sequence[float], count: int, sigma: float) -> int:
    """The bits of an evaluation at ``sigma`` in a run, as ``Precision.last_steps``; for any list of sigmas: one that is
    no schedule (sampling backwards, equal sigmas) has no last steps."""
    if not all(math.isfinite(value) for value in run) or any(b >= a for a, b in zip(run, run[1:], strict=False)):
        return ACTIVATION_BITS[0]
    return Precision.last_steps(run, count).bits_at(sigma) if len(run) > 1 else ACTIVATION_BITS[0]
