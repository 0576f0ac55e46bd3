"""How far the products of a backend are from exact ones, on a device: what a user's check and the benchmarks print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import skip_init

from .backends import Backend
from .formats import FORMATS, Format
from .trial import relative_error

OUTPUTS = 256
"""Of a layer that is tried: a multiple of what kernels work on at a time."""

_MOST = {3: 0.25, 4: 0.15, 6: 0.05, 8: 0.03}
"""Errors by the bits of a weight, of normal numbers: half as much again as the formats have."""

_MOST_OF_FOUR_BIT_TOKENS = 0.2
"""More than that where activations have 4 bits."""


@dataclass(frozen=True)
class ProductError:
    """A layer of so many inputs; ``out`` says why there is none. ``errors`` are relative, by number of tokens."""

    backend: str
    form: Format
    inputs: int
    kernel: str = ""
    out: str = ""
    errors: Mapping[int, float] | None = None

    @property
    def worst(self) -> float:
        return max((self.errors or {}).values(), default=0.0)

    @property
    def is_right(self) -> bool:
        more = _MOST_OF_FOUR_BIT_TOKENS if self.form.activation_bits == 4 else 0.0
        return self.worst < _MOST[self.form.weight_bits] + more


def product_errors(
    backends: Sequence[Backend],
    formats: Sequence[str] = tuple(FORMATS),
    widths: Sequence[int] = (64, 320, 1280),
    rows: Sequence[int] = (1, 33),
    device: torch.device | None = None,
) -> Iterator[ProductError]:
    """Of each backend in each format that it has here, at each width; one at a time, so that a caller may stop."""
    device = device or torch.device("cpu")
    for backend in backends:
        for name in formats:
            form = backend.form(name)
            if not backend.missing(form, device):
                for width in widths:
                    yield _product_error(backend, form, width, rows, device)


def _product_error(backend: Backend, form: Format, width: int, rows: Sequence[int], device: torch.device):
    layer = skip_init(nn.Linear, width, OUTPUTS, device="meta")  # its kind and its shape
    if reason := backend.refusal(layer, form, device):
        return ProductError(backend.name, form, width, out=reason)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    generator = torch.Generator().manual_seed(1)  # not the one that somebody has seeded
    weight = torch.randn(OUTPUTS, width, generator=generator).to(device, dtype)
    twin = backend.twin(layer, weight, None, form).to(device)
    exact_weight = weight.cpu().double().T
    errors = {}
    for count in rows:
        x = torch.randn(count, width, generator=generator).to(device, dtype)
        errors[count] = relative_error(twin(x), x.cpu().double() @ exact_weight)
    return ProductError(backend.name, form, width, backend.kernel(layer, form, device), errors=errors)
