"""Small text encoders with random weights: the host's own classes of the real architectures, fewer and narrower layers.

What they say is noise; every step to it is the real one. Tokenizers are the host's, but for Gemma's, whose vocabulary
comes with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

import torch

_CLIP = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_hidden_layers": 3}
_T5 = {"d_model": 128, "d_ff": 256, "num_layers": 2, "num_heads": 2}
_LLAMA = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
FAMILIES = ("flux", "sdxl", "z_image", "lumina2")
"""CLIP-L and T5; CLIP-L and CLIP-G; Qwen3; Gemma 2."""


def text_encoder(family: str, values: dict | None = None, model_options: dict | None = None, **options):
    """A CLIP of the host's, on the CPU, with a file's ``values`` or the same random ones every time. ``model_options``
    are the loader's, ``options`` go to the model's class."""
    import comfy.sd

    model, tokenizer = _classes(family)
    target = SimpleNamespace(clip=model, tokenizer=tokenizer, params=options)
    sizes = {"clip_l_model_config": _CLIP, "clip_g_model_config": _CLIP, "t5xxl_model_config": _T5}
    sizes |= {"qwen3_4b_model_config": _LLAMA, "gemma2_2b_model_config": {**_LLAMA, "vocab_size": 256}}
    clip = comfy.sd.CLIP(
        target,
        model_options={**sizes, "dtype": torch.float32, **(model_options or {})},
        state_dict=[] if values is None else [values],
    )
    if values is None:
        fill(clip.cond_stage_model)
    return clip


@contextmanager
def tokenizers_read_once() -> Iterator[None]:
    """The host's tokenizers are made of its own files, which takes a second each time and comes to the same. What comes
    with a checkpoint is still read with it."""
    from transformers import PreTrainedTokenizerBase

    read = PreTrainedTokenizerBase.from_pretrained.__func__

    @cache
    def tokenizer_at(kind: type, folder: str, options: tuple):
        tokenizer = read(kind, folder, **dict(options))
        words = tokenizer.get_vocab()
        tokenizer.get_vocab = lambda: dict(words)
        return tokenizer

    def from_pretrained(kind: type, folder: str, **options):
        return tokenizer_at(kind, folder, tuple(sorted(options.items())))

    with patch.object(PreTrainedTokenizerBase, "from_pretrained", classmethod(from_pretrained)):
        yield


def fill(network: torch.nn.Module) -> None:
    """N(0, 1/fan_in) for matrices, 1 for norms, 0 for biases."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=generator) * value.shape[-1] ** -0.5)
            else:
                value.fill_(0.0 if name.endswith("bias") else 1.0)


def with_lora(clip, key: str, layer: str, scale: float = 1.0):
    """A clone with a LoRA on a layer, which files of LoRAs call ``key``."""
    import comfy.sd

    generator = torch.Generator().manual_seed(4)
    target = clip.cond_stage_model.get_submodule(layer)
    weights = {
        f"{key}.lora_up.weight": scale * torch.randn(target.out_features, 4, generator=generator) / 4,
        f"{key}.lora_down.weight": torch.randn(4, target.in_features, generator=generator) / 4,
        f"{key}.alpha": torch.tensor(4.0),
    }
    _, clone = comfy.sd.load_lora_for_models(None, clip, weights, 0.0, 1.0)
    assert f"{layer}.weight" in clone.patcher.patches
    return clone


def _classes(family: str) -> tuple:
    if family == "flux":
        import comfy.text_encoders.flux as flux

        return flux.FluxClipModel, flux.FluxTokenizer
    if family == "sdxl":
        import comfy.sdxl_clip

        return comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer
    if family == "z_image":
        import comfy.text_encoders.z_image as z_image

        return z_image.te(), z_image.ZImageTokenizer
    import comfy.text_encoders.lumina2 as lumina2

    return lumina2.te(), _Letters


class _Letters:
    """Stands in for a tokenizer whose vocabulary is not here: one token for each letter."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        pass

    def tokenize_with_weights(self, text, return_word_ids=False, **options):
        return {"gemma2_2b": [[(2, 1.0), *((ord(letter) % 250 + 5, 1.0) for letter in text)]]}

    def state_dict(self):
        return {}
