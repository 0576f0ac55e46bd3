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
from ..scenes import caption_of
from ..vocabulary import BEGIN, CONTEXT_LENGTH, END, UNKNOWN, VOCABULARY_SIZE, compact_ids
from .loop import Schedule, Workshop, train


class Painter(nn.Module):
    """Velocity (B, 16, 8, 8) of latents at time t in [0, 1] (1 = noise), given token ids (B, 16)."""

    def __init__(self) -> None:
        super().__init__()
        config = CLIPTextConfig(
            vocab_size=VOCABULARY_SIZE, bos_token_id=BEGIN, eos_token_id=END, pad_token_id=END, **TEXT_CONFIG
        )
        self.text = CLIPTextModel(config)
        self.flux = FluxTransformer2DModel(**FLUX_CONFIG)
        grid = torch.stack(torch.meshgrid(torch.zeros(1), torch.arange(4.0), torch.arange(4.0), indexing="ij"), dim=-1)
        self.register_buffer("image_ids", grid.view(16, 3), persistent=False)
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
        return F.pixel_shuffle(out.transpose(1, 2).unflatten(2, (4, 4)), 2)

    def walk(self, latents: Tensor, text: tuple[Tensor, Tensor], start: float, end: float, steps: int) -> Tensor:
        """Euler from time ``start`` down to ``end``."""
        width = (end - start) / steps
        for i in range(steps):
            time = torch.full((len(latents),), start + i * width)
            latents = latents + width * self(latents, time, text)
        return latents


def train_flow(shop: Workshop, rows: Tensor, latents: Tensor, schedule: Schedule, batch: int = 32) -> Painter:
    torch.manual_seed(43)
    painter = Painter()
    tokens = compact_ids([caption_of(row) for row in rows])
    empty = compact_ids([""])[0]

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        indices = torch.randint(len(tokens), (batch,), generator=generator)
        words = tokens[indices].clone()
        words[(torch.rand(words.shape, generator=generator) < 0.005) & (words < UNKNOWN)] = UNKNOWN
        words[torch.rand(batch, generator=generator) < 0.04] = empty
        clean = latents[indices]
        noise = torch.randn(clean.shape, generator=generator)
        # Half of the times are uniform, half near pure noise: the first of few steps decides what is where.
        uniform = torch.rand(batch, generator=generator)
        time = torch.where(torch.arange(batch) % 2 == 0, uniform, uniform.sqrt())
        blend = torch.lerp(clean, noise, time.view(-1, 1, 1, 1))
        error = painter(blend, time, painter.read(words)) - (noise - clean)
        return error.square().mean(), {}

    train(shop, "flow", painter, schedule, loss, average=0.998, log_every=200)
    return painter
