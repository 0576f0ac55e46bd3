"""A quantised CLIP as files, and back without the float one ever being held: the stock loaders' form, and ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.text_encoders.long_clipl
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...qsched_core import QuantizationError
from ...qsched_core.quant import (
    Stored,
    label_of,
    layer_records,
    load_quantized,
    restore,
    save_quantized,
    write_together,
)
from .backends import NativeTextLinears
from .encoder_families import (
    HOST_ERRORS,
    Family,
    encoder_patcher,
    encoders_of,
    family_of,
    loader_of,
    shapes_of,
    tokenizer_values,
)
from .file_values import KIND, TEXT_ENCODER, give_weights, is_stock, values_and_patches
from .layers import TWINS
from .patch_files import record_of, without_patches
from .patcher import key_of
from .twin_model import patcher_over

_CLIP_TYPE, _NAMING, _ENCODERS, _OPTIONS = "clip_type", "naming", "encoders", "clip_options"
_TOKENIZER = "tokenizer."

_UNUSED = ".logit_scale"
"""No file of the stock loaders' has it, and encoding does not read it."""

_UNKNOWN = "ComfyUI would not know this text encoder again."


def lost_in_stock(clip) -> str:
    """What of a CLIP in native layouts the stock loaders' files have no place for; "": nothing."""
    if not is_stock(clip.patcher):
        return "the LoRAs on it"
    if clip.layer_idx is not None or clip.tokenizer_options:
        return "CLIP skip and options of the tokenizer"
    inner = tuple(f"{name}.transformer." for name in encoders_of(clip.cond_stage_model))
    outside = [key for key in clip.cond_stage_model.state_dict() if not key.startswith(inner)]
    return "its layers outside the encoder" if any(not key.endswith(_UNUSED) for key in outside) else ""


def save_stock_encoders(clip, paths: Sequence[Path]) -> str:
    """Write one file for each encoder, and return the type that their loader is to be told, as its menu has it. The
    stock loader reads them back before they count.

    Raises:
        QuantizationError: the host would not recognise them, or they cannot be written.
    """
    family = _known(clip)
    values, _ = values_and_patches(clip.patcher)
    tokenizer, (_, options) = tokenizer_values(clip), loader_of(clip)
    parts = family.parts({name: _stored(value) for name, value in values.items()}, tokenizer)

    def read(files: Sequence[Path]) -> list[dict[str, Tensor]]:
        content = [load_file(file) for file in files]
        try:
            remake = family.load(content, {**options, "initial_device": torch.device("cpu")}).cond_stage_model
        except HOST_ERRORS as error:
            raise QuantizationError(_UNKNOWN, f'use recipe "compact" ({str(error)[:60]})') from error
        there = remake.state_dict()
        if there.keys() != values.keys() or not all(
            _is_value(there[name], value) for name, value in values.items() if not name.endswith(_UNUSED)
        ):
            raise QuantizationError(_UNKNOWN, 'use recipe "compact"')
        return content

    about = {"quantization": label_of(clip.cond_stage_model), "modelspec.title": paths[0].stem}
    write_together(dict(zip(paths, parts, strict=True)), about, read)
    # The menu of the loader of two has no such type: what it does not know is this one to the host.
    return "sdxl" if len(paths) == 2 and family.clip_type == "STABLE_DIFFUSION" else family.clip_type.lower()


def _stored(value: Tensor) -> Tensor:
    """The host takes the type that an encoder computes in from its norms, and 8-bit floats are none to compute in."""
    is_tiny = value.is_floating_point() and value.element_size() == 1 and value.ndim < 2
    return value.to(torch.float16) if is_tiny else value


def _is_value(there: Tensor, value: Tensor) -> bool:
    """Whether the host has read a value: in its own type, which may be narrower than the file's."""
    if there.shape != value.shape:
        return False
    there, value = there.cpu(), value.detach().cpu().to(there.dtype)
    return torch.equal(there.contiguous().flatten().view(torch.uint8), value.contiguous().flatten().view(torch.uint8))


def save_encoder(clip, path: Path) -> None:
    """Write a CLIP as it encodes into one file of ours: LoRAs beside the packed weights, other patches merged in, the
    tokenizer's own data, CLIP skip and options.

    Raises:
        QuantizationError: a CLIP that Quantize Text Encoder did not make, one that no loader of this host's makes, or
            a file that cannot be written.
    """
    family = _known(clip)
    values, patches = values_and_patches(clip.patcher)
    metadata, tensors = record_of(patches)
    about = {
        KIND: TEXT_ENCODER,
        _CLIP_TYPE: family.clip_type,
        _NAMING: str(family.naming),
        _ENCODERS: " ".join(family.encoders),
        _OPTIONS: json.dumps(_options_of(clip)),
        "quantization": label_of(clip.cond_stage_model),
        "modelspec.title": path.stem,
    }
    tokenizer = {f"{_TOKENIZER}{name}": value for name, value in tokenizer_values(clip).items()}
    save_quantized(clip.cond_stage_model, path, {**about, **metadata}, {**values, **tensors, **tokenizer})


def _known(clip) -> Family:
    if not layer_records(clip.cond_stage_model):
        raise QuantizationError("this text encoder is not quantised.", "plug in Quantize Text Encoder W4A8's clip")
    family = family_of(clip)
    if family is None:
        fix = "update ComfyUI, or quantise one that Load CLIP has loaded"
        raise QuantizationError(_UNKNOWN, fix, kind=type(clip.cond_stage_model).__name__)
    return family


def load_encoder(path: Path, options: Mapping[str, Any] | None = None):
    """The CLIP of a file of ours. Weights are read as they are packed; the host tells the family by their float shapes,
    and nothing is made before all of them are its own. ``options`` are the host's ``model_options``.

    Raises:
        QuantizationError: not such a file, or no text encoder of this ComfyUI has these shapes.
    """
    options = dict(options or {})
    content = load_quantized(path)
    if content.about.get(KIND) != TEXT_ENCODER:
        fix = "move it to your folder of quantised models, and use Load Quantized Model"
        raise QuantizationError(f"{path.name[:40]} holds no text encoder.", fix)
    content, patches = without_patches(content)
    content, tokenizer = _without_tokenizer(content)
    family, clip_options = _described(content.about, path)
    clip = _remake(family, content, tokenizer, options, path)
    network = _float_network(clip, family, content, options)
    restore(network, content, TWINS, NativeTextLinears(clip.patcher).loaded)
    clip.cond_stage_model = network.to(clip.patcher.offload_device)
    clip.patcher = patcher_over(clip.patcher, network)
    clip.patcher.patches = {key_of(network, key): layer_patches for key, layer_patches in patches.items()}
    init = (path, None, comfy.sd.CLIPType[family.clip_type], options)
    clip.patcher.cached_patcher_init = (encoder_patcher, init)
    for name, value in clip_options.items():
        setattr(clip, name, value)
    return clip


def _remake(family: Family, content: Stored, tokenizer: Mapping[str, Tensor], options: dict, path: Path):
    """The CLIP on the meta device, with the tokenizer that encodes.

    Raises:
        QuantizationError: the host makes none of this file, or one of other layers.
    """
    try:
        clip = family.remake(_shapes(content), tokenizer, options)
    except HOST_ERRORS as error:
        fix = f"update ComfyUI, or save the file again ({str(error)[:60]})"
        raise QuantizationError(f"this ComfyUI knows no text encoder like {path.name[:30]}.", fix) from error
    if encoders_of(clip.cond_stage_model) != family.encoders:
        fix = "update ComfyUI, or save the file again"
        raise QuantizationError(f"{path.name[:30]} is of an unknown family of text encoders.", fix)
    here, there = shapes_of(clip.cond_stage_model.state_dict()), content.shapes()
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            what = f"{name[-40:]} is not as this ComfyUI's text encoder has it."
            raise QuantizationError(what, "update ComfyUI, or save the file again", name=name)
    return clip


def _shapes(content: Stored) -> dict[str, Tensor]:
    """The file's values as the float encoder has them, on the meta device."""

    def dtype(name: str) -> torch.dtype:
        value = content.tensors.get(name)
        is_float = name.removesuffix(".weight") not in content.layers and value is not None
        return value.dtype if is_float else torch.float16

    return {name: torch.empty(shape, dtype=dtype(name), device="meta") for name, shape in content.shapes().items()}


def _float_network(clip, family: Family, content: Stored, options: dict) -> nn.Module:
    """The float network that the packed layers take their places in. Its memory is never written to, so that the system
    never gives it: every value is replaced by one of the file."""
    for part in family.parts(_shapes(content), {}):
        _, options = comfy.text_encoders.long_clipl.model_options_long_clip(part, {}, options)
    management = comfy.model_management
    dtype = options.get("dtype") or management.text_encoder_dtype(clip.patcher.load_device)
    network = type(clip.cond_stage_model)(device=torch.device("cpu"), dtype=dtype, model_options=options)
    management.archive_model_dtypes(network)
    give_weights(network)
    return network


def _without_tokenizer(content: Stored) -> tuple[Stored, dict[str, Tensor]]:
    """(the file's network alone, what the tokenizer is made of).

    Raises:
        QuantizationError: something else than bytes for the tokenizer.
    """
    tokenizer = {name: value for name, value in content.tensors.items() if name.startswith(_TOKENIZER)}
    if not all(value.dtype == torch.uint8 and value.ndim == 1 for value in tokenizer.values()):
        raise QuantizationError("the file's tokenizer is damaged.", "download or save the file again")
    rest = {name: value for name, value in content.tensors.items() if name not in tokenizer}
    return replace(content, tensors=rest), {name.removeprefix(_TOKENIZER): tokenizer[name] for name in tokenizer}


def _options_of(clip) -> dict[str, Any]:
    options = {key: value for key, value in clip.tokenizer_options.items() if _is_plain(value)}
    return {
        "layer_idx": clip.layer_idx if _is_layer(clip.layer_idx) else None,
        "tokenizer_options": options,
        "use_clip_schedule": bool(clip.use_clip_schedule),
    }


def _described(about: Mapping[str, str], path: Path) -> tuple[Family, dict[str, Any]]:
    """(the family, the CLIP's attributes) of a file's metadata.

    Raises:
        QuantizationError: what no writer of ours has written, or a type that this host does not know.
    """
    try:
        family = Family.of_texts(*(about[key] for key in (_CLIP_TYPE, _NAMING, _ENCODERS)))
        options = json.loads(about.get(_OPTIONS, "{}"))
        layer, tokenizer = options.get("layer_idx"), options.get("tokenizer_options", {})
        if not _is_layer(layer) or not isinstance(tokenizer, dict) or not all(map(_is_plain, tokenizer.values())):
            raise ValueError("options")
        scheduled = options.get("use_clip_schedule", False) is True
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fix = f"update ComfyUI, or save the file again ({str(error)[:60]})"
        raise QuantizationError(f"{path.name[:30]} is of an unknown family of text encoders.", fix) from error
    return family, {"layer_idx": layer, "tokenizer_options": tokenizer, "use_clip_schedule": scheduled}


def _is_layer(value: Any) -> bool:
    """A layer to stop at, as CLIP Set Last Layer has it; None: the last."""
    return value is None or (type(value) is int and abs(value) < 1000)


def _is_plain(value: Any) -> bool:
    """Numbers, words, and such by name for one of several tokenizers."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and not isinstance(one, dict) and _is_plain(one) for key, one in value.items())
    return value is None or isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and abs(value) < 1e6)
