"""A text–image score from encoders that somebody else has loaded: the host's CLIP and CLIP vision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from ..core import CalibrationError
from .base import TC, Metric
from .clip import log_clip_score

EncodeImage = Callable[[Tensor], Tensor]
"""(B, H, W, 3) in [0, 1] -> (B, D), of any length."""

EncodeText = Callable[[Sequence[str]], Tensor]
"""B texts -> (B, D), of any length."""


class CosineScore(Metric):
    """TC = ln(100·max(cos, floor)) as ``ClipScore``; the two encoders must be the two halves of one model."""

    name = "CLIPScore (loaded encoders)"
    role = TC
    embeds = True

    def __init__(
        self,
        encode_image: EncodeImage,
        encode_text: EncodeText,
        too_long: Callable[[str], bool] = lambda prompt: False,
    ):
        super().__init__()
        self._encode_image, self._encode_text, self.is_too_long = encode_image, encode_text, too_long

    def embed(self, pictures: Tensor) -> Tensor:
        return F.normalize(self._encode_image(pictures).float(), dim=-1)

    def measure(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        image = self._encode_image(pictures).float()
        text = self._encode_text(prompts).float().to(image.device)
        if image.ndim != 2 or image.shape != text.shape:
            raise CalibrationError(
                f"picture features {tuple(image.shape)} do not match text features {tuple(text.shape)}.",
                "take both encoders from the same CLIP model, with their projections",
            )
        return log_clip_score(F.normalize(image, dim=-1), F.normalize(text, dim=-1))
