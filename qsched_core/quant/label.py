"""What a preset says of the quantisation it was made for: printed, read and compared here and nowhere else.

"none", or parts joined by "+", in alphabetical order: formats ("w4a8/g32", "w8a8/channel", "w4a4/g64/asym"), other
people's types by name ("float8_e4m3fn", "nvfp4"), "conv" where convolutions are packed, and "quanto" where quanto
rounded them. Weights in ComfyUI's own layouts have the label of the same format of ours: which of the two holds a layer
depends on the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch
from torch import nn

from .backends import NATIVE, QuantoLayer
from .convolutions import QuantizedConvolution
from .formats import FORMATS
from .layers import QuantizedLayer

UNQUANTIZED = "none"
MOST = 200
"""Letters; a label of more is cut."""


def label_of(network: nn.Module) -> str:
    """The label of a network: its packed layers, ours or anybody's."""
    parts: set[str] = set()
    for module in network.modules():
        if isinstance(module, QuantizedLayer):
            parts.add(str(module.format))
            if isinstance(module, QuantizedConvolution):
                parts.add("conv")
            if isinstance(module, QuantoLayer):
                parts.add("quanto")
        elif (weight := module._parameters.get("weight")) is not None:
            parts.update(_part_of(module, weight))
    return "+".join(sorted(parts))[:MOST] or UNQUANTIZED


def same_quantization(one: str, other: str) -> bool:
    """Whether two labels say the same. A format without a scope ("w4a8") fits each of its scopes."""
    ours, theirs = _read(one), _read(other)
    return (
        ours.words == theirs.words
        and ours.formats.keys() == theirs.formats.keys()
        and all(_agree(scopes, theirs.formats[name]) for name, scopes in ours.formats.items())
    )


def may_be(label: str, name: str, scope: str = "") -> bool | None:
    """Whether quantising to format ``name`` with ``scope`` ("g32", "channel", "" for one that is not known) can give a
    network of this label; None where only the network can tell."""
    quantization = _read(label)
    if name not in quantization.formats or not _agree(quantization.formats[name], frozenset({scope} - {""})):
        return False
    return True if scope and quantization == _read(f"{name}/{scope}") else None


_FEW_BITS = re.compile(r"(?:w|int|fp|nf|q)[2-6](?!\d)", re.IGNORECASE)
"""In the name of a format, ours or another's: weights of fewer than 8 bits."""


def has_few_bits(label: str) -> bool:
    """Whether a label names weights of fewer than 8 bits. Names without a number of bits do not count."""
    return _FEW_BITS.search(label) is not None


@dataclass(frozen=True)
class _Label:
    """``formats`` by name, each with its scopes, none where they are not known; ``words`` is the rest."""

    formats: dict[str, frozenset[str]] = field(default_factory=dict)
    words: frozenset[str] = frozenset()


def _read(label: str) -> _Label:
    formats: dict[str, frozenset[str]] = {}
    words = set()
    for part in filter(None, label.split("+")):
        name, _, scope = part.partition("/")
        name = NATIVE.get(name, name)
        if name in FORMATS:
            formats[name] = formats.get(name, frozenset()) | ({scope} - {""})
        else:
            words.add(part)
    return _Label(formats, frozenset(words))


def _agree(one: frozenset[str], other: frozenset[str]) -> bool:
    return not one or not other or one == other


def format_of(module: nn.Module) -> str:
    """The format of ours that a layer in one of ComfyUI's own layouts has, by name; "" for any other layer."""
    weight = module._parameters.get("weight")
    if weight is None or isinstance(module, QuantizedLayer) or type(weight.data) is torch.Tensor:
        return ""
    return NATIVE.get(str(getattr(module, "quant_format", "")), "")


def _part_of(module: nn.Module, weight: nn.Parameter) -> set[str]:
    """What a layer of the host's or of another pack holds, if it is no plain floats."""
    kind = type(weight.data)
    if kind is not torch.Tensor:
        name = str(getattr(module, "quant_format", None) or kind.__name__)
        if name not in NATIVE:
            return {name}
        group = getattr(getattr(weight.data, "_params", None), "group_size", None)
        return {f"{NATIVE[name]}/g{group}" if group else f"{NATIVE[name]}/channel"}
    return {str(weight.dtype).removeprefix("torch.")} if weight.dtype.itemsize == 1 else set()
