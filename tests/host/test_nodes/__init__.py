"""Nodes for tests only: what stands in for text encoders of many gigabytes."""

from __future__ import annotations

import zlib

import torch


class TestConditioning:
    """What a text encoder would give: tokens of the model's width and, where it is not 0, a pooled vector."""

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "text": ("STRING", {"default": ""}),
                "width": ("INT", {"default": 768, "min": 1, "max": 16384}),
                "pooled": ("INT", {"default": 0, "min": 0, "max": 16384}),
            }
        }

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "tests"

    def encode(self, text: str, width: int, pooled: int) -> tuple:
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        tokens = torch.randn(1, 8, width, generator=generator)
        vector = torch.randn(1, pooled, generator=generator) if pooled else None
        return ([[tokens, {"pooled_output": vector}]],)


NODE_CLASS_MAPPINGS = {"TestConditioning": TestConditioning}
