"""Quantisation formats as values: how many bits a weight and an activation get, and over what a scale is shared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import QuantizationError

MAX_GROUP = 65536


@dataclass(frozen=True)
class Format:
    """Symmetric integer weights, optionally with integer activations (one dynamic scale per token).

    ``weight_bits`` 3, 4 or 8; ``activation_bits`` 4, 8 or 16 (16: left in floating point); ``group_size`` columns
    share a float16 scale, 0: one scale per output channel.

    Raises:
        QuantizationError: a value outside these.
    """

    name: str
    weight_bits: int
    activation_bits: int
    group_size: int

    def __post_init__(self) -> None:
        if self.weight_bits not in (3, 4, 8) or self.activation_bits not in (4, 8, 16):
            raise QuantizationError(
                f"format {self.name} has W{self.weight_bits}A{self.activation_bits}.", "use W 3, 4 or 8, A 4, 8 or 16"
            )
        if not (0 <= self.group_size <= MAX_GROUP and self.group_size % 8 == 0):
            raise QuantizationError(f"group size {self.group_size}.", "use 0 (per channel) or a multiple of 8")

    @property
    def storage_bits(self) -> int:
        """Bits a weight takes in memory: 3-bit codes lie in 4."""
        return 8 if self.weight_bits == 8 else 4

    def __str__(self) -> str:
        return f"{self.name}/{f'g{self.group_size}' if self.group_size else 'channel'}"


FORMATS = {
    item.name: item
    for item in (
        Format("w4a8", 4, 8, 32),
        Format("w4a16", 4, 16, 32),
        Format("w4a4", 4, 4, 32),
        Format("w8a8", 8, 8, 0),
        Format("w3a8", 3, 8, 32),
    )
}
"""``w4a8`` with group 32 is the setting of the paper's SD1.5 experiments (torchao, int8 dynamic, int4 group 32).
``w3a8`` is for studying damage: it takes as much memory as ``w4a8``."""


def resolve_format(name: str, group_size: int | None = None) -> Format:
    """A known format, with another group size if one is given.

    Raises:
        QuantizationError: unknown name or group size.
    """
    if name not in FORMATS:
        raise QuantizationError(f"format {name!r} is unknown.", f"use one of {', '.join(FORMATS)}", name=name)
    return FORMATS[name] if group_size is None else replace(FORMATS[name], group_size=group_size)
