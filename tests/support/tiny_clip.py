"""A CLIP of the smallest size with random weights, in a folder as people download them."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def write_folder(place: Path, weights: str = "open_clip_model.safetensors") -> Path:
    """A folder as open_clip's hub repositories have it: random weights of the real architecture, the config beside."""
    place.mkdir()
    torch.manual_seed(0)
    state = open_clip.CLIP(**CONFIG).state_dict()
    save_file(state, place / weights) if weights.endswith("safetensors") else torch.save(state, place / weights)
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": MEAN, "std": DEVIATION}}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    return place
