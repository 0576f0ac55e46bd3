"""Seconds from a cancel to the end of a running calibration: ``python -m benchmarks.cancel_time``."""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from scripts import server
from scripts.client import PromptInterrupted
from scripts.host import local_host

from .record import record

ROOT = Path(__file__).resolve().parent.parent
DELAYS = (1.0, 3.0, 4.5, 6.0, 8.5)
"""Seconds after the first progress: while sampling, decoding, scoring or asking for the next point."""


def main() -> None:
    spec = importlib.util.spec_from_file_location("graphs", ROOT / "tests" / "host" / "graphs.py")
    graphs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(graphs)
    log = Path(tempfile.mkdtemp()) / "server.log"
    with server.running(local_host(), Path(sys.executable), log_path=log) as comfy:
        seconds = [_cancelled_after(comfy.client, graphs, number, delay) for number, delay in enumerate(DELAYS)]
    record(
        "cancel_time", {"seconds": seconds, "median": statistics.median(seconds), "slowest": max(seconds)}, on_demo=True
    )


def _cancelled_after(client, graphs, number: int, delay: float) -> float:
    moments: list[float] = []

    def interrupt() -> None:
        moments.append(time.monotonic())
        client.interrupt()

    def on_progress(progress) -> None:
        if progress.text and "search" in progress.text and not timer.is_alive() and not moments:
            timer.start()

    timer = threading.Timer(delay, interrupt)
    try:
        client.run(graphs.calibrating(trials=5000, search_seed=100 + number), on_progress=on_progress, timeout=120)
    except PromptInterrupted:
        return round(time.monotonic() - moments[0], 2)
    raise SystemExit("the calibration ended before it was cancelled")


if __name__ == "__main__":
    main()
