"""Quantize Text Encoder W4A8: CLIP -> a smaller CLIP and how near it stays; and that CLIP as a file."""

from __future__ import annotations

from comfy_api.latest import io

from ..qsched_core import PresetError, QuantizationError
from ..qsched_core.choices import COMPACT, RECIPES, STOCK
from ..qsched_core.quant.formats import FORMATS
from .host.folders import (
    STOCK_TEXT_FOLDER,
    TEXT_ENCODERS_FOLDER,
    file_names,
    file_path,
    file_stem,
    shown_folder,
    unused_path,
)
from .host.progress import layer_progress
from .host.reports import keep_output
from .quantization.group_sizes import GROUPS, group_size_input
from .quantize_model import patterns_of
from .sockets import CATEGORY

PROMPTS = "a red fox in the snow\nportrait of an old fisherman, oil on canvas\na street sign that reads OPEN"

STOCK_LOADERS = {1: "Load CLIP", 2: "Load CLIP (Dual)", 3: "TripleCLIPLoader", 4: "QuadrupleCLIPLoader"}
"""The host's, by how many files they take."""


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
                io.Combo.Input(
                    "recipe",
                    options=list(RECIPES),
                    default=COMPACT,
                    optional=True,
                    advanced=True,
                    tooltip="compact: every layer in our own packing; the saved file needs this pack. stock: in "
                    "ComfyUI's own formats; the saved file loads without this pack. T5, Qwen, Gemma and Llama: "
                    "ComfyUI reads CLIP-L and CLIP-G in floats alone, and they stay as they are.",
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
    def execute(cls, clip, format, group_size, exclude, prompts, recipe=COMPACT) -> io.NodeOutput:
        from .quantization.backends import stock_text_job_for, text_job_for
        from .quantization.encoder_families import read_in_floats
        from .quantization.text_encoder import quantized_clip

        if clip is None:
            fix = "load one with Load CLIP, and plug that in"
            raise QuantizationError("this checkpoint has no text encoder.", fix)
        more = {"exclude": patterns_of(exclude)}
        if recipe == STOCK:
            job = stock_text_job_for(clip.patcher, format, GROUPS[group_size], keep=read_in_floats(clip), **more)
        else:
            job = text_job_for(clip.patcher, format, GROUPS[group_size], recipe=recipe, **more)
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        twin, text = quantized_clip(clip, job, lines, layer_progress(cls))
        return io.NodeOutput(twin, text, ui=keep_output(cls, {"text": [text]}))


class QSchedSaveQuantizedTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedSaveQuantizedTextEncoder",
            display_name="Save Quantized Text Encoder",
            category=CATEGORY,
            description="Writes a quantised text encoder and its LoRAs, a quarter of the size. If it is in ComfyUI's "
            f"own formats alone, to your {STOCK_TEXT_FOLDER}, a file for each encoder, and Load CLIP reads them "
            f"without this pack; else to your folder of quantised text encoders ({TEXT_ENCODERS_FOLDER}), for Load "
            "Quantized Text Encoder. The files are loaded again and compared before they are called saved.",
            search_aliases=["save clip", "save text encoder", "export", "t5", "quantize", "int4", "w4a8"],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="From Quantize Text Encoder W4A8, with or without LoRAs and CLIP skip."),
                io.String.Input(
                    "name", default="my text encoder w4a8", tooltip="File name, without folder and suffix."
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="file name",
                    tooltip="As Load CLIP or Load Quantized Text Encoder lists it; of several files one a line.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, clip, name) -> io.NodeOutput:
        from .quantization.encoder_families import encoders_of
        from .quantization.encoder_files import lost_in_stock, save_encoder, save_stock_encoders
        from .quantization.file_values import is_native

        if clip is None:
            raise QuantizationError("there is no text encoder to save.", "plug in Quantize Text Encoder W4A8's clip")
        native = is_native(clip.patcher)
        obstacle = lost_in_stock(clip) if native else ""
        end = f". ComfyUI's own formats have no place for {obstacle}." if obstacle else "."
        if native and not obstacle:
            encoders = encoders_of(clip.cond_stage_model)
            names = [name] if len(encoders) == 1 else [f"{file_stem(name)} {encoder}" for encoder in encoders]
            paths = [unused_path(STOCK_TEXT_FOLDER, each) for each in names]
            clip_type = save_stock_encoders(clip, paths)
            end = f"; its type there is {clip_type}." if len(paths) < 3 else "."  # loaders of more have no menu of them
            reader = STOCK_LOADERS[len(paths)]
        else:
            paths = [unused_path(TEXT_ENCODERS_FOLDER, name)]
            save_encoder(clip, paths[0])
            reader = "Load Quantized Text Encoder"
        size = sum(path.stat().st_size for path in paths)
        files = ", ".join(path.name for path in paths)
        text = f"Saved {shown_folder(paths[0].parent)}/{files}, {size / 1e6:.1f} MB, for {reader}{end}"
        return io.NodeOutput("\n".join(path.name for path in paths), ui=keep_output(cls, {"text": [text]}))


class QSchedLoadQuantizedTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedLoadQuantizedTextEncoder",
            display_name="Load Quantized Text Encoder",
            category=CATEGORY,
            description="Loads a text encoder that Save Quantized Text Encoder wrote, all of its parts; the full-size "
            "one is not needed. The file is checked before anything is made of it.",
            search_aliases=["load clip", "clip loader", "t5", "quantized", "int4", "w4a8", "low vram"],
            inputs=[
                io.Combo.Input(
                    "encoder_name",
                    options=file_names(TEXT_ENCODERS_FOLDER),
                    tooltip=f"A file in your folder of quantised text encoders ({TEXT_ENCODERS_FOLDER}).",
                )
            ],
            outputs=[io.Clip.Output(display_name="clip", tooltip="The quantised text encoder.")],
        )

    @classmethod
    def fingerprint_inputs(cls, encoder_name) -> float | str:
        try:
            return file_path(TEXT_ENCODERS_FOLDER, encoder_name).stat().st_mtime
        except (PresetError, OSError):
            return encoder_name

    @classmethod
    def execute(cls, encoder_name) -> io.NodeOutput:
        from .quantization.encoder_files import load_encoder

        return io.NodeOutput(load_encoder(file_path(TEXT_ENCODERS_FOLDER, encoder_name)))


NODES = [QSchedQuantizeTextEncoder, QSchedSaveQuantizedTextEncoder, QSchedLoadQuantizedTextEncoder]
