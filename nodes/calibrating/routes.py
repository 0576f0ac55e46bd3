"""What is kept of a workflow's runs over HTTP, for pages that are reloaded or come back from another tab."""

from __future__ import annotations

from aiohttp import web

from ..host.server import page_server


def add_history_route() -> None:
    """GET /qsched/history?workflow=ID; nothing where no server runs. To be called once, as the pack is loaded."""
    server = page_server()
    if server is None:
        return

    @server.routes.get("/qsched/history")
    async def history(request: web.Request) -> web.Response:
        from .history import answer

        return web.json_response(answer(request.query.get("workflow")))
