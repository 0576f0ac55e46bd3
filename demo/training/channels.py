"""Uneven channels, as large models have them: the same function, harder to round.

What a real transformer's layers see is uneven: a few channels are many times the others, and four bits that must
reach the largest leave little for the rest (SmoothQuant, arXiv 2211.10438; SVDQuant, arXiv 2411.05007). A toy that was
trained for an hour has even channels, and four bits hardly hurt it. So each normalised channel is given a factor, and
the layers behind it are divided by it: in full precision nothing changes but the last bits.
"""

from __future__ import annotations

import torch
from diffusers import FluxTransformer2DModel
from torch import nn

SPREAD = 0.7
"""Standard deviation of the factors' logarithms: the largest of 256 is some seven times the middle one. Those of large
models are tens of times; at 1.0 four bits leave nothing of this toy's pictures."""

SEED = 47
"""Of the factors: with it and ``-SPREAD`` the model has its even channels again (``benchmarks/channels.py``)."""


@torch.no_grad()
def spread_channels(flux: FluxTransformer2DModel, spread: float = SPREAD) -> None:
    """In place: every modulated normalisation gets uneven channels, the Linear layers that read it undo them."""
    generator = torch.Generator().manual_seed(SEED)
    for block in flux.transformer_blocks:
        attention = block.attn
        image = (attention.to_q, attention.to_k, attention.to_v)
        text = (attention.add_q_proj, attention.add_k_proj, attention.add_v_proj)
        for norm, readers, hidden in ((block.norm1, image, block.ff), (block.norm1_context, text, block.ff_context)):
            _spread(norm.linear, 0, readers, generator, spread)
            _spread(norm.linear, 3, (hidden.net[0].proj,), generator, spread)
    for block in flux.single_transformer_blocks:
        attention = block.attn
        _spread(
            block.norm.linear, 0, (attention.to_q, attention.to_k, attention.to_v, block.proj_mlp), generator, spread
        )


def _spread(
    modulation: nn.Linear, place: int, readers: tuple[nn.Linear, ...], generator: torch.Generator, spread: float
) -> None:
    """``modulation`` gives shift and scale (at ``place`` and after it) of normalised x: x·(1 + scale) + shift."""
    width = readers[0].in_features
    factors = torch.exp(spread * torch.randn(width, generator=generator))
    shift, scale = (slice((place + i) * width, (place + i + 1) * width) for i in (0, 1))
    for part in (shift, scale):
        modulation.weight[part] *= factors.unsqueeze(1)
        modulation.bias[part] *= factors
    modulation.bias[scale] += factors - 1
    for reader in readers:
        reader.weight /= factors
