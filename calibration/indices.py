"""What the index of a picture means: index = prompt + n_prompts · noise number. Every index has its own noise."""

from __future__ import annotations

from typing import TypeVar

Index = TypeVar("Index")
"""A whole number, or an array of them."""

NOISE_STRIDE = 1_000_003
"""Between the seeds of two noise numbers of one prompt. A prime far above the number of prompts, so that two pictures
of a study never start from the same noise. Another value would change every picture of the journals that exist."""


def index_of(prompt: int, noise: int, n_prompts: int) -> int:
    """The index of a prompt, counted from 0, with a noise number, counted from 0."""
    return prompt + n_prompts * noise


def prompt_of(index: Index, n_prompts: int) -> Index:
    """The prompt of an index, counted from 0."""
    return index % n_prompts


def noise_of(index: Index, n_prompts: int) -> Index:
    """The noise number of an index, counted from 0."""
    return index // n_prompts


def noise_seed(seed: int, index: int, n_prompts: int) -> int:
    """The seed of a picture's noise in [0, 2^63): the same in ComfyUI and for a pipeline of diffusers."""
    return (seed + NOISE_STRIDE * noise_of(index, n_prompts) + prompt_of(index, n_prompts)) % 2**63
