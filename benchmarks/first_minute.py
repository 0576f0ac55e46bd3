"""Seconds from Run to the first picture and to the verdict of template 01: ``python -m benchmarks.first_minute``.

A fresh server each time, as a new user has it: nothing is loaded or cached. The ratios are to what was promised. What
else ran on the machine is in ``load``: on two cores a figure counts where it is below 2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import sys
import time
from contextlib import closing
from pathlib import Path

import websocket

from scripts import server
from scripts.host import local_host
from scripts.workflows.build import WORKFLOWS
from scripts.workflows.try_it_now import try_it_now

from .record import record

FIRST_PICTURE, VERDICT = 15.0, 60.0
"""Seconds that were promised on two cores."""

PICTURES = {1, 4}
"""The host's binary events that hold a preview, without and with the node it is of."""


ENDS = {"execution_success", "execution_error", "execution_interrupted"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.first_minute", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = [_timed() for _ in range(parser.parse_args().runs)]
    first, verdict = (statistics.median(column) for column in zip(*runs, strict=True))
    record(
        "first_minute",
        {
            "template": try_it_now().name,
            "runs": [{"first picture": one, "verdict": other} for one, other in runs],
            "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
            "first picture s": first,
            "verdict s": verdict,
            "first picture to promised": round(first / FIRST_PICTURE, 3),
            "verdict to promised": round(verdict / VERDICT, 3),
        },
        on_demo=True,
    )


def _timed() -> tuple[float, float]:
    """(Seconds to the first picture that the page shows, seconds to the end)."""
    graph = json.loads((WORKFLOWS / "api" / f"{try_it_now().name}.json").read_text("utf-8"))
    with server.running(local_host(), Path(sys.executable)) as comfy:
        url = f"{comfy.client.base_url.replace('http', 'ws', 1)}/ws?clientId={comfy.client.client_id}"
        with closing(websocket.create_connection(url, timeout=300, http_no_proxy=["*"])) as socket:
            start, first = time.monotonic(), 0.0
            prompt = comfy.client.submit(graph)
            while True:
                message = socket.recv()
                if isinstance(message, bytes):
                    if not first and struct.unpack_from(">I", message)[0] in PICTURES:
                        first = time.monotonic() - start
                    continue
                event = json.loads(message)
                if not first and event["type"] == "qsched.progress" and event["data"].get("pictures"):
                    first = time.monotonic() - start  # in the slider on the node
                if event["type"] in ENDS:
                    break
            comfy.client.wait(prompt)  # raises what went wrong
            if not first:
                raise SystemExit("No picture was shown before the verdict.")
            return round(first, 1), round(time.monotonic() - start, 1)


if __name__ == "__main__":
    main()
