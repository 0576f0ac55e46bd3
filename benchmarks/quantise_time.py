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
from .record import record

TARGET_MINUTES = 4.0


def sdxl() -> torch.nn.Module:
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    network = UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[2, 2, 2],
        channel_mult=[1, 2, 4], num_head_channels=64, context_dim=2048, use_spatial_transformer=True,
        transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_middle=10,
        transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], use_linear_in_transformer=True,
        num_classes="sequential", adm_in_channels=2816, legacy=False, dtype=torch.float16,
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    # A million numbers, repeated: drawing thousands of millions would take longer than what is measured.
    noise = (0.02 * torch.randn(2**20 + 7, generator=generator)).half()
    for parameter in network.parameters():
        count = parameter.numel()
        parameter.data = noise.repeat(-(-count // len(noise)))[:count].view(parameter.shape).clone()
    return network


def main() -> None:
    import_host()
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = sdxl()
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
