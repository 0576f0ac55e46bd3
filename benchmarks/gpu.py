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
from torch import Tensor, nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import FORMATS, Backend
from qsched_core.quant import trial as trials
from qsched_core.quant.backends import default_backends

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
    dtype = torch.bfloat16 if card else torch.float32
    return [
        _product(backend, name, width, place, dtype)
        for backend in default_backends().values()
        for name in (FORMATS if card else ("w4a8", "w8a8"))
        for width in (WIDTHS if card else CPU_WIDTHS)
        if not backend.missing(backend.form(name), place)
    ]


def _product(backend: Backend, name: str, width: int, place: torch.device, dtype: torch.dtype) -> dict:
    form, layer = backend.form(name), nn.Linear(width, 256)
    row = {"backend": backend.name, "format": str(form), "inputs": width}
    if reason := backend.refusal(layer, form, place):
        return {**row, "out": reason}
    twin = backend.twin(layer, layer.weight.detach().to(place, dtype), None, form).to(place)
    for rows in ROWS:
        x = trials.numbers(rows, width, seed=rows).to(place, dtype)
        row[f"error, {rows} rows"] = round(
            trials.relative_error(twin(x), x.cpu().double() @ layer.weight.double().T), 4
        )
    return {**row, "kernel": backend.kernel(layer, form, place)}


class Demo:
    """The demo model in the host, and its output for one input."""

    def __init__(self) -> None:
        self.model, clip, _ = importlib.import_module("pack.nodes.demo_model").QSchedDemoModel.execute().args
        (self.text, self.extra), *_ = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle"))
        channels = self.model.get_model_object("latent_format").latent_channels
        self.x = torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(0))

    def output(self, patcher, load: bool = True) -> Tensor:
        import comfy.model_management

        if load:
            comfy.model_management.load_models_gpu([patcher])
        place = patcher.load_device
        options = {"c_crossattn": self.text.expand(4, -1, -1).to(place)}
        pooled = self.extra["pooled_output"]
        vector = patcher.model.encode_adm(pooled_output=pooled, width=64, height=64, device=place)
        if vector is not None:
            options["y"] = vector.expand(4, -1).to(place)
        return patcher.model.apply_model(self.x.to(place), torch.full((4,), 0.5, device=place), **options).float().cpu()

    def twins(self):
        """(format, backend, quantised MODEL) of each way that this machine and host have."""
        load = importlib.import_module
        for name, backend in WAYS[1:]:
            try:
                yield name, backend, self._twin(name, backend)
            except load("pack.qsched_core").QuantizationError as error:
                print(f"not here: {name} by {backend}, {error}")

    def _twin(self, format: str, backend: str):
        load = importlib.import_module
        job = load("pack.nodes.quantization.backends").job_for(self.model, format, None, backend)
        return load("pack.nodes.quantization.twin_model").quantized_twin(self.model, job)[0]

    def with_lora(self, patcher, size: float):
        """A LoRA of rank 16 whose product has ``size`` times the norm of each layer's weight."""
        import comfy.sd

        generator, values = torch.Generator().manual_seed(3), {}
        for name, layer in self.model.model.diffusion_model.named_modules():
            if isinstance(layer, nn.Linear) and "_blocks" in name:
                rows, columns = layer.weight.shape
                up, down = (torch.randn(shape, generator=generator) for shape in ((rows, 16), (16, columns)))
                key = f"diffusion_model.{name}"
                values[f"{key}.lora_up.weight"] = up * (size * layer.weight.float().norm().cpu() / (up @ down).norm())
                values |= {f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(16.0)}
        return comfy.sd.load_lora_for_models(patcher, None, values, 1.0, 0.0)[0]


def loras(demo: Demo) -> list[dict]:
    """Of a LoRA's effect on the float model's output: how much is there on the quantised one, and its cosine."""
    found, plain = [], demo.output(demo.model)
    effects = {size: demo.output(demo.with_lora(demo.model, size)) - plain for size in LORA_SIZES}
    for name, backend, twin in demo.twins():
        quantised = demo.output(twin)
        for size, exact in effects.items():
            effect = demo.output(demo.with_lora(twin, size)) - quantised
            part, norm = (effect * exact).sum(), exact.norm()
            row = {"format": name, "backend": backend, "lora": size, "effect": round((part / norm**2).item(), 3)}
            found.append(row | {"cosine": round((part / (norm * effect.norm().clamp(min=1e-20))).item(), 3)})
    return found


def partial_loads(demo: Demo) -> list[dict]:
    """The largest difference between the outputs of a fully and a partly loaded model, relative to the output."""
    import comfy.model_management

    found = []
    for name, backend, twin in demo.twins():
        patcher = demo.with_lora(twin, 0.05)
        full = demo.output(patcher)
        row = {"format": name, "backend": backend}
        for share in SHARES:
            comfy.model_management.unload_all_models()
            patcher.model_patches_to(patcher.load_device)
            patcher.patch_model(patcher.load_device, lowvram_model_memory=max(1, int(share * patcher.model_size())))
            difference = (demo.output(patcher, load=False) - full).norm() / full.norm()
            row[f"difference, {share:.0%} in memory"] = round(difference.item(), 6)
            patcher.unpatch_model(patcher.offload_device)
        found.append(row)
    return found


def with_preset(demo: Demo) -> list[dict]:
    """Seconds of four steps with and without a preset, in one run: the coefficients are two products a step."""
    sampling, patch = (importlib.import_module(f"pack.nodes.sampling.{name}") for name in ("ksampler", "patch"))
    core = importlib.import_module("pack.qsched_core")
    recipe = sampling.Recipe(4, 1.0, "euler", "simple")
    preset = core.Preset(core.Coefficients.constant(4, c_x=1.01, c_eps=0.99), recipe.sigmas(demo.model))
    channels = demo.x.shape[1]
    latent = {"samples": torch.zeros(1, channels, 64, 64) if torch.cuda.is_available() else torch.zeros_like(demo.x)}
    text = [[demo.text, demo.extra]]
    found = []
    for name, backend, twin in demo.twins():
        ways = {"without": twin, "with": patch.apply_preset(twin, patch.PresetUse(preset))}
        runs = {
            way: partial(sampling.sample_latent, patcher, recipe, 7, text, text, latent)
            for way, patcher in ways.items()
        }
        seconds = timed(runs)
        ratio = round(seconds["with"] / seconds["without"], 3)
        found.append({"format": name, "backend": backend, "seconds": round(seconds["with"], 4), "with/without": ratio})
    return found


def steps() -> list[dict]:
    """Seconds and peak memory of a step, each network and side, every way in one run."""
    place, dtype, found = device(), torch.bfloat16, []
    made = families("cuda", dtype)
    for family, depths, sides, inputs in STEPS:
        make, _ = made[family]
        for name, backend in WAYS:
            torch.cuda.empty_cache()
            network = randomised(make(*depths))
            row = {"network": family, "blocks": depths, "format": name or "bf16", "backend": backend}
            try:
                if name:
                    report = qs.quantize(network, name, backend=backend, device=place)
                    row["kernels"] = sorted({f"{one.backend}: {one.kernel}" for one in report.quantized})
            except QuantizationError as error:
                found.append({**row, "not_run": str(error)})
                continue
            row["weights_gb"] = round(torch.cuda.memory_allocated() / 1e9, 2)
            for side in sides:
                arguments, options = inputs(side)(place, dtype)
                torch.cuda.reset_peak_memory_stats()
                row[f"{side} seconds"] = round(timed({"": partial(network, *arguments, **options)})[""], 4)
                row[f"{side} peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            found.append(row)
            del network
    return found


def main() -> None:
    start = time.perf_counter()
    import_host()
    import_pack()
    torch.manual_seed(0)
    card = torch.cuda.is_available()
    with torch.inference_mode():
        demo = Demo()
        result = {"ran_as": "on a card" if card else "on the CPU: what follows says nothing of a card"}
        result |= {"products": products(), "lora_effect": loras(demo), "partial_load": partial_loads(demo)}
        result["preset"] = with_preset(demo)
        result["steps"] = steps() if card else "not run: no GPU"
    result |= {"failed_in_run": trials.failures(), "seconds": round(time.perf_counter() - start, 1)}
    record("gpu", result)


if __name__ == "__main__":
    main()
