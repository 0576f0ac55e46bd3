"""Layers as files in the host's own formats hold them, by the host's own packing."""

from __future__ import annotations

import json

import torch

ROTATION = {"convrot_groupsize": 64}


def settings_of(algo: str) -> tuple[str, dict, dict]:
    """(the host's name, options of its packing, what the file says of a layer)."""
    if algo == "convrot":
        return "int8_tensorwise", {"per_channel": True, "convrot": True, **ROTATION}, {"convrot": True, **ROTATION}
    if algo == "int8_tensorwise":
        return algo, {"per_channel": True}, {}
    if algo in ("convrot_w4a4", "asym_w4a8_int8"):
        return algo, dict(ROTATION), dict(ROTATION)
    return algo, {"scale": "recalculate"} if algo.startswith("float8") else {}, {}


def packed(name: str, weight: torch.Tensor, algo: str) -> dict[str, torch.Tensor]:
    """A layer's part of a file in one of the host's formats, by the host's own packing."""
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    algo, options, conf = settings_of(algo)
    value = QuantizedTensor.from_float(weight, QUANT_ALGOS[algo]["comfy_tensor_layout"], **options)
    text = json.dumps({"format": algo, **conf}).encode()
    parts = {key: part.clone() for key, part in value.state_dict(f"{name}.weight").items()}
    return {**parts, f"{name}.comfy_quant": torch.tensor(list(text), dtype=torch.uint8)}
