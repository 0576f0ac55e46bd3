"""Prompts that the demo model knows, and their conditioning."""

from __future__ import annotations

PROMPTS = [
    f"a {size} {thing} on a {ground} background"
    for size in ("small", "large")
    for ground in ("white", "sky")
    for thing in ("apple", "star")
]


def encoded(demo: tuple, text: str) -> list:
    """The conditioning of a text, by the CLIP of the fixture `demo`."""
    return demo[1].encode_from_tokens_scheduled(demo[1].tokenize(text))
