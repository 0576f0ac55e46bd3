"""CLIP Surgery (Li et al., 2023): picture tokens of a ViT that look at what is like them, not at the class token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import CalibrationError

SURGERY_BLOCKS = 6
"""Blocks, from the last, that get the second path: as many as in its authors' code."""


def surgery_tokens(visual: nn.Module, pictures: Tensor) -> Tensor:
    """Projected tokens (B, 1 + patches, D) of prepared pictures (B, 3, h, w), of any length.

    The class token is the network's own. A patch token starts where the last ``SURGERY_BLOCKS`` blocks start and adds
    up their v–v attention: values that attend to values, read off the ordinary path, without the feed-forward nets.

    Raises:
        CalibrationError: ``visual`` is no plain open_clip vision transformer.
    """
    check_surgery(visual)
    tokens = visual._embeds(pictures)
    blocks = list(visual.transformer.resblocks)
    for block in blocks[:-SURGERY_BLOCKS]:
        tokens = block(tokens)
    patches = tokens
    for block in blocks[-SURGERY_BLOCKS:]:
        patches = patches + block.ls_1(_value_attention(block.attn, block.ln_1(tokens)))
        tokens = block(tokens)
    return visual.ln_post(torch.cat([tokens[:, :1], patches[:, 1:]], dim=1)) @ visual.proj


def check_surgery(visual: nn.Module) -> None:
    """Raises:
    CalibrationError: ``visual`` is no plain open_clip vision transformer.
    """
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", ())
    attentions = [isinstance(getattr(block, "attn", None), nn.MultiheadAttention) for block in blocks]
    plain = hasattr(visual, "_embeds") and getattr(visual, "attn_pool", None) is None
    if not (plain and attentions and all(attentions) and getattr(visual, "pool_type", "") == "tok"):
        raise CalibrationError(
            f"AQ-Map cannot read a {type(visual).__name__}.", "choose a ViT of open_clip, such as ViT-B-16 of OpenAI"
        )


def _value_attention(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    width = attention.embed_dim
    bias = attention.in_proj_bias[-width:] if attention.in_proj_bias is not None else None
    values = F.linear(tokens, attention.in_proj_weight[-width:], bias)
    values = values.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    output = F.scaled_dot_product_attention(values, values, values)
    return attention.out_proj(output.transpose(1, 2).flatten(2))
