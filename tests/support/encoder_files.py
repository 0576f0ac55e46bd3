"""Small text encoders as files that the stock loader takes: the real keys and tokenizers, fewer and narrower layers."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from text_encoders import fill

# 64: every matrix of a block has as many weights as a layer must have to be packed, and no more.
_CLIP = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
_LLAMA = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
SIZES = {
    "dtype": torch.float32,
    "clip_l_model_config": _CLIP,
    # The host knows a CLIP-G by its 31st layer, and a T5-XXL by its 24th.
    "clip_g_model_config": {**_CLIP, "num_hidden_layers": 32},
    "t5xxl_model_config": {"d_model": 64, "d_ff": 128, "num_layers": 24, "num_heads": 2},
    # It knows this Qwen by the shape of its keys.
    "qwen25_3b_model_config": {**_LLAMA, "num_key_value_heads": 2},
    "gemma2_2b_model_config": {**_LLAMA, "num_key_value_heads": 1, "vocab_size": 300},
}
"""The loader's ``model_options``."""

TYPES = {
    "clip_l": "STABLE_DIFFUSION",
    "sdxl": "STABLE_DIFFUSION",
    "flux": "FLUX",
    "qwen": "OMNIGEN2",
    "gemma": "LUMINA2",
}


def keep_sizes(monkeypatch) -> None:
    """What the host does for CLIPs with more positions writes over the small sizes above."""
    import comfy.text_encoders.long_clipl

    monkeypatch.setattr(
        comfy.text_encoders.long_clipl, "model_options_long_clip", lambda sd, tokenizer, options: (tokenizer, options)
    )


def load(paths: list[Path], clip_type: str, options: dict | None = None):
    """As the stock nodes load them."""
    import comfy.sd

    options = dict(SIZES if options is None else options)
    return comfy.sd.load_clip([str(path) for path in paths], None, comfy.sd.CLIPType[clip_type], options)


def read(paths: list[Path], clip_type: str, **more):
    """The same, where the host's own reader of files is not to be had; ``more`` are other ``model_options``."""
    import comfy.sd

    kind, options = comfy.sd.CLIPType[clip_type], {**SIZES, **more}
    clip = comfy.sd.load_text_encoder_state_dicts([load_file(path) for path in paths], None, kind, options)
    clip.patcher.cached_patcher_init = (comfy.sd.load_clip_model_patcher, (paths, None, kind, options))
    return clip


def encoder_files(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> list[Path]:
    """Files with a checkpoint's keys, one for each encoder."""
    network = _network(family)
    fill(network)
    for name, value in network.named_parameters():
        if name.endswith("SelfAttention.q.weight"):
            value.data /= 32**0.5  # T5's attention is not scaled: the square root of a head's width is in these
    paths = []
    for name, encoder in network.named_children():
        values = {key: value.detach().to(dtype) for key, value in encoder.transformer.state_dict().items()}
        if family == "gemma":
            values["spiece_model"] = torch.tensor(list(_vocabulary()), dtype=torch.uint8)
        paths.append(folder / f"{family} {name}.safetensors")
        save_file(values, paths[-1])
    return paths


class SharedEncoders:
    """What several tests only read, each made once: files, the CLIPs that the stock loader makes of them, and their
    twins by ``quantized(clip, form, recipe)``. CLIPs are given as clones, whose LoRAs and options are their own."""

    def __init__(self, folder: Path, quantized: Callable):
        self._folder, self._quantized = folder, quantized
        self.files, self._source, self._twin = cache(self._written), cache(self._loaded), cache(self._packed)

    def source(self, family: str, dtype: torch.dtype = torch.float32):
        return self._source(family, dtype).clone()

    def twin(self, family: str, form: str = "w4a8", recipe: str = "compact", dtype: torch.dtype = torch.float32):
        return self._twin(family, form, recipe, dtype).clone()

    def _written(self, family: str, dtype: torch.dtype) -> list[Path]:
        place = self._folder / str(dtype)
        place.mkdir(exist_ok=True)
        return encoder_files(family, place, dtype)

    def _loaded(self, family: str, dtype: torch.dtype):
        return load(self.files(family, dtype), TYPES[family])

    def _packed(self, family: str, form: str, recipe: str, dtype: torch.dtype):
        return self._quantized(self.source(family, dtype), form, recipe)


def _network(family: str) -> torch.nn.Module:
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.text_encoders.flux
    import comfy.text_encoders.lumina2
    import comfy.text_encoders.omnigen2

    classes = {
        "clip_l": comfy.sd1_clip.SD1ClipModel,
        "sdxl": comfy.sdxl_clip.SDXLClipModel,
        "flux": comfy.text_encoders.flux.FluxClipModel,
        "qwen": comfy.text_encoders.omnigen2.te(),
        "gemma": comfy.text_encoders.lumina2.te(),
    }
    return classes[family](device="cpu", dtype=torch.float32, model_options=dict(SIZES))


def _vocabulary() -> bytes:
    """A SentencePiece model of a few words: Gemma's comes with its checkpoint."""
    import sentencepiece

    model = io.BytesIO()
    texts = ["a red fox in the snow", "portrait of an old fisherman, oil on canvas", "a street sign that reads OPEN"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=60, model_type="bpe", minloglevel=2
    )
    return model.getvalue()
