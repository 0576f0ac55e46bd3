"""Q-Sched Coefficients: make a preset by hand, or change one."""

from __future__ import annotations

from comfy_api.latest import io

from .host.reports import keep_output
from .library.curve import curve
from .sockets import CATEGORY, PrecisionSocket, PresetSocket


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
                        io.DynamicCombo.Option("as plugged in", []),
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
                PrecisionSocket.Input(
                    "precision",
                    optional=True,
                    tooltip="From Step Sensitivity or Precision Schedule: the plan of the steps' precision is saved in "
                    "the preset, and sampling with the preset follows it.",
                ),
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="For any Q-Sched node, or to save."),
                io.String.Output(display_name="report", tooltip="The values, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, form, strength, sigmas=None, preset=None, precision=None) -> io.NodeOutput:
        from .library.card import describe_preset
        from .library.preset_by_hand import make

        result = make(form, strength, sigmas, preset, precision)
        text = describe_preset(result)
        return io.NodeOutput(result, text, ui=keep_output(cls, {"text": [text], **curve(result)}))


def _value(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.5, max=1.5, step=0.001, round=0.0001, tooltip=tooltip)


def _table(name: str) -> io.String.Input:
    return io.String.Input(name, default="1, 1, 1, 1", tooltip="One number per step, the noisiest first.")


NODES = [QSchedCoefficients]
