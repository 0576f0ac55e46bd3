"""Prompts that the demo model knows, their conditioning, and what it samples."""

from __future__ import annotations

import torch

PROMPTS = [
    f"a {size} {thing} on a {ground} background"
    for size in ("small", "large")
    for ground in ("white", "sky")
    for thing in ("apple", "star")
]
OBSERVED = tuple(
    f"a {size} {thing} on a {ground} background"
    for size, ground in (("large", "white"), ("small", "sand"))
    for thing in ("apple", "frog", "whale", "star")
)
UNSEEN = ("a small car on a sand background", "a large boat on a white background")
"""Of things that none of the others has."""


def encoded(demo: tuple, text: str) -> list:
    """The conditioning of a text, by the CLIP of the fixture `demo`."""
    return demo[1].encode_from_tokens_scheduled(demo[1].tokenize(text))


def picture(
    model, conditioning: list, sampler: str = "euler", steps: int = 4, seed: int = 1, side: int = 8, **part
) -> torch.Tensor:
    """The latent of the demo model, or of one made from it."""
    import comfy.sample

    latent = torch.zeros(1, 16, side, side)
    noise = comfy.sample.prepare_noise(latent, seed)
    return comfy.sample.sample(
        model, noise, steps, 1.0, sampler, "simple", conditioning, conditioning, latent, disable_pbar=True, seed=seed,
        **part,
    )  # fmt: skip
