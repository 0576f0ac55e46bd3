"""Fitted rounding on score nets that nobody here trained: ``python -m benchmarks.galaxy_rounding``.

Galaxies of 32 x 32 and 64 x 64 (galaxygrad; MLP mixers, all of whose blocks are Linear), observed on three noises and
on sixteen, judged on 96 others: the mean relative L2 distance of 8-step samples to the full net's, and how much nearer
that is than with nearest rounding of the same layers, with a 95 % interval over noises. `pip` downloads the nets.
Some minutes on one core.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

import qsched_core as qs

from .ratios import ratio_interval
from .record import record
from .strangers.galaxies import PACKAGE
from .strangers.models import Stranger, galaxy

SIDES = (32, 64)
FORMATS = ("w4a16", "w4a8", "w4a4", "w3a8")
OBSERVED, HELD_OUT = (3, 16), 96
OBSERVED_SEED, HELD_OUT_SEED = 77, 9999
EDGES = "nearest, edges kept"
ROWS = [
    ("nearest, all layers", 0, {"include": ["*"], "last_steps": 0}),
    (EDGES, 3, {"quality": "fast", "last_steps": 0}),
    ("fitted", 3, {"quality": "fitted"}),
    ("fitted", 16, {"quality": "fitted"}),
    ("best", 16, {"quality": "best"}),
]
"""(rounding, observed noises, options of ``quantize``)"""


def samples(model: Stranger, seed: int, count: int) -> Tensor:
    return model.sampled(model.identity(), range(count), count, seed)


def distances(model: Stranger, full: Tensor) -> Tensor:
    """(HELD_OUT,) relative L2 distances to the full net's samples."""
    differences = (samples(model, HELD_OUT_SEED, HELD_OUT) - full).flatten(1).norm(dim=1)
    return differences / full.flatten(1).norm(dim=1)


def rows_of(full: Stranger) -> list[dict]:
    exact = samples(full, HELD_OUT_SEED, HELD_OUT)
    observations = {n: qs.observe(full.network, lambda n=n: samples(full, OBSERVED_SEED, n)) for n in OBSERVED}
    rows = []
    for form in FORMATS:
        far = {}
        for name, noises, options in ROWS:
            network = copy.deepcopy(full.network)
            report = qs.quantize(network, form, backend="torch", observation=observations.get(noises), **options)
            model = replace(full, network=network, precision=report.precision(full.sigmas))
            values = distances(model, exact).numpy()
            far[name] = values
            row = {
                "format": form, "rounding": name, "observed_noises": noises, "distance": round(float(values.mean()), 4),
                "bytes_to_fp16": round(report.bytes_after / report.bytes_before, 4),
            }  # fmt: skip
            if name in ("fitted", "best"):
                ratio, low, high = ratio_interval(values, far[EDGES])
                row["nearer"] = [round(1 - value, 4) for value in (ratio, high, low)]
            rows.append(row)
            print(full.name, row, flush=True)
    return rows


def main() -> None:
    torch.set_grad_enabled(False)
    nets = {f"{side} x {side}": rows_of(galaxy(side)) for side in SIDES}
    record("galaxy_rounding", {"model": " ".join(PACKAGE[:2]), "noises": HELD_OUT, "nets": nets})


if __name__ == "__main__":
    main()
