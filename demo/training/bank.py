"""Damaged pictures for the judges to learn from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..scenes import draw, sample_scenes
from .autoencoder import Codec
from .loop import Workshop, half_precision

DAMAGED_COUNT = 3_000
CHUNK_SIZE = 20


@torch.no_grad()
def make_damaged(shop: Workshop, codec: Codec) -> dict[str, Tensor]:
    """Rows (DAMAGED_COUNT, 7), decoded pictures (DAMAGED_COUNT, 3, 128, 128) and their damage in [0, 1]."""
    if (bank := shop.load("damaged")) is not None:
        return bank
    generator = torch.Generator().manual_seed(29)
    rows = sample_scenes(DAMAGED_COUNT, generator)
    severity = torch.rand(DAMAGED_COUNT, generator=generator)
    severity[: DAMAGED_COUNT // 8] = 0
    pictures = []
    for chunk, amount in zip(rows.split(CHUNK_SIZE), severity.split(CHUNK_SIZE), strict=True):
        latents = codec.encode(draw(chunk, generator))
        with half_precision():
            output = codec.decode(_damage(latents, amount, generator))
        pictures.append(output.float().clamp(0, 1))
    bank = {"rows": rows, "pictures": torch.cat(pictures), "severity": severity}
    shop.save("damaged", bank)
    shop.log("damaged", pictures=DAMAGED_COUNT)
    return bank


def _damage(latents: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """What few steps and few bits do to a latent: noise, smoothing, or a ghost of another picture."""
    amount = severity.view(-1, 1, 1, 1)
    noisy = latents + 0.7 * amount * torch.randn(latents.shape, generator=generator)
    smooth = F.avg_pool2d(F.avg_pool2d(latents, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False)
    ghost = torch.lerp(latents, latents.roll(1, dims=0), 0.5 * amount)
    kind = torch.randint(3, (len(latents), 1, 1, 1), generator=generator)
    return torch.where(kind == 0, noisy, torch.where(kind == 1, torch.lerp(latents, smooth, amount), ghost))
