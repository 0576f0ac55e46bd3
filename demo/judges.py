"""Scores of the demo's pictures: TC and IQ for the search, attributes for a judge that no search has asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .files import ATTRIBUTES, DUAL_ENCODER, QUALITY, read
from .networks import AttributeNet, QualityNet
from .scenes import ATTRIBUTES as FIELDS
from .scenes import PICTURE_SIZE, draw, parse_caption, relevant_attributes, sample_scenes
from .vocabulary import CONTEXT_LENGTH, caption_words, compact_ids

REFERENCE_SCENES = 512
"""Scenes that a set of pictures is compared with."""


class DemoScorer(nn.Module):
    """TC: cosine of picture and prompt in a small open_clip dual encoder. IQ: 1 - damage seen by a small net."""

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

    def is_too_long(self, prompt: str) -> bool:
        """Whether its text encoder reads the prompt's beginning alone."""
        return len(caption_words(prompt)) > CONTEXT_LENGTH - 2


class DemoJudge(nn.Module):
    """Reads things, sizes, places and background off a picture, and compares them with the prompt; and tells how far a
    set of pictures is from drawn ones."""

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
        in_grammar = torch.tensor([row is not None for row in rows])
        truth = torch.stack([torch.zeros(len(FIELDS) + 1, dtype=torch.int64) if row is None else row for row in rows])
        relevant = relevant_attributes(truth)
        right = (self.net.read(pictures).cpu() == truth[:, : len(FIELDS)]) & relevant
        accuracy = right.sum(1) / relevant.sum(1)
        nothing = torch.full_like(accuracy, float("nan"))
        return {
            "attribute accuracy": torch.where(in_grammar, accuracy, nothing),
            "all right": torch.where(in_grammar, (accuracy == 1).float(), nothing),
        }


class DrawnSet:
    """REFERENCE_SCENES drawn scenes, in the textures that the judge's net sees, in units of their spread."""

    name = "distance to drawn set"

    def __init__(self, judge: DemoJudge):
        self._net = judge.net

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """(B, D) float64, not finite for pictures that are not."""
        return _textures(self._net, pictures) / self._drawn()[1]

    def own_features(self) -> Tensor:
        return self._drawn()[0]

    def _drawn(self) -> tuple[Tensor, Tensor]:
        return _drawn_textures(next(self._net.parameters()).device)


@cache
def _drawn_textures(device: torch.device) -> tuple[Tensor, Tensor]:
    """(textures of REFERENCE_SCENES scenes in units of their spread, that spread): the same for every judge, of which
    each study makes one, and three seconds on one core."""
    generator, judge = torch.Generator().manual_seed(0), DemoJudge().to(device)
    scenes = draw(sample_scenes(REFERENCE_SCENES, generator), generator).movedim(1, -1)
    textures = _textures(judge.net, scenes)
    return textures / textures.std(0), textures.std(0)


def _textures(net: AttributeNet, pictures: Tensor) -> Tensor:
    device = next(net.parameters()).device
    return torch.cat([net.texture(_prepared(part, device)) for part in pictures.split(64)]).double().cpu()


def _prepared(pictures: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, 3) -> (B, 3, 128, 128) on the net's device."""
    pictures = pictures.to(device).movedim(-1, 1)
    if pictures.shape[-2:] == (PICTURE_SIZE, PICTURE_SIZE):
        return pictures
    return F.interpolate(pictures, size=(PICTURE_SIZE, PICTURE_SIZE), mode="area")
