"""Prompts as the host's samplers take them."""

from __future__ import annotations

Conditioning = list
"""The host's own list: [[tensor, {name: value}], ...]."""


def encode(clip, text: str) -> Conditioning:
    """A prompt as the stock text encoder node makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))
