"""What whole models weigh after quantising, against FP16: ``python -m benchmarks.model_bytes``.

The host's own networks at the published sizes, their weights one shared zero each: selection and packing formats are
the real ones, and only the bytes are counted, so nothing of a model's size is ever held.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import qsched_core.quant as quant
from qsched_core.quant.packing import row_bytes
from qsched_core.quant.quantize import quantized_layers

from .in_host import import_host
from .record import record

TARGETS = {"SDXL": 0.29, "SD1.5": 0.30, "FLUX.1-schnell": 0.285, "Z-Image": None}


class _SizedLinear(quant.QuantizedLinear):
    """As many bytes as the packed layer, without packing it."""

    @classmethod
    def like(cls, layer, weight, bias, form):
        return cls(torch.empty(weight.shape[0], row_bytes(weight.shape[1], form), dtype=torch.uint8), None, 1, form)

    def dequantized(self, *arguments) -> Tensor:
        return torch.zeros(())


class _SizedConv2d(quant.QuantizedConv2d):
    @classmethod
    def like(cls, layer, weight, bias, form):
        columns = weight[0].numel()
        return cls(torch.empty(weight.shape[0], row_bytes(columns, form), dtype=torch.uint8), None, (1,), form)

    def dequantized(self, *arguments) -> Tensor:
        return torch.zeros(())


def families() -> dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]]:
    """How to make each network on the meta device at the published widths, and how often its blocks repeat."""
    import comfy.ops
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.lumina.model import NextDiT
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    common = {"device": torch.device("meta"), "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    unet = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320} | common
    unet |= {"use_spatial_transformer": True, "legacy": False}
    sd15 = {
        "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "num_heads": 8, "context_dim": 768,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1] * 9 + [0] * 3, "use_linear_in_transformer": False,
    }  # fmt: skip
    sdxl = {
        "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "num_head_channels": 64, "context_dim": 2048,
        "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "use_linear_in_transformer": True,
        "num_classes": "sequential", "adm_in_channels": 2816,
    }  # fmt: skip
    flux = {
        "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072,
        "mlp_ratio": 4.0, "num_heads": 24, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2,
        "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [],
    }  # fmt: skip
    z_image = {
        "patch_size": 2, "in_channels": 16, "dim": 3840, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30,
        "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "cap_feat_dim": 2560, "qk_norm": True,
        "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True, "time_scale": 1000.0,
    }  # fmt: skip
    return {
        "SD1.5": (lambda: UNetModel(**unet, **sd15), ()),
        "SDXL": (lambda: UNetModel(**unet, **sdxl), ()),
        "FLUX.1-schnell": (
            lambda double, single: Flux(**common, **flux, depth=double, depth_single_blocks=single), (19, 38)
        ),
        "Z-Image": (lambda layers: NextDiT(**common, **z_image, n_layers=layers), (30,)),
    }  # fmt: skip


def whole(make: Callable[..., nn.Module], depths: tuple[int, ...], form: quant.Format, recipe: str) -> list[int]:
    """[parameters, bytes as FP16, bytes packed]: one block of each kind is weighed, and counted."""
    ones = [1] * len(depths)
    base = weigh(make(*ones), form, recipe)
    total = list(base)
    for kind, depth in enumerate(depths):
        two = weigh(make(*[count + (i == kind) for i, count in enumerate(ones)]), form, recipe)
        total = [t + (depth - 1) * (b - a) for t, a, b in zip(total, base, two, strict=True)]
    return total


def weigh(network: nn.Module, form: quant.Format, recipe: str) -> tuple[int, int, int]:
    """(parameters, bytes as FP16, bytes packed) of a network."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_meta:
                shared = torch.zeros(1).expand(parameter.numel()).view(parameter.shape)
                module._parameters[name] = nn.Parameter(shared, requires_grad=False)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    twins = {nn.Linear: _SizedLinear, nn.Conv2d: _SizedConv2d}
    reports = [report for _, report in quantized_layers(network, form, recipe=recipe, twins=twins)]
    saved = sum(report.bytes_before - report.bytes_after for report in reports)
    return parameters, 2 * parameters, 2 * parameters - saved


def main() -> None:
    import_host()
    result = {}
    for family, (make, depths) in families().items():
        found = {"target_compact_w4a8": TARGETS[family]}
        for name in ("w4a8", "w8a8"):
            for recipe in ("compact", "stock"):
                found["parameters"], before, after = whole(make, depths, quant.resolve_format(name), recipe)
                found[f"{name} {recipe}"] = round(after / before, 4)
        result[family] = found
        print(family, found, flush=True)
    record("model_bytes", result)


if __name__ == "__main__":
    main()
