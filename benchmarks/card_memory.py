"""What FLUX.1-schnell with T5-XXL takes of a card of 8 GB, counted: ``python -m benchmarks.card_memory``.

Weights are those of benchmarks.model_bytes. Beside them stands what ComfyUI itself reserves for a part's activations,
by its own functions, as on an NVIDIA card; nothing of this was measured on one. ComfyUI brings the parts in one after
the other, and moves the others to RAM: what has to fit is the largest of them with its reserve.
"""

from __future__ import annotations

from unittest.mock import patch

import torch

from .encoders import autoencoders
from .in_host import import_host
from .record import earlier, record

CARD = 8 * 1024**3
SIDE = 1024
"""Pixels of a picture's side: what the model was trained for."""


def reserved() -> dict[str, float]:
    """GB that ComfyUI reserves beside the weights of each part."""
    import comfy.model_management as management
    import comfy.sd
    import comfy.supported_models

    latent, dtype = (1, 16, SIDE // 8, SIDE // 8), torch.bfloat16
    config = comfy.supported_models.FluxSchnell({
        "image_model": "flux", "in_channels": 16, "patch_size": 2, "out_channels": 16, "vec_in_dim": 768,
        "context_in_dim": 4096, "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 1,
        "depth_single_blocks": 1, "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "guidance_embed": False,
        "txt_ids_dims": [],
    })  # fmt: skip
    config.set_inference_dtype(dtype, None)
    base = config.get_model({}, "", device=torch.device("meta"))
    shapes = autoencoders()["FLUX.1, Z-Image"]().state_dict()
    vae = comfy.sd.VAE(sd={name: torch.zeros(value.shape, dtype=torch.float16) for name, value in shapes.items()})
    with patch.object(management, "pytorch_attention_flash_attention", lambda: True):
        sampling = base.memory_required(latent)
    # As its loader of models does it: at least so much, or what was asked for and what it leaves to others.
    least, rest = management.minimum_inference_memory(), management.extra_reserved_memory()
    estimates = {"encode the prompt": 0.0, "sample": sampling, "decode": vae.memory_used_decode(latent, dtype)}
    return {part: round(max(least, estimate + rest) / 1e9, 2) for part, estimate in estimates.items()}


def weights() -> dict[str, dict[str, float]]:
    """GB of each part in FP16 and packed."""
    sizes = earlier("model_bytes")
    model, encoder = sizes["FLUX.1-schnell"], sizes["text encoders"]["FLUX.1: CLIP-L, T5-XXL"]
    vae, plain = sizes["VAEs"]["FLUX.1, Z-Image"], 2 * model["parameters"] / 1e9
    return {
        "encode the prompt": {"FP16": encoder["GB at FP16"], "packed": encoder["GB in w4a8"]},
        "sample": {"FP16": round(plain, 2), "packed": round(plain * model["w4a8 compact"], 2)},
        "decode": {"FP16": vae["GB at FP16"], "packed": vae["GB in w8a16"]},
    }


def main() -> None:
    import_host()
    beside, rows = reserved(), weights()
    for part, row in rows.items():
        row["beside"] = beside[part]
        row["together FP16"], row["together packed"] = (
            round(row[form] + beside[part], 2) for form in ("FP16", "packed")
        )
    record("card_memory", {"card GB": round(CARD / 1e9, 2), "side": SIDE, "parts": rows})


if __name__ == "__main__":
    main()
