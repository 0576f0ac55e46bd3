"""When two results of floating-point work may be compared bit by bit, and what is asked where they may not."""

from __future__ import annotations

import torch

ROUNDING = 1e-5
"""Relative (norms): what other kernels do to a float32 network of four steps. Measured on the tests' U-Net and on the
demo model, between ATEN_CPU_CAPABILITY default, avx2 and avx512, and between batches of 1, 2 and 8: 1e-8 to 4.5e-7."""

ROUNDED_ACTIVATIONS = 2e-2
"""The same where activations are rounded to 8 bits: rounding pushes some over the middle between two codes. Measured on
the demo model in W4A8, where quantising itself costs 9.6e-2: 5e-3 to 8.4e-3, by kernel or by batch."""


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one shape and type hold the same bits. Only for what every CPU guarantees:

    - one of them is a copy of the other, or the same tensor before and after something that must not write to it;
    - whole numbers, bytes, and floats that hold the exact result (sums of small powers of two);
    - element by element: adding, multiplying, dividing, roots, comparing, rounding; and maxima. IEEE 754 fixes them;
    - the same operations in the same order, on tensors of the same shapes, in memory that torch itself allocated
      (aligned to 64 bytes), in this process or in one server: these alone choose the kernel, and it has one result.

    Not guaranteed, and then `near` is the test: other batch sizes or widths, another order of adding, weights mapped
    from a file (alignment), another number of threads, another type.
    """
    return torch.equal(a, b)


def near(a: torch.Tensor, b: torch.Tensor, relative: float = ROUNDING) -> bool:
    """Whether ``a`` is ``b`` but for rounding: the norm of the difference over the norm of ``b``."""
    return a.shape == b.shape and distance(a, b) <= relative


def differ(a: torch.Tensor, b: torch.Tensor, relative: float = 100 * ROUNDING) -> bool:
    """Whether ``a`` and ``b`` differ by more than rounding does. "Not the same bits" could be rounding alone."""
    return a.shape != b.shape or distance(a, b) > relative


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The norm of the difference, in norms of ``b``."""
    a, b = a.double(), b.double()
    size = torch.linalg.vector_norm(b).item()
    difference = torch.linalg.vector_norm(a - b).item()
    return difference / size if size else (float("inf") if difference else 0.0)
