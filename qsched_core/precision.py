"""The precision of each sampling step: how finely activations are rounded there, and by which model's weights."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .coefficients import MAX_STEPS, same_sigma
from .errors import QuantizationError, SamplingError
from .schedule import check_schedule

ACTIVATION_BITS = (4, 8, 16)
"""What activations may be rounded to; 16: they stay in floating point."""

LAST_STEP_BITS = 8
"""Of the last steps: with 8 bits in the last of four, two trained nets at W4A4 kept 95 and 94 % of what four bits take
from JAQ, without them 84 and 81 %."""

MAX_MODELS = 8
"""In one plan. What pays are neighbours in precision: W4A4, W4A8, W8A8, float."""

_MIN_OVERLAP = 0.5
"""A step of a run gets the bits of an own step when it covers this share of it, or is covered in this share by it."""

_STEP = re.compile(r"([1-9]\d?)(?:a(4|8|16))?", re.ASCII)


@dataclass(frozen=True)
class Precision:
    """The precision of each step of a schedule: a plan.

    ``activation_bits[i]`` hold from ``sigmas[i]`` down to ``sigmas[i + 1]``: n of ``ACTIVATION_BITS`` for n + 1 falling
    sigmas. They are the least: a layer whose own format has more bits keeps them, so 4 is each layer's own.
    ``models[i]`` is the number, from 0, of the model that evaluates the step, where there are several of one source; an
    empty tuple, or 0 everywhere, is one model throughout.

    Raises:
        QuantizationError: other bits or models, or another number of them.
        SamplingError: sigmas that do not fall.
    """

    activation_bits: tuple[int, ...]
    sigmas: tuple[float, ...]
    models: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation_bits", tuple(self.activation_bits))
        object.__setattr__(self, "sigmas", tuple(float(sigma) for sigma in self.sigmas))
        models = tuple(self.models)
        check_schedule(self.sigmas, "the precision's schedule", strict=True)
        for step, bits in enumerate(self.activation_bits):
            if type(bits) is not int or bits not in ACTIVATION_BITS:
                raise QuantizationError(f"step {step + 1} has {bits!r} activation bits.", "use 4, 8 or 16", step=step)
        for step, number in enumerate(models):
            if type(number) is not int or not 0 <= number < MAX_MODELS:
                raise QuantizationError(f"step {step + 1} has model {number!r}.", f"use 0 to {MAX_MODELS - 1}")
        object.__setattr__(self, "models", models if any(models) or not self.activation_bits else ())
        steps = len(self.sigmas) - 1
        if (count := len(self.activation_bits)) != steps:
            raise QuantizationError(
                f"activation bits and steps differ in number: {count} and {steps}.", "give one per step", steps=steps
            )
        if models and len(models) != steps:
            raise QuantizationError(
                f"models and steps differ in number: {len(models)} and {steps}.", "give one per step", steps=steps
            )

    def __len__(self) -> int:
        return len(self.activation_bits)

    @property
    def model_count(self) -> int:
        """How many models the plan needs at least."""
        return 1 + max(self.models, default=0)

    @property
    def is_plain(self) -> bool:
        """Whether it asks for nothing: one model, each layer with its own bits."""
        return not self.models and set(self.activation_bits) == {ACTIVATION_BITS[0]}

    @classmethod
    def last_steps(cls, sigmas: Sequence[float], count: int, bits: int = LAST_STEP_BITS) -> Precision:
        """``bits`` in the last ``count`` steps of a schedule, 4 before. A schedule that stops above sigma 0 is
        the start of another one: the last steps of the picture are not among its own."""
        if count < 0:
            raise QuantizationError(f"{count} last steps.", "use 0 (none) or more", count=count)
        steps = len(sigmas) - 1
        wide = min(count, steps) if float(sigmas[-1]) == 0.0 else 0
        return cls((ACTIVATION_BITS[0],) * (steps - wide) + (bits,) * wide, tuple(sigmas))

    def step_at(self, sigma: float) -> int:
        """The step of an evaluation at this sigma; above and below the schedule its first and its last. A sigma between
        two belongs to the step that passes it, and one that starts a step to that step."""
        step = 0
        for place, start in enumerate(self.sigmas[:-1]):
            if sigma <= start or same_sigma(sigma, start):
                step = place
        return step

    def bits_at(self, sigma: float) -> int:
        """The bits of an evaluation at this sigma, see ``step_at``."""
        return self.activation_bits[self.step_at(sigma)]

    def model_at(self, sigma: float) -> int:
        """The model of an evaluation at this sigma, see ``step_at``."""
        return self.models[self.step_at(sigma)] if self.models else 0

    def for_sigmas(self, run: Sequence[float]) -> Precision:
        """The plan for the steps of a run on other sigmas (m + 1,).

        A step gets the most bits of the own steps that it covers by half, or that cover half of it: fewer steps never
        lose a wide one. It gets the model of the own step that covers most of it, of two alike the later one: models
        have no order that could be counted on, and what the later steps lose is what remains in the picture.
        """
        run = tuple(float(sigma) for sigma in run)
        if len(run) == len(self.sigmas) and all(map(same_sigma, run, self.sigmas)):
            return Precision(self.activation_bits, run, self.models)
        ends = list(zip(run, run[1:], strict=False))
        models = tuple(self._model_between(*step) for step in ends) if self.models else ()
        return Precision(tuple(self._bits_between(*step) for step in ends), run, models)

    def text(self) -> str:
        """The steps as ``read_steps`` reads them: ``1, 1, 1a8, 2``."""
        models = self.models or (0,) * len(self)
        return ", ".join(step_text(*step) for step in zip(models, self.activation_bits, strict=True))

    def as_json(self) -> str:
        """For a file's metadata, see ``read_json``."""
        return json.dumps({"bits": self.activation_bits, "models": self.models, "sigmas": self.sigmas})

    @classmethod
    def read_json(cls, text: str) -> Precision:
        """What ``as_json`` wrote, out of a file that may be a stranger's.

        Raises:
            QuantizationError: anything else.
        """
        try:
            if len(text) > 64 * MAX_STEPS:
                raise ValueError("too long")
            value = json.loads(text)
            numbers = {name: tuple(value[name]) for name in ("bits", "models", "sigmas")}
            if len(numbers["sigmas"]) > MAX_STEPS + 1 or any(isinstance(s, (str, bool)) for s in numbers["sigmas"]):
                raise ValueError("no sigmas")
            return cls(numbers["bits"], numbers["sigmas"], numbers["models"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise QuantizationError("this file's plan of the steps is damaged.", "download or save it again") from error

    def _overlaps(self, start: float, end: float) -> list[tuple[int, float, float]]:
        """(own step, its part between two sigmas, its length) of the own steps that have one."""
        overlaps = []
        for step, (above, below) in enumerate(zip(self.sigmas, self.sigmas[1:], strict=False)):
            overlap = min(start, above) - max(end, below)
            if overlap > 0:
                overlaps.append((step, overlap, above - below))
        return overlaps

    def _bits_between(self, start: float, end: float) -> int:
        bits = [self.bits_at(start)]
        for step, overlap, length in self._overlaps(start, end):
            if overlap >= _MIN_OVERLAP * min(length, start - end) * (1 - 1e-6):
                bits.append(self.activation_bits[step])
        return max(bits)

    def _model_between(self, start: float, end: float) -> int:
        overlaps = self._overlaps(start, end)
        if not overlaps:
            return self.model_at(start)
        most = max(overlap for _, overlap, _ in overlaps)
        # Sums of sigmas are not exact: what is as long but for the last digits is as long.
        return self.models[max(step for step, overlap, _ in overlaps if overlap >= most * (1 - 1e-6))]


@dataclass(frozen=True)
class LastSteps:
    """The plan that needs no schedule: 8-bit activations in the last ``count`` steps of whatever run."""

    count: int

    def for_sigmas(self, run: Sequence[float]) -> Precision:
        return Precision.last_steps(run, self.count)


def in_run(plan: Precision | LastSteps, run: Sequence[float]) -> Precision | None:
    """A plan's precision in a run on any list of sigmas. What is no schedule (sampling backwards, equal sigmas) has no
    steps to be found: a plan with sigmas of its own holds by those, of the last steps there are none."""
    try:
        check_schedule(run, strict=True)
    except SamplingError:
        return plan if hasattr(plan, "bits_at") else None
    return plan.for_sigmas(run)


def step_text(model: int, bits: int) -> str:
    """As ``read_steps`` reads it: ``2`` is the second model as it is, ``2a8`` with activations of 8 bits or more."""
    return f"{model + 1}{'' if bits == ACTIVATION_BITS[0] else f'a{bits}'}"


def read_steps(text: str, models: int) -> tuple[tuple[int, int], ...]:
    """(model from 0, activation bits) of each step of ``1, 1, 1a8, 2``; ``models`` are so many.

    Raises:
        QuantizationError: no step, too many, or one that is not written so.
    """
    words = [word for word in re.split(r"[\s,;]+", text.strip()) if word]
    if not 1 <= len(words) <= MAX_STEPS:
        raise QuantizationError(f"the plan has {len(words)} steps.", "write a model for each, for example 1, 1, 1, 2")
    steps = []
    for word in words:
        match = _STEP.fullmatch(word)
        if match is None:
            raise QuantizationError(
                f"step {word[:20]!r} of the plan cannot be read.",
                "write a model's number, with a8 behind it for 8-bit activations: 1, 1, 1a8, 2",
            )
        number = int(match[1])
        if number > models:
            fix = "plug it in, or write a lower number"
            if models == 1:
                raise QuantizationError(f"the plan names model {number}, and one model is plugged in.", fix)
            raise QuantizationError(f"the plan names model {number}, and {models} models are plugged in.", fix)
        steps.append((number - 1, int(match[2] or ACTIVATION_BITS[0])))
    return tuple(steps)
