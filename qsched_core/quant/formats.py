"""Quantisation formats as values: how many bits a weight and an activation get, and over what a scale is shared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import QuantizationError

MAX_GROUP = 65536
"""Columns: wider than any layer's input; a file that says more is damaged."""


@dataclass(frozen=True)
class Format:
    """Integer weights, optionally with integer activations (symmetric, one dynamic scale per token).

    ``weight_bits`` 3, 4, 6 or 8; ``activation_bits`` 4, 8 or 16 (16: left in floating point); ``group_size`` columns
    share a scale, 0: one scale per output channel. ``symmetric`` weights are a code times the scale; others add a
    minimum, also shared by the group.

    Raises:
        QuantizationError: a value outside these.
    """

    name: str
    weight_bits: int
    activation_bits: int
    group_size: int
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.weight_bits not in (3, 4, 6, 8) or self.activation_bits not in (4, 8, 16):
            raise QuantizationError(
                f"format {self.name} has W{self.weight_bits}A{self.activation_bits}.",
                "use W 3, 4, 6 or 8, A 4, 8 or 16",
            )
        if not (0 <= self.group_size <= MAX_GROUP and self.group_size % 8 == 0):
            raise QuantizationError(f"group size {self.group_size}.", "use 0 (per channel) or a multiple of 8")

    @property
    def storage_bits(self) -> int:
        """Bits a weight takes in memory: 3-bit codes lie in 4."""
        return max(4, self.weight_bits)

    def __str__(self) -> str:
        scope = f"g{self.group_size}" if self.group_size else "channel"
        return f"{self.name}/{scope}{'' if self.symmetric else '/asym'}"


FORMATS = {
    item.name: item
    for item in (
        Format("w4a8", 4, 8, 32),
        Format("w4a16", 4, 16, 32),
        Format("w4a4", 4, 4, 32),
        Format("w8a8", 8, 8, 0),
        Format("w8a16", 8, 16, 0),
        Format("w6a8", 6, 8, 32),
        Format("w3a8", 3, 8, 32),
    )
}
"""``w4a8`` with group 32 is the setting of the paper's SD1.5 experiments (torchao, int8 dynamic, int4 group 32).
``w3a8`` is for studying damage: it takes as much memory as ``w4a8``."""


def resolve_format(name: str, group_size: int | None = None, symmetric: bool = True) -> Format:
    """A known format, with another group size if one is given, and with minimums if not ``symmetric``.

    Raises:
        QuantizationError: unknown name or group size.
    """
    if name not in FORMATS:
        raise QuantizationError(f"format {name!r} is unknown.", f"use one of {', '.join(FORMATS)}", name=name)
    form = FORMATS[name]
    if group_size is None and symmetric:
        return form
    return replace(form, group_size=form.group_size if group_size is None else group_size, symmetric=symmetric)


def read_format(text: str) -> Format:
    """The Format that prints so, or by its name alone: ``w4a8``, ``w4a8/g64``, ``w8a8/channel``, ``w4a8/g32/asym``.

    Raises:
        QuantizationError: anything else.
    """
    name, *parts = text.strip().split("/")
    group, symmetric = None, True
    for part in parts:
        if part == "asym":
            symmetric = False
        elif part == "channel":
            group = 0
        elif part[:1] == "g" and part[1:].isdecimal() and len(part) < 8:
            group = int(part[1:])
        else:
            raise QuantizationError(f"format {text[:40]!r} is unknown.", "write w4a8, w4a8/g64 or w8a8/channel")
    return resolve_format(name, group, symmetric)
