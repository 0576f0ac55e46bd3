"""The demo's nets in the host's own classes."""

from __future__ import annotations

import comfy.sd
import comfy.supported_models_base
from comfy import sd1_clip

from ...demo import files
from ...demo.networks import TEXT_CONFIG
from ...demo.vocabulary import CLIP_END, CONTEXT_LENGTH, expand_embedding


def load_model():
    """The demo's MODEL, 5.8 M parameters."""
    return comfy.sd.load_diffusion_model_state_dict(files.read(files.MODEL))


def load_text_encoder() -> comfy.sd.CLIP:
    """The demo's text encoder in the host's CLIP class: stock tokenizer, 16 tokens, 128 wide."""
    weights = files.read(files.TEXT)
    clip_ids = weights.pop("clip_ids")
    table = weights.pop("embeddings.token_embedding.weight")
    weights["embeddings.token_embedding.weight"] = expand_embedding(table, clip_ids)
    state = {f"text_model.{name}": value for name, value in weights.items()}
    config = {**TEXT_CONFIG, "eos_token_id": CLIP_END}
    target = comfy.supported_models_base.ClipTarget(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel)
    return comfy.sd.CLIP(
        target,
        tokenizer_data={"clip_l_max_length": CONTEXT_LENGTH},
        parameters=sum(value.numel() for value in state.values()),
        state_dict=[state],
        model_options={"clip_l_model_config": config},
    )


def load_vae() -> comfy.sd.VAE:
    """The demo's TAESD with 16 channels."""
    return comfy.sd.VAE(sd=files.read(files.VAE))
