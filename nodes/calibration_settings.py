"""Calibration Settings: what few people change of a calibration, and what stands in for widgets of JAQ Calibrate."""

from __future__ import annotations

from comfy_api.latest import io

from ..calibration.choices import AUTOMATIC, SPACES
from .sockets import CATEGORY, CalibrationSettingsSocket, MetricSocket, PromptsSocket

MENU_STRATEGIES = ("guided", "grid", "greedy")
"""Strategies; the others of ``calibration.choices`` are there for benchmarks."""


class QSchedCalibrationSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedCalibrationSettings",
            display_name="Calibration Settings",
            category=CATEGORY,
            description="For JAQ Calibrate: how it searches and how long, and what stands in for its widgets - a list "
            "of prompts, other scores, a sampler, sigmas or guider of your graph. Without it all is automatic.",
            search_aliases=["calibration options", "search settings", "strategy", "grid search", "budget", "qsched"],
            inputs=[
                PromptsSocket.Input(
                    "prompt_set",
                    optional=True,
                    tooltip="From Q-Sched Prompts, instead of JAQ Calibrate's text: lists, files, conditionings of "
                    "your own, and a second set for the verdict.",
                ),
                MetricSocket.Input(
                    "jaq_metric",
                    optional=True,
                    tooltip="From JAQ Metric, instead of metric: any TC with any IQ.",
                ),
                io.Sampler.Input("sampler", optional=True, tooltip="Instead of sampler_name: any SAMPLER."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="Instead of steps and scheduler: any SIGMAS."),
                io.Guider.Input(
                    "guider",
                    optional=True,
                    tooltip="Instead of cfg and negative: its kind of guidance, on JAQ Calibrate's model and prompts.",
                ),
                io.Int.Input(
                    # Not "seed": the front end would make a new one for every run, and no run would be resumed.
                    "search_seed",
                    default=0,
                    min=0,
                    max=2**53,
                    optional=True,
                    tooltip="Of noises, of the search and of the split. The same seed finds its unfinished run again.",
                ),
                io.Int.Input(
                    "verdict_seeds",
                    default=0,
                    min=0,
                    max=100,
                    optional=True,
                    tooltip="Noises per held-out prompt; 0: as many as make 48 pictures, at most 4.",
                ),
                io.Combo.Input(
                    "space",
                    options=[AUTOMATIC, *SPACES],
                    optional=True,
                    tooltip="What is searched: the first and last value of both curves, or fewer numbers. automatic: "
                    "both ends with a reference, the first step (the paper's) without.",
                ),
                io.Float.Input(
                    "radius",
                    default=0.0,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    optional=True,
                    tooltip="How far from 1 a coefficient may go; 0: automatic, 0.2 with a reference, 0.1 without. "
                    "Beyond 0.2 the scores are easily gamed.",
                ),
                io.Float.Input(
                    "k",
                    default=2.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="JAQ = TC + k * IQ; 2 in the paper.",
                ),
                io.Combo.Input(
                    "strategy",
                    options=list(MENU_STRATEGIES),
                    optional=True,
                    tooltip="guided: learns the landscape, the cheapest by far. grid: the paper's, exhaustive. "
                    "greedy: one step after the other, needs the space table.",
                ),
                io.Boolean.Input(
                    "race",
                    default=True,
                    optional=True,
                    tooltip="Candidates that some prompts show to be worse than the best are not tried on the others.",
                ),
                io.Int.Input(
                    "grid",
                    default=10,
                    min=2,
                    max=200,
                    optional=True,
                    tooltip="Of the strategy grid: points per number. The paper's script has 50.",
                ),
                io.Int.Input(
                    "most_pictures",
                    default=0,
                    min=0,
                    max=10_000_000,
                    optional=True,
                    tooltip="The search ends when it has made as many; 0: when all trials are done.",
                ),
                io.Float.Input(
                    "most_minutes",
                    default=0.0,
                    min=0.0,
                    max=100_000.0,
                    step=1.0,
                    optional=True,
                    tooltip="The search ends after as long; 0: when all trials are done. The verdict comes on top.",
                ),
                io.Boolean.Input(
                    "normalised",
                    default=False,
                    optional=True,
                    tooltip="TC and IQ in units of what each varies by from noise to noise: k then weighs equals.",
                ),
                io.Boolean.Input(
                    "stay_near",
                    default=True,
                    optional=True,
                    tooltip="With a reference: no candidate wins whose pictures are farther from the reference's than "
                    "the quantised ones are.",
                ),
            ],
            outputs=[CalibrationSettingsSocket.Output(display_name="settings", tooltip="For JAQ Calibrate.")],
        )

    @classmethod
    def execute(cls, **settings) -> io.NodeOutput:
        from .calibrating.options import CalibrationSettings

        return io.NodeOutput(CalibrationSettings(**settings))


NODES = [QSchedCalibrationSettings]
