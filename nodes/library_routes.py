"""The presets over HTTP, for the page's own tab: list, match, rename, import, and a picture to share.

What changes something is taken from the page alone, see page_requests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import ClientPayloadError, web
from aiohttp.http import HttpProcessingError

from ..qsched_core import QSchedError
from . import library
from .folders import FOLDER, file_names
from .matching import match, read_graph
from .page import page_server
from .page_requests import post_route, refusal
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

    @post_route(server, "/qsched/presets/match")
    async def matches(request: web.Request) -> web.Response:
        told = await _json(request)
        return await _answer(lambda: matched(told))

    @post_route(server, "/qsched/presets/rename")
    async def rename(request: web.Request) -> web.Response:
        told = await _json(request)
        names = [told.get(key) for key in ("name", "new_name")]
        if not all(isinstance(name, str) and len(name) <= 1000 for name in names):
            raise refusal(web.HTTPBadRequest, "name and new_name are texts.")
        return await _answer(lambda: {"name": library.rename(*names)})

    @post_route(server, "/qsched/presets/import")
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
        raise refusal(web.HTTPUnsupportedMediaType, "send JSON.")
    body = await _body(request.content.iter_chunked(65536), MOST_JSON)
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise refusal(web.HTTPBadRequest, "this is no JSON object.")
    return told


async def _file(request: web.Request) -> tuple[str, bytes]:
    if request.content_type != "multipart/form-data":
        raise refusal(web.HTTPUnsupportedMediaType, "send a file.")
    try:
        part = await (await request.multipart()).next()
        name = getattr(part, "filename", None)
        content = await _body(_chunks(part), MOST_FILE) if name else b""
    # What aiohttp raises for a body that is not what its header says: parts without an end, broken or endless headers.
    except (ValueError, AssertionError, HttpProcessingError, ClientPayloadError):
        raise refusal(web.HTTPBadRequest, "the file did not arrive whole.") from None
    if not name:
        raise refusal(web.HTTPBadRequest, "there is no file in it.")
    return name[-1000:], content


async def _chunks(part):
    while chunk := await part.read_chunk(65536):
        yield chunk


async def _body(chunks, most: int) -> bytes:
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > most:
            raise refusal(web.HTTPRequestEntityTooLarge, "this is too large.", max_size=most, actual_size=len(content))
    return bytes(content)
