"""Seconds from Run to the first picture and to the verdict of template 01: ``python -m benchmarks.first_minute``.

A fresh server each time, as a new user has it: nothing is loaded or cached. The ratios are to what was promised.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from contextlib import closing
from pathlib import Path

import websocket

from scripts import server
from scripts.host import local_host
from scripts.template_graphs import try_it_now
from scripts.templates import WORKFLOWS

from .record import record

RUNS = 3
FIRST_PICTURE, VERDICT = 15.0, 60.0
"""Seconds that were promised on two cores."""

PICTURES = {1, 4}
"""The host's binary events that hold a preview, without and with the node it is of."""


ENDS = {"execution_success", "execution_error", "execution_interrupted"}


def main() -> None:
    runs = [_timed() for _ in range(RUNS)]
    first, verdict = (sorted(column)[RUNS // 2] for column in zip(*runs, strict=True))
    record(
        "first_minute",
        {
            "template": try_it_now().name,
            "runs": [{"first picture": one, "verdict": other} for one, other in runs],
            "first picture s": first,
            "verdict s": verdict,
            "first picture to promised": round(first / FIRST_PICTURE, 3),
            "verdict to promised": round(verdict / VERDICT, 3),
        },
    )


def _timed() -> tuple[float, float]:
    """(Seconds to the first preview, seconds to the end)."""
    graph = json.loads((WORKFLOWS / "api" / f"{try_it_now().name}.json").read_text("utf-8"))
    with server.running(local_host(), Path(sys.executable)) as comfy:
        url = f"{comfy.client.base_url.replace('http', 'ws', 1)}/ws?clientId={comfy.client.client_id}"
        with closing(websocket.create_connection(url, timeout=300, http_no_proxy=["*"])) as socket:
            began, first = time.monotonic(), 0.0
            prompt = comfy.client.submit(graph)
            while True:
                message = socket.recv()
                if isinstance(message, bytes):
                    if not first and struct.unpack_from(">I", message)[0] in PICTURES:
                        first = time.monotonic() - began
                elif json.loads(message)["type"] in ENDS:
                    break
            comfy.client.wait(prompt)  # raises what went wrong
            return round(first, 1), round(time.monotonic() - began, 1)


if __name__ == "__main__":
    main()
