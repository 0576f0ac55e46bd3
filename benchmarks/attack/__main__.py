"""Run all kinds of attack, or those named, and keep the counts in results/attack.json; status 1 where harm was done."""

from __future__ import annotations

import importlib
import sys
import time

from benchmarks.record import earlier, record

from .tally import Tally

FAULTS = {
    "journals": (500, ("another result", "raw error", "file not named")),
    "quantized": (1000, ("raw error", "another layer", "not finite")),
}
"""Kinds that tests share: their modules have ``attack(count) -> {outcome: how many}``, and these outcomes are harm."""
KINDS = ("presets", "prompt_files", "paths", "kills", "injections", "forgeries", *FAULTS)
"""Modules of this folder. ``soak`` takes longer, and is run by its name."""
NAMED = (*KINDS, "soak")


def main(names: list[str]) -> int:
    if unknown := sorted(set(names) - set(NAMED)):
        print(f"There is no kind {unknown[0]!r}; there are {', '.join(NAMED)}.", file=sys.stderr)
        return 2
    result = {name: value for name, value in earlier("attack").items() if name in NAMED}
    harm = 0
    for name in names or KINDS:
        start = time.perf_counter()
        tally = _tally(name)
        harm += tally.harm
        result[name] = {**tally.as_json(), "seconds": round(time.perf_counter() - start, 1)}
        print(name, result[name], flush=True)
    record("attack", {name: result[name] for name in NAMED if name in result})
    return 1 if harm else 0


def _tally(name: str) -> Tally:
    module = importlib.import_module(f"{__package__}.{name}")
    if name not in FAULTS:
        return module.run()
    count, faults = FAULTS[name]
    tally = Tally()
    for outcome, times in module.attack(count).items():
        if outcome.startswith(faults):
            for _ in range(times):
                tally.hurt(outcome)
        else:
            tally.outcomes[outcome] += times
    return tally


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
