"""CLIPScore and CLIP-IQA from any open_clip model in a local folder: the paper's pairing for SD1.5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import CalibrationError, DependencyError

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
QUALITY_PAIR = ("Good photo.", "Bad photo.")
"""The antonyms of CLIP-IQA (Wang et al., 2023) for its "quality" score."""

SHARPNESS = 100.0
"""CLIP's own logit scale, which CLIP-IQA uses."""


class ClipScorer(nn.Module):
    """TC = ln(CLIPScore), CLIPScore = 100·max(cos, 0) (Hessel et al., 2021); IQ = CLIP-IQA, in [0, 1].

    ``folder`` is an open_clip model as its hub repositories are laid out: ``open_clip_config.json`` beside
    ``open_clip_model.safetensors``. Nothing is downloaded.

    Raises:
        DependencyError: open_clip is not installed.
        CalibrationError: a file is missing.
    """

    def __init__(self, folder: Path):
        super().__init__()
        if not (folder / CONFIG).is_file() or not any((folder / name).is_file() for name in WEIGHTS):
            raise CalibrationError(f"{folder.name} lacks {CONFIG} or {WEIGHTS[0]}.", "copy both from the model's page")
        try:
            import open_clip
        except ImportError as error:
            raise DependencyError("this metric needs open_clip.", "pip install open_clip_torch") from error
        self.clip = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval()
        self._tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.requires_grad_(False)

    @torch.no_grad()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """{"tc", "iq"}, (B,) each, of pictures (B, H, W, 3) in [0, 1] and their prompts."""
        device = next(self.parameters()).device
        image = self.clip.encode_image(self._prepared(pictures.to(device)), normalize=True)
        text = self._encode(prompts, device)
        good_and_bad = image @ self._encode(QUALITY_PAIR, device).T
        cosine = (image * text).sum(-1).clamp(min=1e-4)
        return {"tc": (100 * cosine).log().cpu(), "iq": (SHARPNESS * good_and_bad).softmax(-1)[:, 0].cpu()}

    def _encode(self, texts: Sequence[str], device: torch.device) -> Tensor:
        return self.clip.encode_text(self._tokenize(list(texts)).to(device), normalize=True)

    def _prepared(self, pictures: Tensor) -> Tensor:
        """Shorter side to the model's size, centre crop, its own mean and deviation: open_clip's preprocessing."""
        visual = self.clip.visual
        size = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        pictures = pictures.movedim(-1, 1)
        scale = size / min(pictures.shape[-2:])
        shape = [max(size, round(side * scale)) for side in pictures.shape[-2:]]
        pictures = F.interpolate(pictures, size=shape, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - size) // 2 for side in shape)
        pictures = pictures[..., top : top + size, left : left + size]
        mean, deviation = (pictures.new_tensor(v).view(1, 3, 1, 1) for v in (visual.image_mean, visual.image_std))
        return (pictures - mean) / deviation
