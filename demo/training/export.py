"""Trained nets -> the files that are shipped, float16, in the formats that stock loaders know."""

from __future__ import annotations

import json
import shutil

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import files
from ..networks import DUAL_ENCODER_CONFIG
from ..scenes import caption_of, sample_scenes
from ..vocabulary import WORDS
from .autoencoder import Codec
from .flow import Painter
from .loop import Workshop

PROMPT_COUNT = 48
FLUX_SCALE, FLUX_SHIFT = 0.3611, 0.1159


def export(shop: Workshop, painter: Painter, codec: Codec, judges: dict[str, nn.Module], figures: list[dict]) -> None:
    """Write everything below ``demo/weights`` and the demo's prompts."""
    files.DUAL_ENCODER.mkdir(parents=True, exist_ok=True)
    _save(painter.flux.state_dict(), files.MODEL, "FLUX.1-schnell at toy width, diffusers keys")
    _save(_host_autoencoder(codec), files.VAE, "TAESD shape, 16 latent channels, ComfyUI keys")
    text = {name.removeprefix("text_model."): value for name, value in painter.text.state_dict().items()}
    text["clip_ids"] = _clip_ids()
    _save(text, files.TEXT, "CLIP text model, 128 wide, 2 layers; clip_ids are the words' ids in CLIP's tokenizer")
    _save(judges["quality"].state_dict(), files.QUALITY, "picture quality")
    _save(judges["attributes"].state_dict(), files.ATTRIBUTES, "attributes of a picture; no search sees it")
    _save(judges["dual"].state_dict(), files.DUAL_ENCODER / "open_clip_model.safetensors", "open_clip dual encoder")
    config = {"model_cfg": DUAL_ENCODER_CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (files.DUAL_ENCODER / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    files.FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(shop.folder / "log.jsonl", files.LOG)
    write_prompts()


def write_prompts() -> None:
    """``demo/prompts.txt``: distinct held-out captions."""
    rows = sample_scenes(2 * PROMPT_COUNT, torch.Generator().manual_seed(7), held_out=True)
    captions = list(dict.fromkeys(caption_of(row) for row in rows))[:PROMPT_COUNT]
    lines = ["# Captions that no net of the demo was trained on.", *captions]
    files.PROMPTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _save(tensors: dict[str, Tensor], path, what: str) -> None:
    half = {k: (v.half() if v.is_floating_point() and v.ndim else v).contiguous() for k, v in tensors.items()}
    save_file(half, path, {"format": "pt", "description": f"Q-Sched demo: {what}", "license": "Apache-2.0"})
    path.chmod(0o644)  # safetensors writes for the owner alone


def _host_autoencoder(codec: Codec) -> dict[str, Tensor]:
    """diffusers' AutoencoderTiny as the host names it: the decoder there begins with the clamp as a layer.

    Scale and shift undo what the host does to FLUX latents on their way out of the model.
    """
    out = {"vae_scale": torch.tensor(FLUX_SCALE), "vae_shift": torch.tensor(FLUX_SHIFT)}
    for name, value in codec.tiny.encoder.state_dict().items():
        out[name.replace("layers.", "taesd_encoder.")] = value
    for name, value in codec.tiny.decoder.state_dict().items():
        _, index, rest = name.split(".", 2)
        out[f"taesd_decoder.{int(index) + 1}.{rest}"] = value
    return out


def _clip_ids() -> Tensor:
    ids = []
    for word in WORDS:
        tokens = open_clip.tokenizer.SimpleTokenizer().encode(word)
        if len(tokens) != 1:
            raise ValueError(f"{word!r} is {len(tokens)} tokens in CLIP's tokenizer; the demo's words must be one each")
        ids += tokens
    return torch.tensor(ids)
