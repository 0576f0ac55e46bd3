"""Random checkpoints of the real architectures as MODELs, and what they sample."""

from __future__ import annotations

import torch

from scripts.layout import CACHE
from scripts.random_models import write


def family(name: str):
    """(MODEL, conditioning, channels) of a random checkpoint of the real architecture, by the stock loader."""
    import comfy.sd

    file = write(name, CACHE / "random-models")
    width, pooled, channels = {"sd15": (768, 0, 4), "sdxl": (2048, 1280, 4), "flux1-schnell": (4096, 768, 16)}[name]
    generator = torch.Generator().manual_seed(1)
    vector = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    texts = [[torch.randn(1, 8, width, generator=generator), vector]]
    if name == "flux1-schnell":
        return comfy.sd.load_diffusion_model(str(file)), texts, channels
    return comfy.sd.load_checkpoint_guess_config(str(file), output_clip=False)[0], texts, channels


def picture(model, texts, channels: int) -> torch.Tensor:
    import comfy.sample

    noise = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(2))
    return comfy.sample.sample(
        model, noise, 2, 1.0, "euler", "simple", texts, texts, torch.zeros_like(noise), disable_pbar=True, seed=1
    )
