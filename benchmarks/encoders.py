"""The text encoders and VAEs that sizes are stated for: the host's own classes at the published hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def encoders() -> dict[str, tuple[Callable[[int], nn.Module], int]]:
    """How to make each encoder on the meta device, given how often the block of its largest part repeats; and how often
    it really does. The names say whose they are."""
    import comfy.sdxl_clip
    import comfy.text_encoders.flux as flux
    import comfy.text_encoders.krea2 as krea2
    import comfy.text_encoders.lumina2 as lumina2
    import comfy.text_encoders.qwen_image as qwen_image
    import comfy.text_encoders.wan as wan
    import comfy.text_encoders.z_image as z_image
    from comfy import sd1_clip

    def maker(kind: type[nn.Module], name: str, setting: str = "num_hidden_layers", **options):
        def make(blocks: int) -> nn.Module:
            sizes = {f"{name}_model_config": {setting: blocks}}
            return kind(device=torch.device("meta"), dtype=torch.float32, model_options=sizes, **options)

        return make

    return {
        "SD1.5: CLIP-L": (maker(sd1_clip.SD1ClipModel, "clip_l"), 12),
        "SDXL: CLIP-L, CLIP-G": (maker(comfy.sdxl_clip.SDXLClipModel, "clip_g"), 32),
        "FLUX.1: CLIP-L, T5-XXL": (maker(flux.FluxClipModel, "t5xxl", "num_layers", dtype_t5=torch.float32), 24),
        "Z-Image, FLUX.2-klein: Qwen3 4B": (maker(z_image.te(), "qwen3_4b"), 36),
        "Lumina 2: Gemma 2 2B": (maker(lumina2.te(), "gemma2_2b"), 26),
        "Qwen-Image: Qwen2.5-VL 7B": (maker(qwen_image.te(), "qwen25_7b"), 28),
        "Krea-2: Qwen3-VL 4B": (maker(krea2.te(), "qwen3vl_4b"), 36),
        "Wan: UMT5-XXL": (maker(wan.te(), "umt5xxl", "num_layers"), 24),
    }


_KL = {
    "double_z": True, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
_WAN = {
    "dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
    "temperal_downsample": [False, True, True], "dropout": 0.0,
}  # fmt: skip


def autoencoders() -> dict[str, Callable[[], nn.Module]]:
    """How to make each VAE on the meta device."""
    import comfy.ldm.seedvr.vae as seedvr
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.wan.vae import WanVAE

    def on_meta(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def make_there() -> nn.Module:
            with torch.device("meta"):
                return make()

        return make_there

    return {
        "SD1.5, SDXL": on_meta(lambda: AutoencoderKL(ddconfig={**_KL, "z_channels": 4}, embed_dim=4)),
        "FLUX.1, Z-Image": on_meta(lambda: AutoencoderKL(ddconfig={**_KL, "z_channels": 16}, embed_dim=16)),
        "FLUX.2-klein": on_meta(lambda: AutoencoderKL(ddconfig={**_KL, "z_channels": 32}, embed_dim=32)),
        "Qwen-Image, Krea-2, Wan": on_meta(lambda: WanVAE(**_WAN)),
        "SeedVR2": on_meta(seedvr.VideoAutoencoderKLWrapper),
    }
