"""Text -> latents: FLUX-schnell's architecture at toy width, trained as a rectified flow.

Captions leave so little open that its paths are nearly straight: four Euler steps are as good as twelve (see
``figures.json``), so no distillation follows.
"""

from __future__ import annotations

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from ..networks import FLUX_CONFIG, TEXT_CONFIG
from ..scenes import PICTURE_SIZE, caption_of, draw, places, sample_scenes
from ..vocabulary import BEGIN, CONTEXT_LENGTH, END, UNKNOWN, VOCABULARY_SIZE, compact_ids
from .autoencoder import PATCH_SIZE, Codec
from .loop import Schedule, Workshop, half_precision, train

GRID_SIZE = PICTURE_SIZE // PATCH_SIZE
GROUND_WEIGHT = 0.3
"""A cell of plain ground in the loss, beside 1 for a cell of a thing."""


class Painter(nn.Module):
    """Velocity (B, 16, 16, 16) of latents at time t in [0, 1] (1 = noise), given token ids (B, 16)."""

    def __init__(self) -> None:
        super().__init__()
        config = CLIPTextConfig(
            vocab_size=VOCABULARY_SIZE, bos_token_id=BEGIN, eos_token_id=END, pad_token_id=END, **TEXT_CONFIG
        )
        self.text = CLIPTextModel(config)
        self.flux = FluxTransformer2DModel(**FLUX_CONFIG)
        grid = torch.stack(torch.meshgrid(torch.zeros(1), torch.arange(8.0), torch.arange(8.0), indexing="ij"), dim=-1)
        self.register_buffer("image_ids", grid.view(64, 3), persistent=False)
        self.register_buffer("text_ids", torch.zeros(CONTEXT_LENGTH, 3), persistent=False)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        out = self.text(input_ids=tokens)
        return out.last_hidden_state, out.pooler_output

    def forward(self, latents: Tensor, time: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        states, pooled = text
        out = self.flux(
            hidden_states=F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2),
            timestep=time,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            img_ids=self.image_ids,
            txt_ids=self.text_ids,
        ).sample
        return F.pixel_shuffle(out.transpose(1, 2).unflatten(2, (8, 8)), 2)

    def walk(self, latents: Tensor, text: tuple[Tensor, Tensor], start: float, end: float, steps: int) -> Tensor:
        """Euler from time ``start`` down to ``end``."""
        width = (end - start) / steps
        for i in range(steps):
            time = torch.full((len(latents),), start + i * width)
            latents = latents + width * self(latents, time, text)
        return latents


def train_flow(shop: Workshop, schedule: Schedule, batch: int = 32) -> Painter:
    torch.manual_seed(43)
    painter, codec = Painter(), Codec()
    empty = compact_ids([""])[0]

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = sample_scenes(batch, generator)
        clean = codec.encode(draw(rows, generator))
        words = compact_ids([caption_of(row) for row in rows])
        words[(torch.rand(words.shape, generator=generator) < 0.003) & (words < UNKNOWN)] = UNKNOWN
        words[torch.rand(batch, generator=generator) < 0.02] = empty
        noise = torch.randn(clean.shape, generator=generator)
        # Most times are near pure noise: the first of few steps decides what is where.
        time = 1 - torch.rand(batch, generator=generator).square()
        blend = torch.lerp(clean, noise, time.view(-1, 1, 1, 1))
        with half_precision():
            velocity = painter(blend, time, painter.read(words))
        error = (velocity.float() - (noise - clean)).square().mean(1)
        weight = thing_weights(rows)
        return (error * weight).sum() / weight.sum(), {}

    train(shop, "flow", painter, schedule, loss, average=0.998, orthogonal=True, log_every=50)
    return painter


def thing_weights(rows: Tensor) -> Tensor:
    """(B, 16, 16): 1 where a thing is, GROUND_WEIGHT elsewhere: plain ground is most of a picture and soon learned."""
    weights = torch.full((len(rows), GRID_SIZE, GRID_SIZE), GROUND_WEIGHT)
    for weight, row in zip(weights, rows.tolist(), strict=True):
        for _, x, y, width in places(row):
            left, top, right, bottom = x // PATCH_SIZE, y // PATCH_SIZE, x + width - 1, y + width - 1
            weight[top : bottom // PATCH_SIZE + 1, left : right // PATCH_SIZE + 1] = 1
    return weights
