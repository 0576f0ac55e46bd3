"""Run all kinds of attack, or those named, and keep the counts in results/attack.json; status 1 where harm was done."""

from __future__ import annotations

import importlib
import sys
import time

from benchmarks.record import earlier, record

KINDS = ("presets", "prompt_files", "paths", "kills", "injections", "forgeries", "journals", "quantized")
"""Modules of this folder. ``soak`` takes longer, and is run by its name."""
NAMED = (*KINDS, "soak")


def main(names: list[str]) -> int:
    if unknown := sorted(set(names) - set(NAMED)):
        print(f"There is no kind {unknown[0]!r}; there are {', '.join(NAMED)}.", file=sys.stderr)
        return 2
    harm = 0
    for name in names or KINDS:
        start = time.perf_counter()
        tally = importlib.import_module(f"{__package__}.{name}").run()
        harm += tally.harm
        counts = {**tally.as_json(), "seconds": round(time.perf_counter() - start, 1)}
        # One after the other: what was counted stays where a later kind cannot be run.
        known = {**earlier("attack"), name: counts}
        record("attack", {name: known[name] for name in NAMED if name in known})
    return 1 if harm else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
