"""Requests from the host's own page: no other site may send them, and no body is longer than it may be.

A browser sends a form of any site to any address, and a plain-http address of the local network gets no Sec-Fetch
header with it. No form can set a header of its own, and a script of another site may only after the server has agreed:
the host never agrees to this one, not even with --enable-cors-header. Host and Origin are not compared: behind a
reverse proxy they differ.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Awaitable, Callable

from aiohttp import web

PAGE_HEADER = "X-QSched-Page"
"""web/shared/page_header.js holds it, too."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def post_route(server, path: str) -> Callable[[Handler], Handler]:
    """As ``server.routes.post``, for the page alone: others are answered 403."""

    def add(handler: Handler) -> Handler:
        @server.routes.post(path)
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not request.headers.get(PAGE_HEADER):
                raise refusal(web.HTTPForbidden, f"send this from ComfyUI's page, or with the header {PAGE_HEADER}: 1.")
            return await handler(request)

        return guarded

    return add


async def read_body(chunks: AsyncIterable[bytes], most: int) -> bytes:
    """All of a body or of a part of one, whatever length its header says.

    Raises:
        HTTPRequestEntityTooLarge: more than ``most`` bytes; the rest is not read.
    """
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > most:
            raise refusal(web.HTTPRequestEntityTooLarge, "this is too large.", max_size=most, actual_size=len(content))
    return bytes(content)


def json_object(content: bytes) -> dict | None:
    """The object that a body holds; None where it holds something else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def refusal(kind: type[web.HTTPException], what: str, **more) -> web.HTTPException:
    """An answer with a sentence, to be raised."""
    return kind(text=json.dumps({"error": f"Q-Sched: {what}"}), content_type="application/json", **more)
