"""Quantize VAE: VAE -> a smaller VAE, and how near its pictures are to the full one's."""

from __future__ import annotations

from comfy_api.latest import io

from .host.progress import layer_progress
from .host.reports import keep_output
from .quantize_model import patterns_of
from .sockets import CATEGORY

FORMATS = ("w8a16", "w4a16")
"""A VAE is nearly all convolutions, and those leave activations alone in every format."""


class QSchedQuantizeVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedQuantizeVAE",
            display_name="Quantize VAE",
            category=CATEGORY,
            description="Packs the convolutions of a loaded VAE into 8 bits, nearly without loss, or 4. The given VAE "
            "stays as it is; tiled nodes and Save VAE work as before. The report compares both on your picture.",
            search_aliases=["vae", "quantize", "decoder", "autoencoder", "low vram", "int8", "w8a16", "restoration"],
            inputs=[
                io.Vae.Input("vae", tooltip="As it was loaded."),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=FORMATS[0],
                    tooltip="Bits of the weights: w8a16 half of FP16 and nearly lossless, w4a16 a quarter; look at the "
                    "report.",
                ),
                io.String.Input(
                    "exclude",
                    default="",
                    advanced=True,
                    tooltip="Layers to leave alone (fnmatch, comma separated), for example encoder.*",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture of yours: both VAEs encode and decode the first of the batch, and the report "
                    "says how near they are.",
                ),
            ],
            outputs=[
                io.Vae.Output(display_name="vae", tooltip="The quantised VAE."),
                io.String.Output(
                    display_name="report", tooltip="What was quantised, the size, and the PSNR to the full VAE."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, vae, format, exclude, image=None) -> io.NodeOutput:
        from .quantization.vae import quantized_vae  # the quantiser: ComfyUI starts without it

        twin, text = quantized_vae(vae, format, patterns_of(exclude), image, layer_progress(cls))
        return io.NodeOutput(twin, text, ui=keep_output(cls, {"text": [text]}))


NODES = [QSchedQuantizeVAE]
