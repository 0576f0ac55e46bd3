"""Seconds per step, float against each backend, in one run: ``python -m benchmarks.step_time``.

On a GPU: SDXL at 512² and 1024² and FLUX.1-schnell at 1024², the host's own networks at the published sizes, BF16,
random weights, one evaluation per step. Without a GPU these are "not run". On the CPU the demo model (11.5 MB, 64²) is
timed, and single layers of real widths in the torch backend's W4A8, also as torch.compile makes them. Ratios are to the
float one, and of a compiled layer to the same layer as it is, in the same run; runs alternate, medians are told.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import TorchBackend, resolve_format

from .in_host import import_host, import_pack
from .networks import families, randomised
from .record import record

WAYS = [
    ("w8a8", "kitchen"),
    ("w4a8", "kitchen"),
    ("w4a4", "kitchen"),
    ("w8a8", "torch"),
    ("w4a8", "torch"),
    ("w4a16", "quanto"),
]
ROUNDS = 9

Inputs = Callable[[torch.device, torch.dtype], tuple[tuple, dict]]


def sdxl(side: int) -> Inputs:
    def inputs(device: torch.device, dtype: torch.dtype) -> tuple[tuple, dict]:
        more = {"device": device, "dtype": dtype}
        x, context = torch.randn(1, 4, side // 8, side // 8, **more), torch.randn(1, 77, 2048, **more)
        return (x, torch.full((1,), 999.0, device=device)), {"context": context, "y": torch.randn(1, 2816, **more)}

    return inputs


def flux(side: int) -> Inputs:
    def inputs(device: torch.device, dtype: torch.dtype) -> tuple[tuple, dict]:
        more = {"device": device, "dtype": dtype}
        x, context = torch.randn(1, 16, side // 8, side // 8, **more), torch.randn(1, 256, 4096, **more)
        return (x, torch.ones(1, **more), context), {"y": torch.randn(1, 768, **more)}

    return inputs


def on_gpu() -> list[dict]:
    device, dtype = torch.device("cuda"), torch.bfloat16
    networks = families("cuda", dtype)
    rows = []
    for family, sides, inputs in (("SDXL", (512, 1024), sdxl), ("FLUX.1-schnell", (1024,), flux)):
        make, depths = networks[family]
        for name, backend in [("bf16", ""), *WAYS]:
            torch.cuda.empty_cache()
            network = randomised(make(*depths))
            row = {"network": family, "format": name, "backend": backend}
            try:
                if backend:
                    report = qs.quantize(network, name, backend=backend, device=device)
                    row["kernels"] = sorted({layer.kernel for layer in report.quantized})
            except QuantizationError as error:
                rows.append({**row, "not_run": str(error)})
                continue
            row["weights_gb"] = round(torch.cuda.memory_allocated() / 1e9, 2)
            for side in sides:
                arguments, options = inputs(side)(device, dtype)
                torch.cuda.reset_peak_memory_stats()
                row[f"{side} seconds"] = round(timed({"": partial(network, *arguments, **options)})[""], 4)
                row[f"{side} peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            rows.append(row)
            print(row, flush=True)
            del network
    return rows


def on_cpu() -> dict[str, float | str]:
    """The demo model's evaluation, seconds: float, and each way that this machine has."""
    load = importlib.import_module
    full = load("pack.nodes.demo_model").QSchedDemoModel.execute().args[0]
    networks: dict[str, nn.Module] = {"float": full.model.diffusion_model}
    result: dict[str, float | str] = {}
    for name, backend in WAYS:
        try:
            job = load("pack.nodes.quantization.backends").job_for(full, name, backend=backend, include=["*"])
            networks[f"{name} {backend}"] = (
                load("pack.nodes.quantization.twin_model").quantized_twin(full, job)[0].model.diffusion_model
            )
        except Exception as error:  # noqa: BLE001 - the pack's errors are of a module that was loaded under its name
            result[f"{name} {backend}"] = f"not run: {error}"
    x, context = torch.randn(4, 16, 16, 16), torch.randn(4, 32, full.model.diffusion_model.params.context_in_dim)
    y = torch.randn(4, full.model.diffusion_model.params.vec_in_dim)
    calls = {
        key: lambda network=network: network(x, torch.full((4,), 0.5), context, y=y)
        for key, network in networks.items()
    }
    seconds = timed(calls)
    return result | {key: round(value, 4) for key, value in seconds.items()}


def layers_on_cpu() -> dict[str, float]:
    """Packed to float, for layers (N, N) on so many tokens."""
    ratios = {}
    for width, tokens in ((1280, 1024), (3072, 1024), (3072, 64)):
        layer, x = nn.Linear(width, width), torch.randn(1, tokens, width)
        twin = TorchBackend().twin(layer, layer.weight, layer.bias, resolve_format("w4a8"))
        seconds = timed({"float": partial(layer, x), "packed": partial(twin, x)})
        ratios[f"{width} x {width}, {tokens} tokens"] = round(seconds["packed"] / seconds["float"], 2)
    return ratios


def compiled_on_cpu() -> dict[str, float | str]:
    """Seconds of a layer as it is to those of torch.compile's, in bfloat16 without a break of the graph: above 1 it is
    faster compiled. The float layers stand beside."""
    linear, conv = nn.Linear(1280, 1280), nn.Conv2d(320, 320, 3, padding=1)
    form = resolve_format("w4a8")
    layers = {
        "Linear": (linear, torch.randn(1, 1024, 1280)),
        "Linear w4a8": (TorchBackend().twin(linear, linear.weight, linear.bias, form), torch.randn(1, 1024, 1280)),
        "Conv2d": (conv, torch.randn(1, 320, 32, 32)),
        "Conv2d w4a8": (TorchBackend().twin(conv, conv.weight, conv.bias, form), torch.randn(1, 320, 32, 32)),
    }
    ratios: dict[str, float | str] = {}
    for name, (layer, x) in layers.items():
        layer, x = layer.to(torch.bfloat16), x.to(torch.bfloat16)
        try:
            seconds = timed({"": partial(layer, x), "compiled": partial(torch.compile(layer, fullgraph=True), x)})
        except Exception as error:  # noqa: BLE001 - no compiler of C++, or one that cannot
            ratios[name] = f"not run: {str(error).splitlines()[0]}"
            continue
        ratios[name] = round(seconds[""] / seconds["compiled"], 2)
    return ratios


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call; rounds alternate, so that a slow minute slows all of them."""
    times: dict[str, list[float]] = {key: [] for key in calls}
    for round_ in range(ROUNDS + 2):
        for key, call in calls.items():
            _wait()
            start = time.perf_counter()
            call()
            _wait()
            if round_ >= 2:
                times[key].append(time.perf_counter() - start)
    return {key: statistics.median(values) for key, values in times.items()}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    import_host()
    import_pack()
    with torch.inference_mode():
        gpu = on_gpu() if torch.cuda.is_available() else "not run: no GPU"
        cpu, layers, compiled = on_cpu(), layers_on_cpu(), compiled_on_cpu()
    ratios = {key: round(value / cpu["float"], 2) for key, value in cpu.items() if isinstance(value, float)}
    record(
        "step_time",
        {
            "gpu": gpu,
            "demo_on_cpu_seconds": cpu,
            "demo_on_cpu_to_float": ratios,
            "layers_on_cpu": layers,
            "compiled_on_cpu": compiled,
        },
        on_demo=True,
    )


if __name__ == "__main__":
    main()
