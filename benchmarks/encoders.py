"""The text encoders that sizes are stated for: the host's own classes at the published hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def encoders() -> dict[str, tuple[Callable[[int], nn.Module], int]]:
    """How to make each encoder on the meta device, given how often the block of its largest part repeats; and how often
    it really does. The names say whose they are."""
    import comfy.sdxl_clip
    import comfy.text_encoders.flux as flux
    import comfy.text_encoders.lumina2 as lumina2
    import comfy.text_encoders.qwen_image as qwen_image
    import comfy.text_encoders.wan as wan
    import comfy.text_encoders.z_image as z_image
    from comfy import sd1_clip

    def made(kind: type[nn.Module], name: str, setting: str = "num_hidden_layers", **options):
        def make(blocks: int) -> nn.Module:
            sizes = {f"{name}_model_config": {setting: blocks}}
            return kind(device=torch.device("meta"), dtype=torch.float32, model_options=sizes, **options)

        return make

    return {
        "SD1.5: CLIP-L": (made(sd1_clip.SD1ClipModel, "clip_l"), 12),
        "SDXL: CLIP-L, CLIP-G": (made(comfy.sdxl_clip.SDXLClipModel, "clip_g"), 32),
        "FLUX.1: CLIP-L, T5-XXL": (made(flux.FluxClipModel, "t5xxl", "num_layers", dtype_t5=torch.float32), 24),
        "Z-Image, FLUX.2-klein: Qwen3 4B": (made(z_image.te(), "qwen3_4b"), 36),
        "Lumina 2: Gemma 2 2B": (made(lumina2.te(), "gemma2_2b"), 26),
        "Qwen-Image: Qwen2.5-VL 7B": (made(qwen_image.te(), "qwen25_7b"), 28),
        "Wan: UMT5-XXL": (made(wan.te(), "umt5xxl", "num_layers"), 24),
    }
