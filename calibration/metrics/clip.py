"""CLIPScore and CLIP-IQA from any open_clip model in a local folder: the paper's pairing for SD1.5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .base import IQ, TC, FeatureMetric, Pair
from .open_clip_network import OpenClip, open_folder

QUALITY_PAIR = ("Good photo.", "Bad photo.")
"""The antonyms of CLIP-IQA (Wang et al., 2023) for its "quality" score."""

SHARPNESS = 100.0
"""CLIP's own logit scale, which CLIP-IQA uses."""

MIN_COSINE = 1e-4
"""The smallest cosine, where CLIPScore has 0: its logarithm must stay finite."""


def log_clip_score(image: Tensor, text: Tensor) -> Tensor:
    """ln(CLIPScore) (B,), CLIPScore = 100·max(cos, 0) (Hessel et al., 2021), of features (B, D) of length 1."""
    return (100 * (image * text).sum(-1).clamp(min=MIN_COSINE)).log()


class ClipScore(FeatureMetric):
    """TC = ln(CLIPScore): without the logarithm its 0–100 would swamp an IQ of 0–1."""

    name = "CLIPScore"
    role = TC

    @classmethod
    def open(cls, folder: Path) -> ClipScore:
        return cls(open_folder(folder))

    def judge(self, image: Tensor, prompts: Sequence[str]) -> Tensor:
        return log_clip_score(image, self.network.encode_text(prompts))


class ClipIQA(FeatureMetric):
    """IQ = CLIP-IQA "quality", in [0, 1]: how much nearer a picture is to the good photo than to the bad one."""

    name = "CLIP-IQA"
    role = IQ
    reads_prompts = False

    @classmethod
    def open(cls, folder: Path) -> ClipIQA:
        return cls(open_folder(folder))

    def judge(self, image: Tensor, prompts: Sequence[str]) -> Tensor:
        return (SHARPNESS * image @ self.network.encode_text(QUALITY_PAIR).T).softmax(-1)[:, 0]


class ClipScorer(Pair):
    """Both scores of one network, see ``open_folder`` for its files.

    Raises:
        DependencyError: open_clip is not installed.
        CalibrationError: a file is missing, or is not what its name says.
    """

    def __init__(self, folder: Path):
        network: OpenClip = open_folder(folder)
        super().__init__(ClipScore(network), ClipIQA(network))
