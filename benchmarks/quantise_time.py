"""Quantising SDXL's whole U-Net: ``python -m benchmarks.quantise_time``. Needs 8 GB of memory.

The host's own network at the published size, FP16, with random weights: 2.57 billion parameters, quantised in place
layer by layer, as the core does it. Time, and the most memory that was held against what the model itself takes.
"""

from __future__ import annotations

import resource
import time

import torch

import qsched_core as qs

from .in_host import import_host
from .networks import families, randomised
from .record import record

TARGET_MINUTES = 4.0


def main() -> None:
    import_host()
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    make, _ = families("cpu", torch.float16)["SDXL"]
    network = randomised(make())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    report = qs.quantize(network, "w4a8")
    minutes = (time.perf_counter() - start) / 60
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record(
        "quantise_time",
        {
            "model": "SDXL's U-Net, FP16, random weights",
            "parameters": parameters,
            "minutes": round(minutes, 2),
            "target_minutes": TARGET_MINUTES,
            "nanoseconds_per_weight": round(60e9 * minutes / parameters, 1),
            "bytes_to_fp16": round(report.bytes_after / report.bytes_before, 4),
            "peak_memory_to_model": round((after - began) / (before - began), 3),
            "model_in_memory_gb": round((before - began) / 1e6, 2),
            "mean_weight_error": round(
                sum(layer.error for layer in report.quantized) / max(1, len(report.quantized)), 4
            ),
        },
    )


if __name__ == "__main__":
    main()
