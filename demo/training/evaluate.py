"""Held-out figures of the finished painter: what the README may claim."""

from __future__ import annotations

import open_clip
import torch
from torch import Tensor

from ..networks import AttributeNet, QualityNet
from ..scenes import caption_of, draw, sample_scenes
from ..vocabulary import compact_ids
from .autoencoder import Codec
from .flow import Painter
from .scorers import attribute_scores


@torch.no_grad()
def paint(painter: Painter, codec: Codec, rows: Tensor, steps: int, seed: int) -> Tensor:
    """Pictures (B, 3, 128, 128) in [0, 1] for scene rows (B, 7)."""
    noise = torch.randn(len(rows), 16, 16, 16, generator=torch.Generator().manual_seed(seed))
    text = painter.read(compact_ids([caption_of(row) for row in rows]))
    return codec.decode(painter.walk(noise, text, 1.0, 0.0, steps)).clamp(0, 1)


@torch.no_grad()
def codec_figures(codec: Codec) -> dict[str, float | str]:
    """PSNR in dB of held-out pictures through the autoencoder."""
    generator = torch.Generator().manual_seed(89)
    pictures = draw(sample_scenes(100, generator, held_out=True), generator)
    error = torch.cat([codec.decode(codec.encode(chunk)).clamp(0, 1) - chunk for chunk in pictures.split(20)])
    return {"net": "autoencoder", "psnr": -10 * error.square().mean().log10().item()}


@torch.no_grad()
def judge_figures(attributes: AttributeNet, quality: QualityNet, dual: open_clip.CLIP) -> dict[str, float | str]:
    """On drawn held-out pictures: attributes read, own caption found among 200, quality of undamaged pictures."""
    generator = torch.Generator().manual_seed(83)
    rows = sample_scenes(200, generator, held_out=True)
    pictures = draw(rows, generator)
    accuracy, all_right = attribute_scores(attributes, pictures, rows)
    captions = [caption_of(row) for row in rows]
    image = dual.encode_image(pictures * 2 - 1, normalize=True)
    text = dual.encode_text(compact_ids(captions), normalize=True)
    best = (image @ text.T).argmax(1).tolist()
    share = sum(captions[i] == caption for i, caption in zip(best, captions, strict=True)) / len(captions)
    own = (image * text).sum(1).mean().item()
    iq = quality(pictures).mean().item()
    return {"net": "judges", "accuracy": accuracy, "all_right": all_right, "found_of_200": share, "tc": own, "iq": iq}


def held_out_figures(
    painter: Painter, codec: Codec, attributes: AttributeNet, quality: QualityNet, steps: int, count: int = 200
) -> dict[str, float]:
    rows = sample_scenes(count, torch.Generator().manual_seed(97), held_out=True)
    pictures = torch.cat([paint(painter, codec, chunk, steps, i) for i, chunk in enumerate(rows.split(25))])
    accuracy, all_right = attribute_scores(attributes, pictures, rows)
    with torch.no_grad():
        iq = quality(pictures).mean().item()
    return {"steps": steps, "accuracy": accuracy, "all_right": all_right, "iq": iq}
