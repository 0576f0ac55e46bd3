"""Where fitted rounding helps a network, and where it cannot: ``python -m benchmarks.layer_groups [flow|noise ...]``.

A toy's packed layers in groups: those that read the text (keys and values of cross-attention), the projections beside a
U-Net's skip connections, the rest by the part of the network that they lie in. One group at a time is packed, all else
stays float; *default* packs all of them, the skip projections in 8 bits. Each is rounded to nearest, fitted to 16 and
to 64 captions, and given 8 bits. *distance* is that of the latents to the full model's, relative, the mean over
captions that nothing was observed of; *of nearest* divides by nearest's, with a paired 95 % interval over captions (a
bootstrap of the ratio). *weights* is the group's share of what is packed.

Two minutes for each toy on one core.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

import qsched_core as qs
from demo.vocabulary import compact_ids
from qsched_core.quant import QuantizedLayer
from qsched_core.quant.select import is_skip_projection

from . import toys
from .ratios import ratio_interval
from .record import earlier_of_demo, record

FORMATS = ("w4a8", "w3a8")
OBSERVED = (16, 64)
JUDGES, NOISE_SEED = 96, 7
TEXT, PROJECTIONS, DEFAULT = "text", "skip projections", "default"


def groups(toy: toys.Toy) -> dict[str, list[str]]:
    """The names of the layers that are packed by default, by what they are or where they lie."""
    network = toy.quantized("w4a8").network
    by_group = defaultdict(list)
    for name, layer in network.named_modules():
        if isinstance(layer, QuantizedLayer):
            by_group[_group(toy.network, name)].append(name)
    return dict(by_group)


def _group(network: nn.Module, name: str) -> str:
    if is_skip_projection(network, name):
        return PROJECTIONS
    if any(part in name for part in ("attn2.to_k", "attn2.to_v")):
        return TEXT
    return name.partition(".")[0].replace("_", " ")


def latents(toy: toys.Toy, captions: Sequence[str]) -> Tensor:
    """(captions, values): what each is sampled to, with a noise of its own."""
    with torch.inference_mode():
        out = toy.text(input_ids=compact_ids(list(captions)))
        noises = iter(toy.noises(NOISE_SEED, range(len(captions))))
        identity = qs.Coefficients.identity(len(toy.sigmas) - 1)
        return toy.sample(next(noises), (out.last_hidden_state, out.pooler_output), identity, noises).flatten(1)


def rows_of(kind: str) -> list[dict]:
    toy = toys.load(kind)
    captions = toys.captions(JUDGES + max(OBSERVED), 303)
    judges, others = captions[:JUDGES], captions[JUDGES:]
    full = latents(toy, judges)
    observations = {count: toy.observed(others[:count]) for count in OBSERVED}
    names = groups(toy)
    total = sum(weights(toy.network, group) for group in names.values())

    def distances(form: str, **options) -> np.ndarray:
        there = latents(toy.quantized(form, **options), judges)
        return ((there - full).norm(dim=1) / full.norm(dim=1)).double().numpy()

    rows = []
    for form in FORMATS:
        for group, layers in {**names, DEFAULT: sum(names.values(), [])}.items():
            options = {} if group == DEFAULT else {"include": layers}
            nearest = distances(form, **options)
            of_nearest = {
                f"fitted to {count}": ratio_interval(distances(form, observation=observation, **options), nearest)
                for count, observation in observations.items()
            }
            of_nearest["8 bits"] = ratio_interval(distances("w8a8", **options), nearest)
            rows.append(
                {
                    "format": form, "group": group, "layers": len(layers),
                    "weights": round(weights(toy.network, layers) / total, 4),
                    "nearest": round(float(nearest.mean()), 4), "of nearest": of_nearest,
                }
            )  # fmt: skip
            print(kind, rows[-1], flush=True)
    return rows


def weights(network: nn.Module, layers: Sequence[str]) -> int:
    return sum(network.get_submodule(name).weight.numel() for name in layers)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layer_groups", description=__doc__)
    parser.add_argument("kinds", nargs="*", default=toys.KINDS, help="flow, noise (default: both)")
    facts: Mapping[str, object] = {"judged_on": JUDGES, "observed": list(OBSERVED)}
    for kind in parser.parse_args().kinds:
        earlier = earlier_of_demo("layer_groups", "toys")
        record("layer_groups", {**facts, "toys": earlier | {kind: rows_of(kind)}}, on_demo=True)


if __name__ == "__main__":
    main()
