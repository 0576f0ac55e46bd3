"""Activation scales fixed beforehand, beside a token's own: ``python -m benchmarks.static_scales [flow|noise ...]``.

MergeQuant (arXiv 2503.07654) and 2DQuant (arXiv 2406.06649) round activations within bounds that were searched on
observed inputs, which spares the pass that looks for each token's largest value. Here the inputs of Linear layers are
rounded, rotated as our products have them, with each token's own scale (ours), with one bound for the layer and with
one for each input channel; bounds are the factor of the largest observed value that errs least on the rows that were
observed. Judged on other rows of other calls: the error of the layer's output relative to that with the tokens' own
scales, above 1 is worse. Time: rounding FLUX's tokens (4096 x 3072) with a fixed bound relative to their own
scales, and what that saves of the layer's call.

Nets: the two toys; those of ``strangers`` are made of convolutions. A minute on one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qsched_core.quant.tokens import rounded_tokens

from . import toys
from .channel_bits import layers_of, toy_net
from .record import earlier_of_demo, record

BITS = (4, 8)
FACTORS = tuple(0.05 * step for step in range(2, 21))
"""Of the largest observed value: 0.1 to 1."""

TOKENS = (4096, 3072)
RUNS = 5


def within(x: Tensor, bound: Tensor, bits: int) -> Tensor:
    """``x`` (R, K) rounded to so many bits within ``bound``, a number or one for each column (K,)."""
    most = 2 ** (bits - 1) - 1
    scale = bound / most
    return (x / scale).round_().clamp_(-most, most).mul_(scale)


def searched(weight: Tensor, rows: Tensor, largest: Tensor, bits: int) -> Tensor:
    """The bound among FACTORS of ``largest`` whose output errs least on ``rows`` (R, K)."""
    bounds = [(largest * factor).clamp(min=1e-12) for factor in FACTORS]
    errors = [((within(rows, bound, bits) - rows) @ weight.t()).square().sum() for bound in bounds]
    return bounds[int(torch.stack(errors).argmin())]


def ratios(weight: Tensor, rows: Tensor, check_rows: Tensor) -> dict[tuple[int, str], float]:
    """The error of a layer's output with a fixed bound relative to that with each token's own scale."""
    errors = {}
    for bits in BITS:
        own = ((rounded_tokens(check_rows, bits) - check_rows) @ weight.t()).norm()
        for name, largest in (("layer", rows.abs().amax()), ("input channel", rows.abs().amax(0))):
            bound = searched(weight, rows, largest, bits)
            errors[bits, name] = float(((within(check_rows, bound, bits) - check_rows) @ weight.t()).norm() / own)
    return errors


def rows_of(observe: Callable) -> list[dict]:
    errors: dict[tuple[int, str], list[float]] = {}
    net, observation = observe()
    for layer in layers_of(net, observation, activation_bits=16, kinds=(nn.Linear,)):
        for key, ratio in ratios(*layer).items():
            errors.setdefault(key, []).append(ratio)
    return [
        {"bits": bits, "bound": name, "layers": len(values), "error": round(statistics.median(values), 3),
         "best": round(min(values), 3), "worst": round(max(values), 3)}
        for (bits, name), values in errors.items()
    ]  # fmt: skip


def seconds() -> dict[str, float]:
    """Of rounding FLUX's tokens with their own scales and with a fixed bound, and of the product behind it with float
    weights: medians of RUNS, in turn."""
    x, weight, bound = torch.randn(TOKENS), torch.randn(TOKENS[1], TOKENS[1]), torch.tensor(4.0)
    calls = {
        "own": lambda: rounded_tokens(x, 8),
        "fixed": lambda: within(x, bound, 8),
        "product": lambda: x @ weight.t(),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(RUNS):
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=toys.KINDS, help="flow, noise (default: both)")
    torch.set_grad_enabled(False)
    rows = earlier_of_demo("static_scales", "nets")
    for kind in parser.parse_args().kinds:
        rows[kind] = rows_of(toy_net(kind))
        print(kind, *rows[kind], sep="\n", flush=True)
    times_of = seconds()
    times = {
        "fixed to own": round(times_of["fixed"] / times_of["own"], 3),
        "saved of the layer": round((times_of["own"] - times_of["fixed"]) / (times_of["own"] + times_of["product"]), 4),
    }
    record("static_scales", {"nets": rows, "times": times}, on_demo=True)


if __name__ == "__main__":
    main()
