"""AQ-Map: whether each thing a prompt names is in the picture; the paper's TC for SDXL-Turbo and FLUX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import TC, Metric
from .open_clip_network import SQUASH, OpenClip, open_folder
from .phrases import Parser, best_parser
from .surgery import check_surgery, surgery_tokens

SHARPNESS = 10.0
"""Of the sigmoid over differences of cosines: AQ-Map's own."""

SCENES = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
"""What CLIP Surgery adds to the 80 ImageNet templates of OpenAI."""


class AQMap(Metric):
    """Mean over a prompt's nouns of sigmoid(10·(s(noun) - s(""))), in (0, 1), as the paper's code computes it.

    s is the product of the picture's class token with a text, both as in CLIP Surgery. The text is the mean over 85
    templates. Each channel of the token is divided by its length **over all tokens of the picture**, where a cosine
    would divide by the length over channels: this is how the patch tokens, which the surgery makes, count.

    ``parser`` finds the nouns, and is part of ``name``. A prompt in which it finds none is taken as one phrase and
    counted in ``unparsed``.

    Raises:
        CalibrationError: the network is no plain vision transformer.
    """

    role = TC
    embeds = True

    def __init__(self, network: OpenClip, parser: Parser | None = None):
        super().__init__()
        check_surgery(network.clip.visual)
        self.network = network
        self.parser = parser or best_parser()
        self.name = f"AQ-Map ({self.parser.name})"
        self._unparsed: set[str] = set()
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def open(cls, folder: Path) -> AQMap:
        return cls(open_folder(folder))

    @property
    def unparsed(self) -> int:
        """Prompts, so far, that were scored as one phrase."""
        return len(self._unparsed)

    def embed(self, pictures: Tensor) -> Tensor:
        return self.network.encode_image(pictures.to(next(self.network.parameters()).device, torch.float32), SQUASH)

    def measure(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        tokens = surgery_tokens(self.network.clip.visual, self.network.prepared(pictures, SQUASH)).float()
        classes = F.normalize(tokens, dim=1)[:, 0]
        scores = []
        for image, prompt in zip(classes, prompts, strict=True):
            texts = torch.stack([self._text(noun) - self._text("") for noun in self._nouns(prompt)])
            scores.append((SHARPNESS * texts.to(image.device) @ image).sigmoid().mean())
        return torch.stack(scores)

    def _nouns(self, prompt: str) -> list[str]:
        nouns = self.parser(prompt)
        if not nouns:
            self._unparsed.add(prompt)
        return nouns or [prompt]

    def _text(self, noun: str) -> Tensor:
        """Mean feature (D,) over the templates, of length 1; kept, as a search asks for the same nouns again."""
        if noun not in self._texts:
            from open_clip import OPENAI_IMAGENET_TEMPLATES

            texts = [*(fill(noun) for fill in OPENAI_IMAGENET_TEMPLATES), *(scene.format(noun) for scene in SCENES)]
            self._texts[noun] = F.normalize(self.network.encode_text(texts).mean(0), dim=0).cpu()
        return self._texts[noun]
