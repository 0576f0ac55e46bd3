"""The presets over HTTP, for the page's own tab: list, match, rename, import, and a picture to share.

Only JSON or a file's bytes are taken, never a form that another site could send; the host refuses other origins.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import web

from ..qsched_core import QSchedError
from . import library
from .folders import FOLDER, file_names
from .matching import match, read_graph
from .page import page_server
from .share import share_picture

MOST_JSON, MOST_FILE = 256 * 1024, 2 * 1024**2


def add_library_routes() -> None:
    """Nothing where no server runs. To be called once, as the pack is loaded."""
    server = page_server()
    if server is None:
        return
    routes = server.routes

    @routes.get("/qsched/presets")
    async def presets(request: web.Request) -> web.Response:
        return await _answer(lambda: {"presets": library.entries()})

    @routes.post("/qsched/presets/match")
    async def matches(request: web.Request) -> web.Response:
        told = await _json(request)
        return await _answer(lambda: matched(told))

    @routes.post("/qsched/presets/rename")
    async def rename(request: web.Request) -> web.Response:
        told = await _json(request)
        names = [told.get(key) for key in ("name", "new_name")]
        if not all(isinstance(name, str) and len(name) <= 1000 for name in names):
            raise _refusal(web.HTTPBadRequest, "name and new_name are texts.")
        return await _answer(lambda: {"name": library.rename(*names)})

    @routes.post("/qsched/presets/import")
    async def import_file(request: web.Request) -> web.Response:
        name, content = await _file(request)
        return await _answer(lambda: {"name": library.import_preset(name, content)})

    @routes.get("/qsched/presets/picture")
    async def picture(request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        try:
            content = await asyncio.to_thread(lambda: share_picture(library.load(name)))
        except QSchedError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.Response(body=content, content_type="image/png")


def matched(told: object) -> dict:
    """What is known of a graph's model, and of every preset whether it fits: ``fits`` is None where that is not known
    before a run."""
    graph = read_graph(told)
    found = {}
    for name in file_names(FOLDER)[: library.MOST]:
        try:
            result = match(library.load(name), graph)
        except QSchedError:
            continue  # the list says why
        differs = [{"what": item.what, "preset": item.preset, "here": item.here} for item in result.differs]
        found[name] = {"fits": result.fits, "differs": differs, "unknown": list(result.unknown)}
    families = list(dict.fromkeys(model.family for model in graph.models))
    return {"models": families, "formats": list(dict.fromkeys(graph.formats)), "presets": found}


async def _answer(work: Callable[[], dict]) -> web.Response:
    """Files are read in a thread: the server goes on answering."""
    try:
        return web.json_response(await asyncio.to_thread(work))
    except QSchedError as error:
        return web.json_response({"error": str(error)}, status=400)


async def _json(request: web.Request) -> dict:
    if request.content_type != "application/json":
        raise _refusal(web.HTTPUnsupportedMediaType, "send JSON.")
    body = await _body(request.content.iter_chunked(65536), MOST_JSON)
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise _refusal(web.HTTPBadRequest, "this is no JSON object.")
    return told


async def _file(request: web.Request) -> tuple[str, bytes]:
    if request.content_type != "multipart/form-data":
        raise _refusal(web.HTTPUnsupportedMediaType, "send a file.")
    try:
        part = await (await request.multipart()).next()
    except ValueError:  # what aiohttp raises for a body that is not what its header says
        part = None
    if part is None or not getattr(part, "filename", None):
        raise _refusal(web.HTTPBadRequest, "there is no file in it.")
    return part.filename[-1000:], await _body(_chunks(part), MOST_FILE)


async def _chunks(part):
    while chunk := await part.read_chunk(65536):
        yield chunk


async def _body(chunks, most: int) -> bytes:
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > most:
            raise _refusal(web.HTTPRequestEntityTooLarge, "this is too large.", max_size=most, actual_size=len(content))
    return bytes(content)


def _refusal(kind, what: str, **more) -> web.HTTPException:
    return kind(text=json.dumps({"error": f"Q-Sched: {what}"}), content_type="application/json", **more)
