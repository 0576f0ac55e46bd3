"""Which layers are quantised: rules by shape and position, not by a list of models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..choices import COMPACT, RECIPES, STOCK
from ..errors import QuantizationError
from .convolutions import CONVOLUTIONS
from .sources import float_values, is_layer

LAYER_KINDS = {STOCK: (nn.Linear,), COMPACT: (nn.Linear, *CONVOLUTIONS)}
"""What each recipe packs."""

MIN_WEIGHTS = 4096
"""Of a layer; below it a layer's scales and overhead eat what the bits save."""

MAX_LATENT_CHANNELS = 16
"""A convolution from or to so few channels reads the latent or writes it: 4 in SDXL, 16 in FLUX and Wan 2.1."""

OUTSIDE_BLOCKS = "outside the repeated blocks"
EXCLUDED, NOT_INCLUDED = "excluded by the user", "no include pattern matches it"


def kinds_of(recipe: str) -> tuple[type[nn.Module], ...]:
    """Raises QuantizationError for an unknown recipe."""
    if recipe not in RECIPES:
        raise QuantizationError(f"recipe {recipe!r} is unknown.", f"use one of {', '.join(RECIPES)}", recipe=recipe)
    return LAYER_KINDS[recipe]


def candidates(root: nn.Module, recipe: str = "compact") -> Iterator[tuple[str, nn.Module]]:
    """Every layer below ``root`` of the recipe's kinds, with its dotted name."""
    kinds = kinds_of(recipe)
    for name, module in root.named_modules():
        if name and is_layer(module, kinds):
            yield name, module


def shared_names(root: nn.Module) -> dict[str, list[str]]:
    """Every name of a module below ``root``, by the first of them: a layer may be in two places."""
    names: dict[int, list[str]] = {}
    for name, module in root.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return {every[0]: every for every in names.values()}


def unmatched(root: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Those of the patterns that match no layer of any recipe: a typing error, or written for another model."""
    names = [name for name, _ in candidates(root)]
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def reason_to_keep(
    root: nn.Module,
    name: str,
    layer: nn.Module,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    edges: Mapping[str, str] | None = None,
) -> str:
    """Why this layer stays as it is, or "" when it is to be quantised. Patterns are fnmatch's, on dotted names.

    Layers outside the repeated blocks read the input, the text and the time, or write the output: they are a
    few per cent of the weights, carry most of the damage, and the host's model detection reads their shapes.
    ``edges`` are the layers that an observation found there, with why: then a network without blocks is told by them.
    """
    if any(fnmatchcase(name, pattern) for pattern in exclude):
        return EXCLUDED
    if include and not any(fnmatchcase(name, pattern) for pattern in include):
        return NOT_INCLUDED
    convolution = isinstance(layer, CONVOLUTIONS)
    axes = len(layer.kernel_size) if convolution else 0
    if layer.weight is None or not layer.weight.is_floating_point() or layer.weight.ndim != 2 + axes:
        return "its weight is not a plain float matrix"
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return "torch's attention reads its weight directly"
    if convolution and (any(layer.children()) or _reads_weights(root.get_submodule(name.rpartition(".")[0]))):
        return "its network does more with it than call it"
    if own := _own_calls(layer):
        return f"another node has changed its {own}"
    if layer.weight.numel() < MIN_WEIGHTS:
        return f"fewer than {MIN_WEIGHTS} weights"
    if convolution and layer.padding_mode != "zeros":
        return "it pads with something else than zeros"
    if convolution and not include and min(layer.in_channels, layer.out_channels) <= MAX_LATENT_CHANNELS:
        return "it reads or writes the latent"
    if not include and edges and name in edges:
        return edges[name]
    if not include and not _inside_repeated_block(root, name) and (edges is None or has_blocks(root)):
        return OUTSIDE_BLOCKS
    if not torch.isfinite(float_values(layer.weight)).all():
        return "its weight holds NaN or infinity"
    return ""


def is_skip_projection(root: nn.Module, name: str) -> bool:
    """Whether a layer is a convolution of one point that changes the number of channels beside one of more points that
    changes it alike: a U-Net's blocks carry their input past themselves through it, and two scales meet there where
    skip connections are joined (Q-Diffusion, arXiv 2302.04304). Told by shape: names differ from network to network.

    Under one per cent of SDXL's weights. Measured once, one layer at a time, on the noise toy in W4A16: two of eighty
    layers, both of this kind, make four tenths of the squared error.
    """
    layer = root.get_submodule(name)
    if not isinstance(layer, CONVOLUTIONS) or _points(layer) > 1 or layer.in_channels == layer.out_channels:
        return False
    block = root.get_submodule(name.rpartition(".")[0])
    return any(
        isinstance(other, CONVOLUTIONS) and _points(other) > 1 and _channels(other) == _channels(layer)
        for other in block.modules()
    )


def _points(layer: nn.Module) -> int:
    return math.prod(layer.kernel_size)


def _channels(layer: nn.Module) -> tuple[int, int, int]:
    return layer.in_channels, layer.out_channels, layer.groups


def has_blocks(root: nn.Module) -> bool:
    """Whether most weights of the network lie in repeated blocks. Exported graphs have flat names and none."""
    inside = outside = 0
    for name, layer in candidates(root):
        if _inside_repeated_block(root, name):
            inside += layer.weight.numel()
        else:
            outside += layer.weight.numel()
    return inside > outside


def _own_calls(layer: nn.Module) -> str:
    """What of this one layer's call is not its class's: seamless tiling and the like replace it on the object."""
    own = [name for name in ("forward", "_conv_forward") if name in vars(layer)]
    # What was put back by who replaced it is the class's again, bound to the layer.
    changed = [name for name in own if getattr(vars(layer)[name], "__func__", None) is not getattr(type(layer), name)]
    hooks = layer._forward_hooks or layer._forward_pre_hooks
    return ", ".join([*changed, *(["hooks"] if hooks else [])])


def _reads_weights(module: nn.Module) -> bool:
    """Whether a module's own call reads a layer's weight in place of calling the layer: CogVideoX's sums a kernel over
    time where there is one frame."""
    code = getattr(type(module).forward, "__code__", None)
    own = "weight" in module._parameters  # then it is that which it reads
    return code is not None and not own and "weight" in code.co_names


def _inside_repeated_block(root: nn.Module, name: str) -> bool:
    module: nn.Module = root
    for part in name.split(".")[:-1]:
        if _holds_blocks(module):
            return True
        module = getattr(module, part)
    return _holds_blocks(module)


def _holds_blocks(module: nn.Module) -> bool:
    """A list of modules, or a sequence of them that are more than layers: a U-Net's middle is written like that."""
    if isinstance(module, nn.Sequential):
        return any(any(child.children()) and not isinstance(child, nn.Sequential) for child in module)
    return isinstance(module, nn.ModuleList)
