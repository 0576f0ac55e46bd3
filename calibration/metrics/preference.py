"""HPSv2.1 and PickScore: CLIP ViT-H/14 trained on what people prefer, from the published files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .base import IQ, FeatureMetric
from .open_clip_network import LONGEST, SHORTEST, open_checkpoint

HPS_PAGE, PICK_PAGE = "xswu/HPSv2", "yuvalkirstain/PickScore_v1"


class HPSv21(FeatureMetric):
    """Human Preference Score v2.1 (Wu et al., 2023): the cosine, about 0.2–0.35 for a trained model.

    Pictures are fitted into 224 × 224 whole and padded with black before normalisation, as the hpsv2 package does.

    Raises:
        DependencyError: open_clip is not installed.
        CalibrationError: no such file, or not this model's weights.
    """

    name = "HPSv2.1"
    role = IQ
    license = "Apache-2.0"
    fit = LONGEST
    files = ("HPS_v2.1_compressed.safetensors", "HPS_v2.1_compressed.pt")

    def __init__(self, file: Path, architecture: Mapping | None = None):
        where = f"get {self.files[-1]} from {HPS_PAGE} on Hugging Face into {file.parent}"
        super().__init__(open_checkpoint(file, where, architecture=architecture))

    def judge(self, image: Tensor, prompts: Sequence[str]) -> Tensor:
        return (image * self.network.encode_text(prompts)).sum(-1)


class PickScore(FeatureMetric):
    """PickScore v1 (Kirstain et al., 2023): the model's own scale times the cosine, about 17–24.

    Its file has the names of the transformers package; its page and repository state no licence.

    Raises:
        DependencyError: open_clip is not installed.
        CalibrationError: no such file, or not this model's weights.
    """

    name = "PickScore"
    role = IQ
    license = "unstated"
    fit = SHORTEST
    files = ("model.safetensors", "pytorch_model.bin")

    def __init__(self, file: Path, architecture: Mapping | None = None):
        where = f"get {self.files[0]} from {PICK_PAGE} on Hugging Face into {file.parent}"
        super().__init__(open_checkpoint(file, where, from_transformers, architecture))

    def judge(self, image: Tensor, prompts: Sequence[str]) -> Tensor:
        scale = self.network.clip.logit_scale.float().exp()
        return scale * (image * self.network.encode_text(prompts)).sum(-1)


_TOWERS = {"text_model": "", "vision_model": "visual."}
_NAMES = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_NAME = "|".join(re.escape(name) for name in _NAMES)
_PROJECTIONS = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a ``transformers.CLIPModel`` under open_clip's names.

    open_clip keeps query, key and value in one matrix, and its projections the other way round.
    """
    weights = {}
    for name, value in state.items():
        tower, _, rest = name.partition(".")
        if name in _PROJECTIONS:
            weights[_PROJECTIONS[name]] = value.T.contiguous()
        elif tower not in _TOWERS:
            weights[name] = value
        elif ".q_proj." in name:
            weight = torch.cat([state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
            weights[_TOWERS[tower] + _renamed(rest).replace("q_proj.", "in_proj_")] = weight
        elif not re.search(r"\.[kv]_proj\.|\.position_ids$", name):
            weights[_TOWERS[tower] + _renamed(rest)] = value
    return weights


def _renamed(name: str) -> str:
    return re.sub(_NAME, lambda match: _NAMES[match[0]], name)
