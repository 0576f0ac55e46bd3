"""Q-Sched Coefficients: make a preset by hand, or change one."""

from __future__ import annotations

import math
import re

from comfy_api.latest import io

from ..qsched_core import CoefficientError, Coefficients, Preset, PresetError
from ..qsched_core.schedule import check_schedule
from .host.reports import keep_output
from .library.curve import curve
from .presets import describe_preset
from .sockets import CATEGORY, PresetSocket

PLUGGED_IN = "as plugged in"


class QSchedCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedCoefficients",
            display_name="Q-Sched Coefficients",
            category=CATEGORY,
            description="Makes a preset by hand for the sigmas that are plugged in, or changes a preset. What comes "
            "out counts as made by hand: the gain of a changed preset was never measured.",
            search_aliases=["preset", "edit", "ramp", "c_x", "c_eps", "schedule", "by hand"],
            inputs=[
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="The schedule to make it for, from BasicScheduler or any scheduler node.",
                ),
                PresetSocket.Input("preset", optional=True, tooltip="To change one, or to take its schedule."),
                io.DynamicCombo.Input(
                    "form",
                    options=[
                        io.DynamicCombo.Option(
                            "ramp",
                            [
                                _value("c_x_first", "Scales the sample at the first, noisiest step."),
                                _value("c_x_last", "Scales the sample at the last step."),
                                _value("c_eps_first", "Scales the network's output at the first, noisiest step."),
                                _value("c_eps_last", "Scales the network's output at the last step."),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "ramp to 1", [_value("c_x", "At the first step."), _value("c_eps", "At the first step.")]
                        ),
                        io.DynamicCombo.Option(
                            "constant", [_value("c_x", "At every step."), _value("c_eps", "At every step.")]
                        ),
                        io.DynamicCombo.Option("table", [_table("c_x"), _table("c_eps")]),
                        io.DynamicCombo.Option("identity", []),
                        io.DynamicCombo.Option(PLUGGED_IN, []),
                    ],
                    tooltip="The shape of both curves over the steps; the paper searches a ramp to 1.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-1.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Written into the preset: 0 is the identity, 1 the values as they are.",
                ),
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="For any Q-Sched node, or to save."),
                io.String.Output(display_name="report", tooltip="The values, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, form, strength, sigmas=None, preset=None) -> io.NodeOutput:
        result = make(form, strength, sigmas, preset)
        text = describe_preset(result)
        return io.NodeOutput(result, text, ui=keep_output(cls, {"text": [text], **curve(result)}))


def make(form: dict, strength: float, sigmas, preset) -> Preset:
    """The preset that the node's inputs describe.

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
        raise PresetError(f"the schedule has {len(own)} sigmas.", "use at least one step", sigmas=own)
    check_schedule(own, "the SIGMAS input", strict=True)
    if form["form"] == PLUGGED_IN and preset is None:
        raise PresetError("no preset is plugged in to keep.", "plug one in, or choose another form")
    steps = len(own) - 1
    if form["form"] == PLUGGED_IN:
        coefficients = preset.coefficients.for_sigmas(preset.sigmas, own)
    else:
        coefficients = _SHAPES[form["form"]](form, steps)
    coefficients = coefficients.blend(strength)
    if preset is None:
        return Preset(coefficients, own)
    if coefficients == preset.coefficients and own == preset.sigmas:
        return preset
    return Preset(coefficients, own, preset.binding)


def _numbers(form: dict, name: str, steps: int) -> tuple[float, ...]:
    words = [word for word in re.split(r"[\s,;]+", form[name].strip()) if word]
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        raise CoefficientError(f"{name} is not a list of numbers.", "write 1.0, 0.98, 0.97", name=name) from None
    if len(numbers) != steps or not all(map(math.isfinite, numbers)):
        raise CoefficientError(
            f"{name} has {len(numbers)} numbers for {steps} steps.", "write one finite number per step", name=name
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


def _value(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.5, max=1.5, step=0.001, round=0.0001, tooltip=tooltip)


def _table(name: str) -> io.String.Input:
    return io.String.Input(name, default="1, 1, 1, 1", tooltip="One number per step, the noisiest first.")


NODES = [QSchedCoefficients]
