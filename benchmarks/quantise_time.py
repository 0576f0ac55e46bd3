"""Quantising SDXL's whole U-Net: ``python -m benchmarks.quantise_time``. Needs 12 GB of memory.

The host's own network at the published size, FP16, with random weights: 2.57 billion parameters, layer by layer.
First in place, as the core does it; then in ComfyUI, where the MODEL that was given stays beside the new one. Time, and
the most memory that was held against what has to be there: the model, and in ComfyUI the packed one too.
"""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import torch

import qsched_core as qs

from .in_host import import_host, import_pack
from .networks import families, randomised
from .record import record

TARGET_MINUTES = 4.0


def most_bytes() -> int:
    """The most bytes that this process has held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_place() -> dict:
    import_host()
    memory_before = most_bytes()
    make, _ = families("cpu", torch.float16)["SDXL"]
    network = randomised(make())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    before = most_bytes()
    start = time.perf_counter()
    report = qs.quantize(network, "w4a8", backend="torch")
    seconds = time.perf_counter() - start
    errors = [layer.error for layer in report.quantized]
    return {
        "parameters": parameters,
        "minutes": round(seconds / 60, 2),
        "target_minutes": TARGET_MINUTES,
        "nanoseconds_per_weight": round(1e9 * seconds / parameters, 1),
        "bytes_to_fp16": round(report.bytes_after / report.bytes_before, 4),
        "peak_memory_to_model": round((most_bytes() - memory_before) / (before - memory_before), 3),
        "model_in_memory_gb": round((before - memory_before) / 1e9, 2),
        "mean_weight_error": round(sum(errors) / max(1, len(errors)), 4),
    }


def in_comfyui() -> dict:
    """The same network as a MODEL, through the node's own path."""
    import_host()
    import_pack()
    import comfy.model_detection
    import comfy.model_patcher

    memory_before = most_bytes()
    make, _ = families("meta", torch.float16)["SDXL"]
    shapes = {name: torch.empty(t.shape, dtype=torch.float16, device="meta") for name, t in make().state_dict().items()}
    config = comfy.model_detection.model_config_from_unet(shapes, "")
    config.set_inference_dtype(torch.float16, torch.float32)
    base, cpu = config.get_model(shapes, ""), torch.device("cpu")
    randomised(base.diffusion_model)
    source = comfy.model_patcher.ModelPatcher(base, cpu, cpu)
    load = importlib.import_module
    job = load("pack.nodes.quantization.backends").job_for(source, "w4a8", backend="torch")
    start = time.perf_counter()
    twin, _ = load("pack.nodes.quantization.twin_model").quantized_twin(source, job)
    minutes = (time.perf_counter() - start) / 60
    both = source.model_size() + twin.model_size()
    return {
        "minutes": round(minutes, 2),
        "both_models_gb": round(both / 1e9, 2),
        "peak_memory_to_both_models": round((most_bytes() - memory_before) / both, 3),
    }


def in_own_process(measure) -> dict:
    """What a process has held at most never falls: each measure gets a new one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure).result()


def main() -> None:
    result = {"model": "SDXL's U-Net, FP16, random weights"}
    record("quantise_time", result | {m.__name__: in_own_process(m) for m in (in_place, in_comfyui)})


if __name__ == "__main__":
    main()
