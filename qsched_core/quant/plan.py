"""Which layer gets which format: what a sensitivity study decides and the quantiser follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .formats import Format


@dataclass(frozen=True)
class Plan:
    """``forms`` maps a layer's dotted name to its Format, or to None where it stays as it is; layers it does not name
    get the format that the quantiser was asked for. ``first_tokens`` maps Linear layers to the constant first token
    (K,) of their inputs, whose output row is kept as the float layer has it (MixDQ, arXiv 2405.17873, §3.2)."""

    forms: Mapping[str, Format | None]
    first_tokens: Mapping[str, Tensor] = field(default_factory=dict)
