"""Which backend packs: the one asked for, or with "auto" the fastest that this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...errors import QuantizationError
from ..formats import Format
from .base import Backend

AUTO = "auto"


@dataclass(frozen=True)
class Way:
    """A backend and the format it packs into."""

    backend: Backend
    form: Format


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
    unpacking. Layers that the first way does not take go to the next one.

    Raises:
        QuantizationError: unknown backend, or one that cannot do the format here.
    """
    if choice != AUTO and choice not in backends:
        raise QuantizationError(f"backend {choice!r} is unknown.", f"use {', '.join([AUTO, *backends])}")
    native = [name for name, backend in backends.items() if backend.stock]
    portable = "torch"
    if choice == AUTO:
        wanted = native if recipe == "stock" else [*native, portable]
    else:
        wanted = [choice] if recipe == "stock" or choice == portable else [choice, portable]
    found, notes = [], []
    for name in wanted:
        backend = backends[name]
        form = backend.form(format, group_size, symmetric)
        reason = backend.missing(form, device)
        if not reason and choice == AUTO and recipe != "stock" and backend.stock and not backend.fast(form, device):
            reason = f"on {device.type} it has no kernel faster than unpacking"
        if not reason:
            found.append(Way(backend, form))
        elif name == choice or recipe == "stock":
            fix = "choose another format, group size or backend"
            if recipe == "stock":
                fix += ', or recipe "compact", which needs nothing of ComfyUI'
            raise QuantizationError(f"{name} cannot do {form.name} here: {reason}.", fix, backend=name)
        else:
            notes.append(f"Not {name}: {reason}.")
    return found, notes
