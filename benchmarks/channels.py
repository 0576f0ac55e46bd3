"""What uneven channels cost four bits: ``python -m benchmarks.channels``, some minutes on one core.

The demo's channels were made uneven (``demo/training/channels.py``), so that four bits hurt it as they hurt large
models. Here it stands beside itself with the channels as they were trained: W4A4, all layers, one scale per channel,
rounded to the nearest and fitted, the same captions and noise.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace

import numpy as np
import torch

from calibration.metrics.reference import distance
from demo.training.channels import SPREAD, spread_channels
from qsched_core import Coefficients

from . import toys
from .record import record

JUDGE_CAPTIONS, SEED = 96, 3
ROUNDING = toys.VISIBLE_DAMAGE["flow"]
SCORES = ("iq", "attribute accuracy", "all right")


def as_trained(toy: toys.Toy) -> toys.Toy:
    """The flow toy with even channels."""
    network = copy.deepcopy(toy.network)
    spread_channels(network, -SPREAD)
    return replace(toy, network=network)


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.channels", description=__doc__).parse_args()
    torch.set_num_threads(1)
    shipped = toys.load("flow")
    captions, identity = toys.captions(JUDGE_CAPTIONS, 13), Coefficients.identity(len(shipped.sigmas) - 1)
    score, judge = toys.scored(captions)
    rows, reference = [], None
    for spread, full in ((0.0, as_trained(shipped)), (SPREAD, shipped)):
        fitted = {"observation": full.observed(toys.captions(32, 5))}
        nets = {
            "full precision": full,
            "W4A4, nearest": full.quantized("w4a4", **ROUNDING),
            "W4A4, fitted": full.quantized("w4a4", **ROUNDING, **fitted),
        }
        for name, toy in nets.items():
            pictures = toy.generator(captions, SEED)(identity, range(JUDGE_CAPTIONS))
            reference = pictures if reference is None else reference
            scores = score(pictures, range(JUDGE_CAPTIONS)) | judge(pictures, range(JUDGE_CAPTIONS))
            far = distance(pictures, reference)["distance to full"].mean().item()
            means = {metric: float(np.nanmean(scores[metric])) for metric in SCORES}
            rows.append({"spread": spread, "rounding": name, **means, "distance to full": far})
            print(rows[-1], flush=True)
    record("channels", {"captions": JUDGE_CAPTIONS, "rows": rows}, on_demo=True)


if __name__ == "__main__":
    main()
