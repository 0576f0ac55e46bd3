"""Scores of the demo's pictures: TC and IQ for the search, attributes for a judge that no search has asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .files import ATTRIBUTES, DUAL_ENCODER, QUALITY, read
from .networks import AttributeNet, QualityNet
from .scenes import ATTRIBUTES as FIELDS
from .scenes import PICTURE_SIZE, parse_caption, relevant_attributes
from .vocabulary import compact_ids


class DemoScorer(nn.Module):
    """TC: cosine of picture and prompt in a small open_clip dual encoder. IQ: 1 − damage seen by a small net."""

    def __init__(self) -> None:
        super().__init__()
        import open_clip  # an extra: ten times the import time of all the rest

        self.dual = open_clip.create_model(f"local-dir:{DUAL_ENCODER}", precision="fp32").eval()
        self.quality = QualityNet().eval()
        self.quality.load_state_dict(read(QUALITY))
        self.requires_grad_(False)

    @torch.no_grad()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """{"tc", "iq"}, (B,) each, of pictures (B, H, W, 3) in [0, 1] and their prompts."""
        pictures = _prepared(pictures, next(self.parameters()).device)
        image = self.dual.encode_image(pictures * 2 - 1, normalize=True)
        text = self.dual.encode_text(compact_ids(list(prompts)).to(image.device), normalize=True)
        return {"tc": (image * text).sum(-1).cpu(), "iq": self.quality(pictures).cpu()}


class DemoJudge(nn.Module):
    """Reads shape, colour, size, place and background off a picture, and compares them with the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.net = AttributeNet().eval()
        self.net.load_state_dict(read(ATTRIBUTES))
        self.requires_grad_(False)

    @torch.no_grad()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """{"attribute accuracy", "all right"}, (B,) each; NaN for a prompt outside the demo's grammar."""
        pictures = _prepared(pictures, next(self.parameters()).device)
        rows = [parse_caption(prompt) for prompt in prompts]
        known = torch.tensor([row is not None for row in rows])
        truth = torch.stack([torch.zeros(len(FIELDS) + 1, dtype=torch.int64) if row is None else row for row in rows])
        relevant = relevant_attributes(truth)
        right = (self.net.read(pictures).cpu() == truth[:, : len(FIELDS)]) & relevant
        accuracy = right.sum(1) / relevant.sum(1)
        nothing = torch.full_like(accuracy, float("nan"))
        return {
            "attribute accuracy": torch.where(known, accuracy, nothing),
            "all right": torch.where(known, (accuracy == 1).float(), nothing),
        }


def _prepared(pictures: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, 3) → (B, 3, 64, 64) on the net's device."""
    pictures = pictures.to(device).movedim(-1, 1)
    if pictures.shape[-2:] == (PICTURE_SIZE, PICTURE_SIZE):
        return pictures
    return F.interpolate(pictures, size=(PICTURE_SIZE, PICTURE_SIZE), mode="area")
