"""What is left of a LoRA's effect on a quantised model: ``python -m benchmarks.lora_effect``, with a ComfyUI at hand.

A LoRA on every layer of the demo model's blocks changes the network's output by some d. The same LoRA on the quantised
model changes its output by e. Kept: <e, d> / <d, d>, which should be 1. Cosine: <e, d> / |e||d|, which the rounding of
activations limits. Four ways: the LoRA after quantising, fully and partially loaded; before quantising; saved to a file
and loaded again. Then every other kind of adapter, and a U-Net with convolutions. Last, one Linear and one Conv2d with
every adapter of every size in every format, on the inputs that they get in their network.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from .adapters import ADAPTERS, patch_of
from .in_host import import_host, import_pack
from .record import record

SIZES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Norm of the change beside the norm of the weight. LoRAs are of the order of 1 %."""

FORMATS = (
    ("torch", "w3a8"), ("torch", "w4a8"), ("torch", "w4a16"), ("torch", "w6a8"), ("torch", "w8a8"),
    ("torch", "w8a16"), ("kitchen", "w8a8"), ("kitchen", "w4a8"),
)  # fmt: skip
CALLS, BATCH = 4, 8


class Network:
    """A MODEL and the inputs that it is called with."""

    def __init__(self, model, context: Tensor, vector: Tensor | None, channels: int, side: int):
        generator = torch.Generator().manual_seed(0)
        self.model = model
        self.x = torch.randn(CALLS, BATCH, channels, side, side, generator=generator)
        self.more = {"c_crossattn": context.expand(BATCH, -1, -1)}
        if vector is not None:
            self.more["y"] = vector.expand(BATCH, -1)

    def output(self, patcher) -> Tensor:
        """Of the MODEL as it is loaded now."""
        times = torch.linspace(0.2, 0.95, CALLS)
        calls = zip(self.x, times, strict=True)
        return torch.cat([patcher.model.apply_model(x, t.expand(BATCH), **self.more).float() for x, t in calls])

    def loaded(self, patcher) -> Tensor:
        import comfy.model_management

        comfy.model_management.load_models_gpu([patcher])
        return self.output(patcher)

    def partially_loaded(self, patcher) -> Tensor:
        import comfy.model_management

        comfy.model_management.unload_all_models()
        patcher.patch_model(patcher.load_device, lowvram_model_memory=1)
        try:
            return self.output(patcher)
        finally:
            patcher.unpatch_model(patcher.offload_device)

    def patched(self, patcher, kind: str, size: float):
        """A clone with one adapter for every layer of the blocks."""
        layers = {
            name: layer
            for name, layer in self.model.model.named_modules()
            if isinstance(layer, (nn.Linear, nn.Conv2d)) and "_blocks" in name and layer.weight.numel() >= 4096
        }
        clone = patcher.clone()
        patches = {
            f"{name}.weight": patch_of(kind, layer.weight, size, seed)
            for seed, (name, layer) in enumerate(layers.items())
            if len(layer.weight) % 16 == 0 and layer.weight.shape[1] % 4 == 0
        }
        keys = clone.add_patches(patches)
        assert len(keys) == len(patches)
        return clone


def demo_network() -> Network:
    model, clip, _ = importlib.import_module("pack.nodes.demo_model").QSchedDemoModel.execute().args
    tokens, more = clip.encode_from_tokens_scheduled(clip.tokenize("an apple"))[0]
    vector = model.model.encode_adm(pooled_output=more["pooled_output"], width=128, height=128, device="cpu")
    return Network(model, tokens, vector, 16, 16)


def unet_network() -> Network:
    from .sampling_overhead import unet

    return Network(unet(64), torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(1)), None, 4, 8)


def quantized(model, backend: str, format: str):
    twin, backends = (importlib.import_module(f"pack.nodes.quantization.{name}") for name in ("twin_model", "backends"))
    recipe = "stock" if backend == "kitchen" else "compact"
    return twin.quantized_twin(model, backends.job_for(model, format, None, backend, recipe))[0]


def through_a_file(patcher):
    files = importlib.import_module("pack.nodes.quantization.files")
    with tempfile.TemporaryDirectory() as folder:
        files.save_model(patcher, Path(folder) / "model.safetensors")
        return files.load_model(Path(folder) / "model.safetensors")


def effect(change: Tensor, float_change: Tensor) -> dict[str, float]:
    along = (change * float_change).sum()
    return {
        "kept": round((along / float_change.square().sum()).item(), 4),
        "cosine": round((along / (float_change.norm() * change.norm()).clamp(min=1e-20)).item(), 4),
    }


def lora_table(network: Network) -> dict:
    """{format: {size: {way: kept and cosine}}}"""
    table: dict = {}
    plain = network.loaded(network.model)
    float_changes = {size: network.loaded(network.patched(network.model, "lora", size)) - plain for size in SIZES}
    for backend, format in FORMATS:
        try:
            twin = quantized(network.model, backend, format)
        except ValueError as error:
            table[f"{backend} {format}"] = str(error).splitlines()[0]
            continue
        base = network.loaded(twin)
        rows = table[f"{backend} {format}"] = {}
        for size in SIZES:
            after = network.patched(twin, "lora", size)
            before = quantized(network.patched(network.model, "lora", size), backend, format)
            rows[str(size)] = {
                "loaded": effect(network.loaded(after) - base, float_changes[size]),
                "partially loaded": effect(network.partially_loaded(after) - base, float_changes[size]),
                "before quantising": effect(network.loaded(before) - base, float_changes[size]),
                "saved and loaded": effect(network.loaded(through_a_file(after)) - base, float_changes[size]),
            }
            print(backend, format, size, rows[str(size)], flush=True)
    return table


def adapter_table(network: Network, formats=("w4a8", "w4a16"), size: float = 0.02) -> dict:
    """{format: {adapter: {way: kept and cosine}}} of changes by ``size``."""
    table: dict = {}
    plain = network.loaded(network.model)
    for format in formats:
        twin = quantized(network.model, "torch", format)
        base = network.loaded(twin)
        rows = table[format] = {}
        for kind in ADAPTERS:
            float_change = network.loaded(network.patched(network.model, kind, size)) - plain
            after = network.patched(twin, kind, size)
            rows[kind] = {
                "loaded": effect(network.loaded(after) - base, float_change),
                "partially loaded": effect(network.partially_loaded(after) - base, float_change),
            }
            print(format, kind, rows[kind], flush=True)
    return table


LAYERS = {
    "Linear": (demo_network, "diffusion_model.double_blocks.0.img_attn.qkv"),
    "Conv2d": (unet_network, "diffusion_model.input_blocks.1.0.in_layers.2"),
}


def layer_table() -> dict:
    """{kind of layer: {format: {adapter: {size: {way: kept and cosine}}}}} of the output of one layer."""
    table: dict = {}
    for kind, (make_network, name) in LAYERS.items():
        network, table[kind] = make_network(), {}
        layer, key = network.model.model.get_submodule(name), f"{name}.weight"
        output = partial(output_of_layer, name=name, x=input_of(network, name))
        plain = output(network.model)
        for backend, format in FORMATS:
            try:
                twin = quantized(network.model, backend, format)
            except ValueError:  # a row says so in the first table
                continue
            if not hasattr(twin.model.get_submodule(name), "float_weight"):
                continue  # the host's kernels take no convolution
            base = output(twin)
            rows = table[kind][f"{backend} {format}"] = {adapter: {} for adapter in ADAPTERS}
            for adapter, size in product(ADAPTERS, SIZES):
                patch = {key: patch_of(adapter, layer.weight, size)}
                after, float_clone = twin.clone(), network.model.clone()
                after.add_patches(patch)
                float_clone.add_patches(patch)
                float_change = output(float_clone) - plain
                rows[adapter][str(size)] = {
                    "loaded": effect(output(after) - base, float_change),
                    "partially loaded": effect(output(after, partially=True) - base, float_change),
                    "before quantising": effect(output(quantized(float_clone, backend, format)) - base, float_change),
                }
            print(kind, backend, format, {adapter: sizes["0.01"] for adapter, sizes in rows.items()}, flush=True)
    return table


def input_of(network: Network, name: str) -> Tensor:
    """What the layer gets in the network's calls."""
    inputs = []
    hook = network.model.model.get_submodule(name).register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    network.loaded(network.model)
    hook.remove()
    return torch.cat(inputs)


def output_of_layer(patcher, name: str, x: Tensor, partially: bool = False) -> Tensor:
    import comfy.model_management

    comfy.model_management.unload_all_models()
    patcher.patch_model(patcher.load_device, lowvram_model_memory=1 if partially else 0)
    try:
        return patcher.model.get_submodule(name)(x).float()
    finally:
        patcher.unpatch_model(patcher.offload_device)


def main() -> None:
    warnings.simplefilter("ignore")
    import_host()
    import_pack()
    torch.set_num_threads(1)
    with torch.inference_mode(), contextlib.suppress(KeyboardInterrupt):
        demo = demo_network()
        tables = {"demo model, a LoRA on every layer": lora_table(demo)}
        tables["demo model, every adapter at 2 %"] = adapter_table(demo)
        tables["U-Net with convolutions, every adapter at 2 %"] = adapter_table(unet_network())
        tables["one layer, every adapter and size"] = layer_table()
        record("lora_effect", tables, on_demo=True)


if __name__ == "__main__":
    main()
