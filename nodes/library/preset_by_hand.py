"""A preset that is written by hand, or made of another one."""

from __future__ import annotations

import math
import re

from ...qsched_core import CoefficientError, Coefficients, Precision, Preset, PresetError
from ...qsched_core.schedule import check_schedule

PLUGGED_IN = "as plugged in"
"""The form of the coefficients that the plugged in preset has."""


def make(form: dict, strength: float, sigmas, preset, precision=None) -> Preset:
    """The preset that the node's inputs describe. A plan ``precision`` takes the place of the preset's own.

    Raises:
        PresetError: nothing to take a schedule from, or no preset to keep.
        SamplingError: sigmas that are no schedule.
        CoefficientError: a table that is not one number per step, or a value out of its range.
    """
    if sigmas is not None:
        own = tuple(float(f"{sigma:.7g}") for sigma in sigmas.flatten().tolist())
    elif preset is not None:
        own = preset.sigmas
    else:
        raise PresetError("no schedule is plugged in.", "plug in SIGMAS, BasicScheduler's for example, or a preset")
    if len(own) < 2:
        raise PresetError(
            f"the schedule has {len(own)} sigma{'s' * (len(own) != 1)}.", "use at least one step", sigmas=own
        )
    check_schedule(own, "the SIGMAS input", strict=True)
    if form["form"] == PLUGGED_IN and preset is None:
        raise PresetError("no preset is plugged in to keep.", "plug one in, or choose another form")
    steps = len(own) - 1
    if form["form"] == PLUGGED_IN:
        coefficients = preset.coefficients.for_sigmas(preset.sigmas, own)
    else:
        coefficients = _SHAPES[form["form"]](form, steps)
    coefficients = coefficients.blend(strength)
    plan = getattr(preset, "precision", None) if precision is None else precision
    if plan is not None:
        plan = Precision(plan.activation_bits, plan.sigmas, plan.models).for_sigmas(own)
    if preset is None:
        return Preset(coefficients, own, precision=plan)
    if coefficients == preset.coefficients and own == preset.sigmas and precision is None:
        return preset
    return Preset(coefficients, own, preset.binding, precision=plan)


def _numbers(form: dict, name: str, steps: int) -> tuple[float, ...]:
    words = [word for word in re.split(r"[\s,;]+", form[name].strip()) if word]
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        raise CoefficientError(f"{name} is not a list of numbers.", "write 1.0, 0.98, 0.97", name=name) from None
    if len(numbers) != steps or not all(map(math.isfinite, numbers)):
        raise CoefficientError(
            f"{name} and the steps differ in number: {len(numbers)} and {steps}.",
            "write one finite number per step",
            name=name,
        )
    return numbers


_SHAPES = {
    "ramp": lambda form, steps: Coefficients.ramp(
        steps, c_x=(form["c_x_first"], form["c_x_last"]), c_eps=(form["c_eps_first"], form["c_eps_last"])
    ),
    "ramp to 1": lambda form, steps: Coefficients.ramp(steps, c_x=(form["c_x"], 1.0), c_eps=(form["c_eps"], 1.0)),
    "constant": lambda form, steps: Coefficients.constant(steps, c_x=form["c_x"], c_eps=form["c_eps"]),
    "table": lambda form, steps: Coefficients(_numbers(form, "c_x", steps), _numbers(form, "c_eps", steps)),
    "identity": lambda form, steps: Coefficients.identity(steps),
}
