"""The pack's nodes: glue between the host and the core. The only Python here that imports ``comfy*``.

All that this file imports is loaded at every start of ComfyUI, whether a graph has our nodes or not. So a node's file,
and a wing's routes, import what their schema and their addresses need; their work lies in the wing and is imported
where it is done. tests/host/test_start.py holds that.
"""

from __future__ import annotations

import asyncio

from comfy_api.latest import ComfyExtension, io

from . import (
    apply,
    arena,
    calibrate,
    calibration_settings,
    coefficients,
    demo_model,
    environment_check,
    jaq_metric,
    observe_layers,
    precision_schedule,
    presets,
    prompts,
    quantize_model,
    quantize_vae,
    sampler,
    sensitivity,
    step_sensitivity,
    text_encoder,
)
from .calibrating.routes import add_history_route
from .host.folders import register_folders, sweep_folders
from .library.routes import add_library_routes
from .renamed import register_renamed
from .voting.routes import add_arena_routes


class QSchedExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_folders()
        add_history_route()
        add_library_routes()
        add_arena_routes()
        await register_renamed()
        await asyncio.to_thread(sweep_folders)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        files = (
            quantize_model,
            text_encoder,
            quantize_vae,
            observe_layers,
            sensitivity,
            step_sensitivity,
            precision_schedule,
            sampler,
            apply,
            calibrate,
            calibration_settings,
            prompts,
            jaq_metric,
            coefficients,
            presets,
            demo_model,
            environment_check,
            arena,
        )
        return [node for file in files for node in file.NODES]
