"""The presets over HTTP, for the page: list, rename, delete, undo, import, a picture to share, and one's curves.

What changes something is taken from the page alone, see page_requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import ClientPayloadError, web
from aiohttp.http import HttpProcessingError

from ...qsched_core import QSchedError
from ..host.folders import PRESETS_FOLDER, file_path
from ..host.page_requests import json_object, post_route, read_body, refusal
from ..host.server import page_server

MAX_JSON_BYTES, MAX_FILE_BYTES = 256 * 1024, 4 * 1024**2
"""Bytes. A preset has 1 MiB of header and some values; a picture that carries one has a third more, and itself."""

CHUNK_BYTES = 64 * 1024
"""Of a body at a time: what is too large is refused after one such part too many."""


def add_library_routes() -> None:
    """Nothing where no server runs. To be called once, as the pack is loaded."""
    server = page_server()
    if server is not None:
        _add_lists(server)
        _add_changes(server)
        _add_views(server.routes)


def _add_lists(server) -> None:
    @post_route(server, "/qsched/presets")
    async def presets(request: web.Request) -> web.Response:
        from . import pages

        question = await _json(request)
        return await _answer(lambda: pages.page(question))

    @post_route(server, "/qsched/presets/names")
    async def names(request: web.Request) -> web.Response:
        from . import pages

        question = await _json(request)
        return await _answer(lambda: pages.names_by_fit(question))


def _add_changes(server) -> None:
    @post_route(server, "/qsched/presets/rename")
    async def rename(request: web.Request) -> web.Response:
        from . import files

        question = await _json(request)
        names = [_text(question, key) for key in ("name", "new_name")]
        return await _answer(lambda: {"name": files.rename(*names)})

    @post_route(server, "/qsched/presets/delete")
    async def delete(request: web.Request) -> web.Response:
        from . import trash

        name = _text(await _json(request), "name")
        return await _answer(lambda: {"undo": trash.delete(name)})

    @post_route(server, "/qsched/presets/undo")
    async def undo(request: web.Request) -> web.Response:
        from . import trash

        token = _text(await _json(request), "undo")
        return await _answer(lambda: {"name": trash.restore(token)})

    @post_route(server, "/qsched/presets/import")
    async def import_file(request: web.Request) -> web.Response:
        from . import files

        name, content = await _file(request)
        return await _answer(lambda: dict(zip(("name", "added"), files.import_preset(name, content), strict=True)))


def _add_views(routes: web.RouteTableDef) -> None:
    """What an address in the page shows: it changes nothing, so it is a GET."""

    @routes.get("/qsched/presets/picture")
    async def picture(request: web.Request) -> web.Response:
        from . import files

        name = request.query.get("name", "")
        try:
            content = await asyncio.to_thread(files.picture, name)
        except QSchedError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.Response(body=content, content_type="image/png")

    @routes.get("/qsched/curve")
    async def curve_of_file(request: web.Request) -> web.Response:
        from ...qsched_core import load_preset
        from .curve import values

        try:
            name = request.query.get("preset", "")
            preset = await asyncio.to_thread(lambda: load_preset(file_path(PRESETS_FOLDER, name)))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.json_response(values(preset, 1.0))


def _text(question: dict, key: str) -> str:
    value = question.get(key)
    if not isinstance(value, str) or len(value) > 1000:
        raise refusal(web.HTTPBadRequest, f"{key} is a text.")
    return value


async def _answer(work: Callable[[], dict]) -> web.Response:
    """Files are read in a thread: the server goes on answering."""
    try:
        return web.json_response(await asyncio.to_thread(work))
    except QSchedError as error:
        return web.json_response({"error": str(error)}, status=400)


async def _json(request: web.Request) -> dict:
    if request.content_type != "application/json":
        raise refusal(web.HTTPUnsupportedMediaType, "send JSON.")
    question = json_object(await read_body(request.content.iter_chunked(CHUNK_BYTES), MAX_JSON_BYTES))
    if question is None:
        raise refusal(web.HTTPBadRequest, "this is no JSON object.")
    return question


async def _file(request: web.Request) -> tuple[str, bytes]:
    if request.content_type != "multipart/form-data":
        raise refusal(web.HTTPUnsupportedMediaType, "send a file.")
    try:
        part = await (await request.multipart()).next()
        name = getattr(part, "filename", None)
        content = await read_body(_chunks(part), MAX_FILE_BYTES) if name else b""
    # What aiohttp raises for a body that is not what its header says: parts without an end, broken or endless headers.
    except (ValueError, AssertionError, HttpProcessingError, ClientPayloadError):
        raise refusal(web.HTTPBadRequest, "the file did not arrive whole.") from None
    if not name:
        raise refusal(web.HTTPBadRequest, "there is no file in it.")
    return name[-1000:], content


async def _chunks(part):
    while chunk := await part.read_chunk(CHUNK_BYTES):
        yield chunk
