"""Precision Schedule: several MODELs of one source and a plan of the steps -> one MODEL for any sampler node."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from .host.progress import node_id
from .host.reports import keep_output
from .sockets import CATEGORY, PrecisionSocket

MORE_MODELS = ("model_2", "model_3", "model_4")


def more_model_inputs() -> list[io.Model.Input]:
    """The sockets of the second and further models, the same on every node that has them."""
    return [
        io.Model.Input(
            name,
            optional=True,
            tooltip="Another model of the same source: in another format, from another file, or with other weights.",
        )
        for name in MORE_MODELS
    ]


class QSchedPrecisionSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedPrecisionSchedule",
            display_name="Precision Schedule",
            category=CATEGORY,
            description="Gives each sampling step the precision it needs: another of the models that are plugged in, "
            "or finer activations from the same weights. One MODEL comes out, for any sampler node.",
            search_aliases=[
                "precision per step",
                "mixed precision",
                "switch model",
                "two models",
                "high noise low noise",
                "refiner",
                "schedule",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The first model: number 1 in the plan."),
                io.String.Input(
                    "plan",
                    default="1, 1, 1, 1a8",
                    tooltip="The model of each step, noisiest first. a8 behind it: activations of 8 bits there, a16: "
                    "in floating point. 1, 1, 1, 2 takes the second model for the last of four steps.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.SCHEDULER_NAMES,
                    tooltip="As you sample: it tells at which noise the plan's steps lie. Other numbers of steps find "
                    "theirs by it.",
                ),
                *more_model_inputs(),
                PrecisionSocket.Input(
                    "precision",
                    optional=True,
                    tooltip="From Step Sensitivity: takes the place of the plan and the scheduler here.",
                ),
                io.Sigmas.Input("sigmas", optional=True, tooltip="The plan's schedule, in place of the scheduler's."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For any sampler node; LoRAs and presets may follow."),
                PrecisionSocket.Output(display_name="precision", tooltip="The plan, for Q-Sched Coefficients to save."),
                io.String.Output(display_name="report", tooltip="Each step's precision, what it costs, and the sizes."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, plan, scheduler, precision=None, sigmas=None, **more) -> io.NodeOutput:
        from .sampling.model_library import with_library
        from .sampling.plan_text import check_one_source, own_plan, schedule_text, written_plan

        models = [model, *(more[name] for name in MORE_MODELS if more.get(name) is not None)]
        check_one_source(models)
        if precision is None:
            precision = written_plan(plan, models, scheduler, sigmas)
        else:
            precision = own_plan(precision)
        scheduled = with_library(models, precision, node_id(cls))
        text = schedule_text(models, precision)
        return io.NodeOutput(scheduled, precision, text, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedPrecisionSchedule]
