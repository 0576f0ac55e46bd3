"""Which backend packs: the one asked for, or with "auto" the fastest that this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...choices import AUTO
from ...errors import QuantizationError
from ..formats import Format
from .base import Backend

_STOCK_FALLBACK = "w8a8"
"""What a layer gets whose width no native layout of its format takes: this one takes all widths in sixteens."""


@dataclass(frozen=True)
class Way:
    """A backend and the format it packs into; ``fixed``: in this format, whatever a plan says of a layer."""

    backend: Backend
    form: Format
    fixed: bool = False


def ways(
    backends: Mapping[str, Backend],
    choice: str,
    format: str,
    group_size: int | None,
    symmetric: bool,
    recipe: str,
    device: torch.device,
) -> tuple[list[Way], list[str]]:
    """(ways to pack a layer, best first; why others are not among them, for the report).

    ``auto`` with recipe "stock" takes what stock loaders read, with "compact" that too where it is faster than
    unpacking. Layers that the first way does not take go to the next one; under "stock" that is eight bits in a native
    layout: half of the float weight, where four bits have no layout that every device computes.

    Raises:
        QuantizationError: unknown backend, or one that cannot do the format here.
    """
    if choice != AUTO and choice not in backends:
        raise QuantizationError(f"backend {choice!r} is unknown.", f"use {', '.join([AUTO, *backends])}")
    native = [name for name, backend in backends.items() if backend.stock]
    portable = "torch"
    if choice == AUTO:
        names = native if recipe == "stock" else [*native, portable]
    else:
        names = [choice] if recipe == "stock" or choice == portable else [choice, portable]
    options, notes = [], []
    for name in names:
        backend = backends[name]
        form = backend.form(format, group_size, symmetric)
        reason = backend.missing(form, device)
        if not reason and choice == AUTO and recipe != "stock" and backend.stock and not backend.fast(form, device):
            reason = f"on {device.type} it has no kernel faster than unpacking"
        if not reason:
            options.append(Way(backend, form))
        elif name == choice or recipe == "stock":
            fix = "choose another format, group size or backend"
            if recipe == "stock":
                fix += ', or recipe "compact", which needs nothing of ComfyUI'
            raise QuantizationError(f"{name} cannot do {form.name} here: {reason}.", fix, backend=name)
        else:
            notes.append(f"Not {name}: {reason}.")
    if recipe == "stock" and options[0].backend.stock and format != _STOCK_FALLBACK:
        backend = options[0].backend
        form = backend.form(_STOCK_FALLBACK)
        if not backend.missing(form, device):
            options.append(Way(backend, form, fixed=True))
    return options, notes
