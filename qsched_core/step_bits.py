"""How many bits activations get now: a sampling step may ask for more than a layer's format has.

The number reaches the layers through the run, never through the module: two runs may share one model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from .errors import QuantizationError
from .precision import ACTIVATION_BITS

_LEAST: ContextVar[int] = ContextVar("least_activation_bits", default=0)


class _Traced:
    """The same number for compiled graphs: torch's tracer cannot read context variables, and guards plain values. With
    threads of different precision at once, compiled layers take the latest."""

    bits = 0


_traced = _Traced()


@contextmanager
def least_activation_bits(bits: int) -> Iterator[None]:
    """Inside, packed layers that are called in this thread round activations to at least ``bits``: 4, 8 or 16 (not at
    all). Layers whose format has more keep them, and convolutions never round theirs.

    Raises:
        QuantizationError: another number.
    """
    if type(bits) is not int or bits not in ACTIVATION_BITS:
        raise QuantizationError(f"{bits!r} activation bits.", "use 4, 8 or 16")
    before, token = _traced.bits, _LEAST.set(bits)
    _traced.bits = bits
    try:
        yield
    finally:
        _LEAST.reset(token)
        _traced.bits = before


def step_bits(own: int) -> int:
    """The bits of a layer whose format has ``own``, now."""
    return max(own, _traced.bits if torch.compiler.is_compiling() else _LEAST.get())
