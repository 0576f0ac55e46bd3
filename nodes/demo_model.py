"""Demo Model: a small text-to-picture model of our own, so that the pack can be tried without a download."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import CATEGORY


class QSchedDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSchedDemoModel",
            display_name="Q-Sched Demo Model",
            category=CATEGORY,
            description="A toy FLUX-schnell, trained by us on flat drawings of 48 things: 128 x 128 pixels, 4 steps, "
            "cfg 1, euler / simple. Ask for things like: a large house left of a small boat on a sky background.",
            search_aliases=["demo", "try", "example", "toy model"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="5.8 M parameters, loaded like any FLUX-schnell."),
                io.Clip.Output(display_name="clip", tooltip="Knows some seventy words; others are all the same to it."),
                io.Vae.Output(display_name="vae", tooltip="A TAESD with 16 channels."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from .host.demo_model import load_model, load_text_encoder, load_vae

        return io.NodeOutput(load_model(), load_text_encoder(), load_vae())


NODES = [QSchedDemoModel]
