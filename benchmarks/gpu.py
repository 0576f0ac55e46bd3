"""What only a card can prove, in one command and under six minutes: ``python -m benchmarks.gpu``.

1. every backend, format and width against the exact product, with the kernel that ran, or why it is out;
2. a LoRA's effect on the demo model, quantised, to its effect on the float one;
3. the demo model fully loaded and in half or none of its memory, which must draw the same;
4. four steps of it with and without a preset;
5. seconds and peak memory of a step at SDXL, FLUX.1-schnell and Z-Image shapes, BF16 beside the host's int8 and W4A8.

Random weights; networks have few blocks, so that BF16 fits beside them on a card of 12 GB. Without a card the first
four run on the CPU, at small widths: that shows that this program runs, and nothing of a card.
"""

from __future__ import annotations

import importlib
import time
from functools import partial

import torch

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import FORMATS
from qsched_core.quant import trial as trials
from qsched_core.quant.backends import default_backends
from qsched_core.quant.product_errors import ProductError, product_errors

from .in_host import import_host, import_pack
from .networks import families, randomised
from .record import record
from .step_time import Inputs, flux, sdxl, timed

WIDTHS = (64, 256, 320, 640, 1280, 3072)
CPU_WIDTHS = (64, 320)
ROWS = (1, 33, 1024)
WAYS = (("", ""), ("w8a8", "kitchen"), ("w4a8", "kitchen"), ("w4a8", "torch"), ("w4a16", "torch"))
LORA_SIZES = (0.01, 0.05)
SHARES = (0.5, 0.0)
"""Of a model, in the card's memory: what is larger than that lies outside, and is brought layer by layer."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def z_image(side: int) -> Inputs:
    def inputs(place: torch.device, dtype: torch.dtype) -> tuple[tuple, dict]:
        more = {"device": place, "dtype": dtype}
        x, context = torch.randn(1, 16, side // 8, side // 8, **more), torch.randn(1, 64, 2560, **more)
        return (x, torch.full((1,), 0.5, **more), context, 64), {}

    return inputs


STEPS = (
    ("SDXL", (), (512, 1024), sdxl),
    ("FLUX.1-schnell", (2, 4), (1024,), flux),
    ("Z-Image", (4,), (1024,), z_image),
)


def products() -> list[dict]:
    """The relative error of each kernel's product at each width and number of tokens, to float64."""
    place = device()
    card = place.type == "cuda"
    errors = product_errors(
        list(default_backends().values()),
        tuple(FORMATS) if card else ("w4a8", "w8a8"),
        WIDTHS if card else CPU_WIDTHS,
        ROWS,
        place,
    )
    return [_row(one) for one in errors]


def _row(one: ProductError) -> dict:
    row = {"backend": one.backend, "format": str(one.form), "inputs": one.inputs}
    if one.out:
        return {**row, "out": one.out}
    errors = {f"error, {rows} rows": round(error, 4) for rows, error in one.errors.items()}
    return {**row, **errors, "kernel": one.kernel, "right": one.is_right}


def demo_model():
    """The demo model in the host, with its own text, and what compares its packed twins: the environment check's."""
    model, clip, _ = importlib.import_module("pack.nodes.demo_model").QSchedDemoModel.execute().args
    (text, extra), *_ = clip.encode_from_tokens_scheduled(clip.tokenize("an apple"))
    return _check().SmallModel(model, text, extra["pooled_output"])


def _check():
    return importlib.import_module("pack.nodes.environment.model_check")


def loras(demo) -> list[dict]:
    """Of a LoRA's effect on the float model with the rounded weights: how much is there on the quantised one, and its
    cosine."""
    rows = []
    for name, backend, twin in demo.twins():
        floats = demo.with_weights_of(twin)
        for size in LORA_SIZES:
            effect = _check().effect_of(demo.lora_change(twin, size), demo.lora_change(floats, size))
            row = {"format": name, "backend": backend, "lora": size}
            rows.append(row | {"effect": round(effect.part, 3), "cosine": round(effect.cosine, 3)})
    return rows


def partial_loads(demo) -> list[dict]:
    """The largest difference between the outputs of a fully and a partly loaded model, relative to the output."""
    rows = []
    for name, backend, twin in demo.twins():
        patcher = demo.with_lora(twin, 0.05)
        full = demo.output(patcher)
        row = {"format": name, "backend": backend}
        for share in SHARES:
            off = _check().difference(demo.partly_loaded(patcher, share), full)
            row[f"difference, {share:.0%} in memory"] = round(off, 6)
        rows.append(row)
    return rows


def with_preset(demo) -> list[dict]:
    """Seconds of four steps with and without a preset, in one run: the coefficients are two products a step."""
    sampling, patch = (importlib.import_module(f"pack.nodes.sampling.{name}") for name in ("ksampler", "patch"))
    core = importlib.import_module("pack.qsched_core")
    recipe = sampling.Recipe(4, 1.0, "euler", "simple")
    preset = core.Preset(core.Coefficients.constant(4, c_x=1.01, c_eps=0.99), recipe.sigmas(demo.model))
    channels = demo.x.shape[1]
    latent = {"samples": torch.zeros(1, channels, 64, 64) if torch.cuda.is_available() else torch.zeros_like(demo.x)}
    text = [[demo.text, {"pooled_output": demo.pooled}]]
    rows = []
    for name, backend, twin in demo.twins():
        ways = {"without": twin, "with": patch.model_with(twin, patch.PresetUse(preset))}
        runs = {
            way: partial(sampling.sample_latent, patcher, recipe, 7, text, text, latent)
            for way, patcher in ways.items()
        }
        seconds = timed(runs)
        ratio = round(seconds["with"] / seconds["without"], 3)
        rows.append({"format": name, "backend": backend, "seconds": round(seconds["with"], 4), "with/without": ratio})
    return rows


def steps() -> list[dict]:
    """Seconds and peak memory of a step, each network and side, every way in one run."""
    place, dtype, rows = device(), torch.bfloat16, []
    makers = families("cuda", dtype)
    for family, depths, sides, inputs in STEPS:
        make, _ = makers[family]
        for name, backend in WAYS:
            torch.cuda.empty_cache()
            network = randomised(make(*depths))
            row = {"network": family, "blocks": depths, "format": name or "bf16", "backend": backend}
            try:
                if name:
                    report = qs.quantize(network, name, backend=backend, device=place)
                    row["kernels"] = sorted({f"{one.backend}: {one.kernel}" for one in report.quantized})
            except QuantizationError as error:
                rows.append({**row, "not_run": str(error)})
                continue
            row["weights_gb"] = round(torch.cuda.memory_allocated() / 1e9, 2)
            for side in sides:
                arguments, options = inputs(side)(place, dtype)
                torch.cuda.reset_peak_memory_stats()
                row[f"{side} seconds"] = round(timed({"": partial(network, *arguments, **options)})[""], 4)
                row[f"{side} peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            rows.append(row)
            del network
    return rows


def main() -> None:
    start = time.perf_counter()
    import_host()
    import_pack()
    torch.manual_seed(0)
    card = torch.cuda.is_available()
    with torch.inference_mode():
        demo = demo_model()
        result = {"ran_as": "on a card" if card else "on the CPU: what follows says nothing of a card"}
        result |= {"products": products(), "lora_effect": loras(demo), "partial_load": partial_loads(demo)}
        result["preset"] = with_preset(demo)
        result["steps"] = steps() if card else "not run: no GPU"
    result |= {"failed_in_run": trials.failures(), "seconds": round(time.perf_counter() - start, 1)}
    record("gpu", result, on_demo=True)


if __name__ == "__main__":
    main()
