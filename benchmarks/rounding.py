"""What fitted rounding brings back: ``python -m benchmarks.rounding [flow|noise ...]``.

Two trained toys, each format rounded five ways: *nearest* (all layers), *edges* (nearest, layers outside the blocks
kept: the default without an observation), *fitted* and *best* (with one, of 16 other captions), and *planned*: fitted,
with a tenth more bytes, where Quantization Sensitivity, asked on the same captions, puts them. Of a U-Net also
*projections too*: edges kept, but the projections beside its skip connections in few bits as all others, which was the
default before they got 8 bits. Losses and gains are paired, picture by picture, on held-out captions × 3 noises, with
95 % intervals over captions. *Back* is the share that returns of what *edges* loses for certain, *nearer* how much
smaller the distance to the full model's pictures is than with *edges*, *nearer than before* than with *projections
too*. W4A4 rows with an observation run the last step with 8-bit activations, as the product does. ``--presets``
searches a held preset for four of the roundings, and judges it on the first 100 of the captions: half as long again.

An hour for each toy on one core; rows that were made are kept in ``.cache/benchmarks``.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from calibration import Evaluation
from qsched_core import Coefficients
from qsched_core.quant import Observation, Plan, QuantizedLayer, resolve_format
from qsched_core.quant.select import is_skip_projection
from qsched_core.quant.sensitivity.measure import measure_sensitivity

from . import toys
from .ratios import ratio_interval
from .record import earlier_of_demo, record
from .recovery import CAPTIONS, FOLDER, Bench, NotRun, curves_of, means, recovered

FORMATS = {"w4a4": None, "w4a8": None, "w4a8 per channel": 0, "w3a8": None}
"""Group size by name, None: the format's own."""

NEAREST, BEFORE, EDGES = "nearest", "projections too", "edges"
FITTED, BEST, PLANNED = OBSERVING = "fitted", "best", "planned"
OPTIONS = {
    NEAREST: {"include": ["*"]},
    BEFORE: {},
    EDGES: {},
    FITTED: {"quality": "fitted", "last_steps": None},
    BEST: {"quality": "best", "last_steps": None},
    PLANNED: {"quality": "fitted", "last_steps": None},
}
MORE_BYTES, WIDE = 1.1, "w8a8"
"""Of a plan: the size to that of its format, and what the layers get that it spends them on."""
REPAIRED = NEAREST, EDGES, FITTED, BEST
"""The roundings that a preset is searched for."""
NOISES = 3
PRESET_CAPTIONS = 100
OBSERVED, OBSERVED_SEED = 16, 909
SPACE = "both ends"
DISTANCE = "distance to full"


def results(kind: str, prompts: int, presets: bool, end: float) -> dict:
    """All rows of a toy. What no time is left for is said to be not run."""

    def out_of_time() -> bool:
        return time.monotonic() > end

    bench = Bench(kind, out_of_time, prompts, NOISES)
    preset_bench = Bench(kind, out_of_time, min(prompts, PRESET_CAPTIONS), NOISES) if presets else None
    identity = Coefficients.identity(bench.steps)
    full = bench.row("full", bench.full, identity)
    used = {*bench.held_out, *bench.searched}
    others = [text for text in toys.captions(4 * OBSERVED, OBSERVED_SEED) if text not in used]
    observation = bench.full.observed(others[:OBSERVED])
    result: dict = {"observed": len(others[:OBSERVED]), "full": means(full), "formats": {}}
    if preset_bench is not None:
        result["presets_held_out"] = f"{preset_bench.prompts} captions x {NOISES} noises"
    has_projections = any(is_skip_projection(bench.full.network, layer) for layer in packed_by_default(bench.full))
    for name, group in FORMATS.items():
        rows: dict[str, Evaluation] = {}
        lines = result["formats"][name] = {}
        for rounding in OPTIONS:
            if rounding == BEFORE and not has_projections:
                continue
            model = Packed(bench, name, group, rounding, observation)
            try:
                rows[rounding] = model.row(model.title, identity)
                lines[rounding] = line(bench, full, rows, rounding)
                if preset_bench is not None and rounding in REPAIRED:
                    lines[rounding]["held preset"] = held_preset(preset_bench, model)
            except NotRun:
                lines.setdefault(rounding, "not run")
            print(kind, name, rounding, line_text(lines[rounding]), flush=True)
    return result


@dataclass(frozen=True)
class Packed:
    """A toy in a format (``name``) with a ``group`` size, rounded in one of the ways; packed when it is asked for."""

    bench: Bench
    name: str
    group: int | None
    rounding: str
    observation: Observation

    @property
    def title(self) -> str:
        return f"rounding {self.name} {self.rounding}"

    def row(self, title: str, coefficients: Coefficients) -> Evaluation:
        row = self.bench.earlier_row(title, coefficients)
        return self.bench.row(title, self.toy, coefficients) if row is None else row

    @cached_property
    def toy(self) -> toys.Toy:
        """Raises NotRun where no time is left for it."""
        if self.bench.out_of_time():
            raise NotRun
        full, format, options = self.bench.full, self.name.split()[0], OPTIONS[self.rounding]
        if self.rounding in OBSERVING:
            options = {**options, "observation": self.observation}
        if self.rounding == BEFORE:
            options = {"include": packed_by_default(full)}
        if self.rounding == PLANNED:
            options = {**options, "plan": plan(full.network, format, self.group, self.observation)}
        return full.quantized(format, group_size=self.group, **options)


def held_preset(bench: Bench, model: Packed) -> dict:
    """What the default search with a guard on the distance to the full model finds for a packed toy, and its gain."""
    best = bench.search(f"{model.title} held", model.toy, SPACE, guard=True)
    before = bench.row(model.title, model.toy, Coefficients.identity(bench.steps))
    after = bench.row(f"{model.title} held", model.toy, best)
    return {"gain": bench.gains(before, after), **curves_of(best)}


def packed_by_default(toy: toys.Toy) -> list[str]:
    """The names of the layers that are packed of a toy where nothing is asked for: naming them gives all of them the
    format's bits."""
    network = toy.quantized("w4a8").network
    return [name for name, layer in network.named_modules() if isinstance(layer, QuantizedLayer)]


def plan(network: nn.Module, format: str, group: int | None, observation: Observation) -> Plan:
    """The format, and ``WIDE`` for the layers that lose the most in it, ``MORE_BYTES`` in all."""
    form = resolve_format(format, group)
    study = measure_sensitivity(
        network, lambda: None, [form, resolve_format(WIDE)], depth="network", observation=observation
    )
    return study.plan(average_bits=MORE_BYTES * study.bits(study.uniform(form)))


def line(bench: Bench, full: Evaluation, rows: dict[str, Evaluation], rounding: str) -> dict:
    """What a row loses against the full model, and what it brings back of what *edges* loses."""
    row, edges = rows[rounding], rows.get(EDGES)
    values = {"means": means(row), "lost": bench.gains(full, row)}
    if edges is not None and rounding in OBSERVING:
        losses, gained = bench.gains(full, edges), bench.gains(edges, row)
        values |= {"gain": gained, "back": recovered(losses, gained)}
        values["nearer"] = nearer(bench, row, edges)
    if BEFORE in rows and rounding != BEFORE:
        values["nearer than before"] = nearer(bench, row, rows[BEFORE])
    return values


def nearer(bench: Bench, row: Evaluation, other: Evaluation) -> list[float]:
    """[how much smaller a row's distance to the full model's pictures is than another one's, as a share; low, high].
    Pictures of one caption are one draw."""
    distances, others = (scores.scores[DISTANCE].reshape(NOISES, bench.prompts).mean(0) for scores in (row, other))
    ratio, low, high = ratio_interval(distances, others)
    return [round(1 - value, 3) for value in (ratio, high, low)]


def line_text(line: dict | str) -> str:
    if isinstance(line, str):
        return line
    back = {metric: line["back"][metric] for metric in ("tc", "jaq")} if "back" in line else ""
    return f"{line['means'][DISTANCE]} {back} {line.get('nearer', '')}"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=__doc__)
    arguments.add_argument("kinds", nargs="*", default=toys.KINDS, help="flow, noise (default: both)")
    arguments.add_argument("--captions", type=int, default=CAPTIONS, help=f"held-out captions (default {CAPTIONS})")
    arguments.add_argument("--presets", action="store_true", help="also search held presets")
    arguments.add_argument("--minutes", type=float, default=math.inf, help="starts no row after as long")
    options = arguments.parse_args()
    end = time.monotonic() + 60 * options.minutes
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds:
        row = results(kind, options.captions, options.presets, end)
        held_out = f"{options.captions} captions x {NOISES} noises"
        models = earlier_of_demo("rounding", "models") | {kind: {"held_out": held_out, **row}}
        record("rounding", {"models": models}, on_demo=True)


if __name__ == "__main__":
    main()
