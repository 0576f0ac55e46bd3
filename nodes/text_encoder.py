"""Quantize Text Encoder W4A8: CLIP -> a smaller CLIP, and how near its conditioning is to the full one's."""

from __future__ import annotations

from comfy_api.latest import io

from ..qsched_core import QuantizationError
from ..qsched_core.quant.formats import FORMATS
from .host.progress import layer_progress
from .host.reports import keep_output
from .quantization.group_sizes import GROUPS, group_size_input
from .quantize_model import patterns_of
from .sockets import CATEGORY

PROMPTS = "a red fox in the snow\nportrait of an old fisherman, oil on canvas\na street sign that reads OPEN"


class QSchedQuantizeTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedQuantizeTextEncoder",
            display_name="Quantize Text Encoder W4A8",
            category=CATEGORY,
            description="Packs the layers of a loaded text encoder (CLIP, T5, Qwen, Gemma, Llama) into 4 or 8 bits. "
            "The given CLIP stays as it is; LoRAs and CLIP skip work before and after. The report compares its "
            "conditioning with the full one's on your prompts.",
            search_aliases=["clip", "t5", "qwen", "gemma", "text encoder", "quantize", "low vram", "int4", "w4a8"],
            inputs=[
                io.Clip.Input("clip", tooltip="As it was loaded, in FP16, BF16 or fp8, with the LoRAs you use."),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="w4a8",
                    tooltip="Bits of weights (w) and activations (a). w4a16 takes as much memory as w4a8 and leaves "
                    "activations alone; w8a8 is nearly lossless.",
                ),
                group_size_input(),
                io.String.Input(
                    "exclude",
                    default="",
                    advanced=True,
                    tooltip="Layers to leave alone (fnmatch, comma separated), for example clip_l.*",
                ),
                io.String.Input(
                    "prompts",
                    default=PROMPTS,
                    multiline=True,
                    tooltip="One per line: both encoders read them, and the report says how near their conditionings "
                    "are. Empty: no comparison.",
                ),
            ],
            outputs=[
                io.Clip.Output(display_name="clip", tooltip="The quantised text encoder."),
                io.String.Output(
                    display_name="report", tooltip="What was quantised, the size, and the cosine to the full encoder."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, clip, format, group_size, exclude, prompts) -> io.NodeOutput:
        from .quantization.backends import text_job_for
        from .quantization.text_encoder import quantized_clip

        if clip is None:
            fix = "load one with Load CLIP, and plug that in"
            raise QuantizationError("this checkpoint has no text encoder.", fix)
        job = text_job_for(clip.patcher, format, GROUPS[group_size], exclude=patterns_of(exclude))
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        twin, text = quantized_clip(clip, job, lines, layer_progress(cls))
        return io.NodeOutput(twin, text, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedQuantizeTextEncoder]
