"""The blind vote over HTTP, for the node on the page: what it shows, and what is voted."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ...qsched_core import VoteError
from ..host.page_requests import json_object, post_route, read_body
from ..host.server import page_server

MAX_VOTE_BYTES = 1000
"""Bytes of a vote."""


def add_arena_routes() -> None:
    """GET /qsched/arena?key=KEY or ?workflow=ID, and POST /qsched/arena/vote with {"key", "pair", "choice"}; nothing
    where no server runs. To be called once, as the pack is loaded."""
    server = page_server()
    if server is None:
        return

    @server.routes.get("/qsched/arena")
    async def state(request: web.Request) -> web.Response:
        from .ballots import ballots

        if "workflow" in request.query:
            return web.json_response({"nodes": ballots.noted(request.query["workflow"])})
        return await _answer(request.query.get("key"))

    @post_route(server, "/qsched/arena/vote")
    async def vote(request: web.Request) -> web.Response:
        from .ballots import ballots

        try:
            key, pair, choice = await _read_vote(request)
            await asyncio.to_thread(ballots.act, key, pair, choice)  # it waits for the disk
        except VoteError as error:
            return _refusal(error)
        server.send_sync("qsched.arena", {"key": key})  # to every tab that shows it
        return await _answer(key)


async def _read_vote(request: web.Request) -> tuple[str, int, str]:
    try:
        vote = json_object(await read_body(request.content.iter_chunked(MAX_VOTE_BYTES), MAX_VOTE_BYTES)) or {}
    except web.HTTPRequestEntityTooLarge:
        vote = {}  # no vote is as long
    values = [vote.get(name) for name in ("key", "pair", "choice")]
    if [type(value) for value in values] != [str, int, str]:
        raise VoteError("this is no vote.", 'send {"key": text, "pair": number, "choice": text}', status=400)
    return tuple(values)


async def _answer(key: str | None) -> web.Response:
    from .ballots import ballots

    try:
        return web.json_response(await asyncio.to_thread(ballots.view, key))
    except VoteError as error:
        return _refusal(error)


def _refusal(error: VoteError) -> web.Response:
    return web.json_response({"error": str(error)}, status=error.fields.get("status", 400))
