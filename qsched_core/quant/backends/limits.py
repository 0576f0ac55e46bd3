"""What the kernels of ComfyUI's native layouts take on each device: the one table, and where it was read.

comfy-kitchen has a table of its own, which its dispatcher follows. It says of rotations that they are integers.
"""

from __future__ import annotations

from dataclasses import dataclass

CONVROT = (256, 64, 16)
"""Columns a Hadamard rotation may mix, by the layouts' own rule 4^n; 4 is too few to be worth a kernel's time."""

_CUDA = "binaries of comfy-kitchen 0.2.26, 0.2.31 and 0.2.40"
_PYTHON = "comfy_kitchen.backends of 0.2.31"


@dataclass(frozen=True)
class Limit:
    """``layout`` on the kernels of ``kernels``: rotations that they take, and the least CUDA compute capability."""

    layout: str
    kernels: str
    rotations: tuple[int, ...]
    capability: tuple[int, int] | None
    source: str


LIMITS = (
    # "convrot rotate kernel only supports group_size 256", in packing and again in the product; nothing falls back.
    Limit("asym_w4a8_int8", "cuda", (256,), (8, 0), _CUDA),
    Limit("asym_w4a8_int8", "hip", CONVROT, None, _PYTHON),
    Limit("asym_w4a8_int8", "eager", CONVROT, None, _PYTHON),
    Limit("convrot_w4a4", "cuda", CONVROT, (7, 5), _CUDA),
    Limit("convrot_w4a4", "hip", CONVROT, None, _PYTHON),
    Limit("convrot_w4a4", "eager", CONVROT, None, _PYTHON),
    # Others than 256 are checked for and rotated by a matrix product: slower, and right.
    Limit("int8_tensorwise", "cuda", CONVROT, (7, 5), _CUDA),
    Limit("int8_tensorwise", "hip", CONVROT, None, _PYTHON),
    Limit("int8_tensorwise", "triton", CONVROT, (8, 0), _PYTHON),
    Limit("int8_tensorwise", "eager", CONVROT, None, _PYTHON),
)


def rotations(layout: str) -> tuple[int, ...]:
    """The rotations that every device's kernels take, widest first: what a file that travels may hold."""
    sizes = [set(limit.rotations) for limit in LIMITS if limit.layout == layout]
    return tuple(sorted(set.intersection(*sizes), reverse=True)) if sizes else ()
