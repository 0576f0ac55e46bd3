"""How the host's loader knows a text encoder again: its own detection runs over shapes, on the meta device.

A CLIP says nothing of the loader that made it, so what is to be told that loader is found by asking it: the type and
the names of keys of which it makes this very class again, with these shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import comfy.sd
import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn

from ...qsched_core import QuantizationError
from ...qsched_core.choices import STOCK
from ...qsched_core.quant import candidates, is_packed
from .file_values import give_weights
from .twin_model import make_again

Value = TypeVar("Value")

HOST_ERRORS = (
    ArithmeticError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What its loaders raise for files that they were not written for."""

READS_FLOATS = "ComfyUI's loader reads this encoder in floats alone"

_NAMINGS = ({}, {"model.lm_head.": "lm_head.", "model.": "model.language_model.", "visual.": "model.visual."})
"""Beginnings of keys in the network, and in files of encoders that see: the host renames those when it loads them."""

_MARK = "qsched.comfy_quant"
"""A key of no layer. The host takes a file with such a key for one of packed layers."""

_SETTINGS = (
    "options_default", "max_length", "special_tokens", "enable_attention_masks", "zero_out_masked",
    "layer_norm_hidden_state", "return_attention_masks",
)  # fmt: skip
"""Of an encoder: what two loaders' results may differ by that are of one class."""


@dataclass(frozen=True)
class Family:
    """What the host's loader is told of a text encoder's files: its type, and how their keys are named. ``encoders``
    are the names of the encoders in the CLIP's network, one for each file."""

    clip_type: str
    naming: int
    encoders: tuple[str, ...]

    @classmethod
    def of_texts(cls, clip_type: str, naming: str, encoders: str) -> Family:
        """From a file's metadata.

        Raises:
            ValueError: none that this host has.
        """
        names = tuple(encoders.split())
        if clip_type not in comfy.sd.CLIPType.__members__ or naming not in map(str, range(len(_NAMINGS))):
            raise ValueError(f"type {clip_type[:30]}")
        if not 0 < len(names) <= 4 or len(set(names)) < len(names):
            raise ValueError(f"encoders {encoders[:30]}")
        return cls(clip_type, int(naming), names)

    def parts(self, values: Mapping[str, Value], tokenizer: Mapping[str, Value]) -> list[dict[str, Value]]:
        """The content of each encoder's file. What stands beside its transformer has no place there."""
        parts = []
        for name in self.encoders:
            inner = f"{name}.transformer."
            part = {key.removeprefix(inner): value for key, value in values.items() if key.startswith(inner)}
            parts.append(comfy.utils.state_dict_prefix_replace(part, _NAMINGS[self.naming]))
        for key, value in tokenizer.items():
            owner = next((part for part, name in enumerate(self.encoders) if key.startswith(f"{name}.")), 0)
            parts[owner][key.removeprefix(f"{self.encoders[owner]}.")] = value
        return parts

    def remake(
        self, values: Mapping[str, Tensor], tokenizer: Mapping[str, Tensor], options: Mapping, packed: bool = False
    ):
        """The CLIP that the host makes of ``values`` on the meta device; ``packed``: of a file with packed layers.

        Raises:
            HOST_ERRORS: the host makes none of them.
        """
        more = {_MARK: torch.zeros(0, dtype=torch.uint8)} if packed else {}
        parts = [{**part, **more} for part in self.parts(values, tokenizer)]
        return self.load(parts, {**options, "initial_device": torch.device("meta")})

    def load(self, parts: Sequence[Mapping[str, Tensor]], options: Mapping):
        """The stock loaders' own call. Not the streaming patcher: nothing is to be assigned that is not there."""
        clip = comfy.sd.load_text_encoder_state_dicts(
            [dict(part) for part in parts],
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            clip_type=comfy.sd.CLIPType[self.clip_type],
            model_options=copy.deepcopy(dict(options)),
            disable_dynamic=True,
        )
        give_weights(clip.cond_stage_model)
        return clip


def encoders_of(network: nn.Module) -> tuple[str, ...]:
    """Names of the text encoders in a CLIP's network, in its order."""
    return tuple(
        name for name, child in network.named_children() if hasattr(child, "transformer") and hasattr(child, "load_sd")
    )


def family_of(clip) -> Family | None:
    """What the host's loader is to be told to make this CLIP of its files; None: it makes no such CLIP.

    The type that the CLIP was loaded with is tried first, where its loader has noted it.
    """
    values, tokenizer = float_values(clip.cond_stage_model), tokenizer_values(clip)
    _, options = loader_of(clip)
    encoders = encoders_of(clip.cond_stage_model)
    if not 0 < len(encoders) <= 4:
        return None
    for clip_type in _types(clip):
        for naming in range(len(_NAMINGS)):
            family = Family(clip_type, naming, encoders)
            try:
                remake = family.remake(values, tokenizer, options)
            except HOST_ERRORS:
                continue
            if _alike(remake, clip, values):
                return family
    return None


def read_in_floats(clip) -> dict[str, str]:
    """{layer's name: why it is kept} for every layer that the host's loader does not read in its native layouts.

    Raises:
        QuantizationError: it knows no such text encoder, or reads it in floats alone.
    """
    fix = 'use recipe "compact"'
    family = family_of(clip)
    if family is None:
        raise QuantizationError("ComfyUI's loaders make no text encoder like this.", fix)
    network = clip.cond_stage_model
    remake = family.remake(float_values(network), tokenizer_values(clip), loader_of(clip)[1], packed=True)
    names = [name for name, _ in candidates(network, STOCK)]
    keep = {name: READS_FLOATS for name in names if not _reads_packed(remake.cond_stage_model.get_submodule(name))}
    if len(keep) == len(names):
        raise QuantizationError("ComfyUI's loader reads this text encoder in floats alone.", fix)
    return keep


def _reads_packed(layer: nn.Module) -> bool:
    return hasattr(layer, "_full_precision_mm")  # the host's mixed-precision layers say so of their products


def float_values(network: nn.Module) -> dict[str, Tensor]:
    """Every value as the float network has it, on the meta device."""
    keys, values = network.state_dict().keys(), {}
    for name, module in network.named_modules(remove_duplicate=False):
        packed = is_packed(module)
        for leaf, value in (*module._parameters.items(), *module._buffers.items()):
            key = f"{name}.{leaf}" if name else leaf
            if value is None or key not in keys or (packed and leaf not in ("weight", "bias")):
                continue
            shape, dtype = value.shape, value.dtype
            if packed and leaf == "weight":
                shape = getattr(module, "float_shape", shape)
                dtype = dtype if dtype.is_floating_point else torch.float16
            values[key] = torch.empty(shape, dtype=dtype, device="meta")
    return values


def tokenizer_values(clip) -> dict[str, Tensor]:
    """What of a CLIP's tokenizer comes with its file: vocabularies that the host does not bring."""
    values = getattr(clip.tokenizer, "state_dict", dict)()
    return {key: value for key, value in values.items() if isinstance(value, Tensor)}


def loader_of(clip) -> tuple[str | None, dict]:
    """(the type, the options) that a CLIP was loaded with, where its loader has noted them."""
    init = clip.patcher.cached_patcher_init
    while init is not None and init[0] is make_again:
        init = init[1][0]
    if init is not None and init[0] in (comfy.sd.load_clip_model_patcher, encoder_patcher):
        clip_type, options = init[1][2:4]
        return clip_type.name, dict(options)
    return None, {}


def encoder_patcher(path: Path, embeddings, clip_type, options: dict, disable_dynamic: bool = False):
    """The patcher of a file of ours, loaded once more; called as the host calls its own loader's."""
    from .encoder_files import load_encoder

    return load_encoder(path, options).patcher


def _types(clip) -> Iterator[str]:
    """Names of the host's types, the likely ones first."""
    noted, _ = loader_of(clip)
    module = type(clip.cond_stage_model).__module__.rpartition(".")[2].upper()
    names = list(comfy.sd.CLIPType.__members__)
    first = [name for name in (noted, module) if name in names]
    yield from dict.fromkeys([*first, *names])


def _alike(remake, clip, values: Mapping[str, Tensor]) -> bool:
    ours, theirs = clip.cond_stage_model, remake.cond_stage_model
    if _kind(ours) != _kind(theirs) or _kind(clip.tokenizer) != _kind(remake.tokenizer):
        return False
    if shapes_of(theirs.state_dict()) != shapes_of(values):
        return False
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in encoders_of(ours)]
    return all(getattr(a, key, None) == getattr(b, key, None) for a, b in pairs for key in _SETTINGS)


def _kind(thing) -> tuple[str, str]:
    """Not the class itself: many are made anew by each call of the loader."""
    return type(thing).__module__, type(thing).__qualname__


def shapes_of(values: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in values.items()}
