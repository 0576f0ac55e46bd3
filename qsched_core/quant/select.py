"""Which layers are quantised: rules by shape and position, not by a list of models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

SMALLEST = 4096
"""Weights; below it a layer's scales and overhead eat what the bits save."""


def candidates(root: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Every Linear layer below ``root`` with its dotted name."""
    for name, module in root.named_modules():
        if name and isinstance(module, nn.Linear):
            yield name, module


def reason_to_keep(
    root: nn.Module, name: str, layer: nn.Linear, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> str:
    """Why this layer stays as it is, or "" when it is to be quantised. Patterns are fnmatch's, on dotted names.

    Layers outside the repeated blocks read the input, the text and the time, or write the output: they are a
    few per cent of the weights, carry most of the damage, and the host's model detection reads their shapes.
    """
    if any(fnmatchcase(name, pattern) for pattern in exclude):
        return "excluded by the user"
    if include and not any(fnmatchcase(name, pattern) for pattern in include):
        return "not among the included"
    if layer.weight is None or not layer.weight.is_floating_point() or layer.weight.ndim != 2:
        return "its weight is not a plain float matrix"
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return "torch's attention reads its weight directly"
    if layer.weight.numel() < SMALLEST:
        return f"fewer than {SMALLEST} weights"
    if not include and not _inside_repeated_block(root, name):
        return "outside the repeated blocks"
    if not torch.isfinite(layer.weight.float()).all():
        return "its weight holds NaN or infinity"
    return ""


def _inside_repeated_block(root: nn.Module, name: str) -> bool:
    module: nn.Module = root
    for part in name.split(".")[:-1]:
        if isinstance(module, nn.ModuleList):
            return True
        module = getattr(module, part)
    return isinstance(module, nn.ModuleList)
