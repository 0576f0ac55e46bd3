"""A preset's two curves for the page: with a node's result, and of a file that was just chosen."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ...qsched_core import load_preset
from ..host.folders import PRESETS_FOLDER, file_path
from ..host.server import page_server


def curve(preset, strength: float = 1.0) -> dict:
    """What a node adds to its ``ui``, so that the page draws the preset on it; no preset takes the drawing away."""
    return {"qsched_curve": [] if preset is None else [_values(preset, strength)]}


def add_curve_route() -> None:
    """GET /qsched/curve?preset=NAME; nothing where no server runs. To be called once, as the pack is loaded."""
    server = page_server()
    if server is None:
        return

    @server.routes.get("/qsched/curve")
    async def of_file(request: web.Request) -> web.Response:
        try:
            name = request.query.get("preset", "")
            preset = await asyncio.to_thread(lambda: load_preset(file_path(PRESETS_FOLDER, name)))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.json_response(_values(preset, 1.0))


def _values(preset, strength: float) -> dict:
    coefficients = preset.coefficients.blend(strength)
    return {"c_x": list(coefficients.c_x), "c_eps": list(coefficients.c_eps), "sigmas": list(preset.sigmas)}
