"""The pack's nodes: glue between the host and the core. The only Python here that imports ``comfy*``."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import calibrate, demo_model, presets, quantize_model, sampler
from .folders import register_folders


class QSchedExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for file in (quantize_model, sampler, calibrate, presets, demo_model) for node in file.NODES]
