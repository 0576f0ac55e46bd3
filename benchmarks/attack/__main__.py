"""Run all kinds of attack, or those named, and keep the counts in results/attack.json; status 1 where harm was done.

Two kinds at a time, each in a process of its own: half of them wait for a server or a browser.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed

from benchmarks.record import earlier, record

from .tally import run_kind

KINDS = ("journals", "injections", "kills", "presets", "paths", "forgeries", "quantized", "prompt_files")
"""Modules of this folder, those that take longest first. ``soak`` takes longer, and is run by its name."""
CHOICES = (*KINDS, "soak")
TOGETHER = 2


def main(names: list[str]) -> int:
    if unknown := sorted(set(names) - set(CHOICES)):
        print(f"There is no kind {unknown[0]!r}; there are {', '.join(CHOICES)}.", file=sys.stderr)
        return 2
    harm, start = 0, time.perf_counter()
    with ThreadPoolExecutor(TOGETHER) as pool:
        waiting = {pool.submit(_in_own_process, name): name for name in names or KINDS}
        for done in as_completed(waiting):
            counts = done.result()
            harm += counts["harm"]
            # One after the other: what was counted stays where a later kind cannot be run.
            results = {**earlier("attack"), waiting[done]: counts}
            record("attack", {name: results[name] for name in CHOICES if name in results})
    print(f"{time.perf_counter() - start:.0f} s in all, {harm} harmed")
    return 1 if harm else 0


def _in_own_process(name: str) -> dict[str, object]:
    """Hosts and browsers are imported and closed in it, and no kind finds what another has left."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(run_kind, name).result()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
