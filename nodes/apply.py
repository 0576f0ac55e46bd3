"""Q-Sched for every sampler node there is: on the MODEL, or on the SAMPLER."""

from __future__ import annotations

from comfy_api.latest import io

from ..qsched_core.choices import IF_DIFFERS
from .host.progress import node_id, node_kind
from .host.reports import keep_output
from .library.curve import curve
from .sampling.sampler_menu import TCD_ETA, tcd_sampler
from .sockets import CATEGORY, PresetSocket


def preset_inputs(optional: bool = False) -> tuple[list, list]:
    """(The preset's socket, what a node asks about its use): the same words on every node."""
    socket = PresetSocket.Input(
        "preset", optional=optional, tooltip="From JAQ Calibrate, Load Q-Sched Preset or Q-Sched Coefficients."
    )
    strength = io.Float.Input(
        "strength",
        default=1.0,
        min=-1.0,
        max=2.0,
        step=0.05,
        advanced=True,
        tooltip="How much of the preset: 0 is the stock sampler, 1 as calibrated, beyond 1 exaggerates.",
    )
    choice = io.Combo.Input(
        "if_preset_differs",
        options=list(IF_DIFFERS),
        default=IF_DIFFERS[0],
        advanced=True,
        tooltip="When preset and use do not fit. resample: in order where it is the same schedule under another shift, "
        "else each range of sigma keeps its effect; use as is: in order, whatever the sigmas; refuse: stop. What "
        "differs is said.",
    )
    return [socket], [strength, choice]


class QSchedApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        socket, use = preset_inputs()
        return io.Schema(
            node_id="QSchedApply",
            display_name="Apply Q-Sched",
            category=CATEGORY,
            description="MODEL + preset -> MODEL: every sampler node then samples with the preset, KSampler and "
            "KSamplerAdvanced included. A second one replaces the first.",
            search_aliases=["preset", "patch model", "ksampler", "fp8", "gguf", "quantization-aware", "schedule"],
            inputs=[io.Model.Input("model", tooltip="Any model, quantised by whatever means."), *socket, *use],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, sampled with the preset.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, preset, strength, if_preset_differs) -> io.NodeOutput:
        from .sampling.patch import PresetUse, model_with

        use = PresetUse(preset, strength, if_preset_differs, node_id(cls), kind=node_kind(cls))
        patched_model = model_with(model, use)
        return io.NodeOutput(patched_model, ui=keep_output(cls, curve(preset, strength)))


class QSchedSamplerSelect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        socket, use = preset_inputs()
        return io.Schema(
            node_id="QSchedSamplerSelect",
            display_name="Q-Sched Sampler Select",
            category=CATEGORY,
            description="SAMPLER + preset -> SAMPLER, for SamplerCustom and SamplerCustomAdvanced. Wraps whatever "
            "SAMPLER is plugged in; a preset on the MODEL is then not used.",
            search_aliases=["sampler select", "custom sampler", "preset", "ksamplerselect", "schedule"],
            inputs=[io.Sampler.Input("sampler", tooltip="From KSamplerSelect or any other node."), *socket, *use],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="The same sampler, driven by the preset.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, sampler, preset, strength, if_preset_differs) -> io.NodeOutput:
        from .sampling.patch import PresetUse, sampler_with

        use = PresetUse(preset, strength, if_preset_differs, node_id(cls), kind=node_kind(cls))
        preset_sampler = sampler_with(sampler, use)
        return io.NodeOutput(preset_sampler, ui=keep_output(cls, curve(preset, strength)))


class QSchedSamplerTCD(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedSamplerTCD",
            display_name="Sampler TCD",
            category=CATEGORY,
            description="Trajectory consistency sampling (arXiv 2402.19159), for TCD, PCM and Hyper-SD models.",
            search_aliases=["tcd", "pcm", "hyper-sd", "trajectory consistency", "sampler"],
            inputs=[
                io.Float.Input(
                    "eta",
                    default=TCD_ETA,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of each step is fresh noise (gamma in the paper): 0 none, 1 as LCM.",
                )
            ],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustom or Q-Sched Sampler Select.")],
        )

    @classmethod
    def execute(cls, eta) -> io.NodeOutput:
        return io.NodeOutput(tcd_sampler(eta))


NODES = [QSchedApply, QSchedSamplerSelect, QSchedSamplerTCD]
