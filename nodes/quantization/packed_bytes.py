"""The bytes of a packed weight, under the name that other packs read a float weight by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...qsched_core import QuantizationError


class PackedBytes(nn.Parameter):
    """A parameter that is moved, copied, cut and counted like any other, and cannot be computed with as if it were the
    weight: what would make floats of the bytes is refused. A layer's ``float_weight`` and the MODEL's state dict give
    the floats.

    Raises:
        QuantizationError: an operation whose result is of floats.
    """

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if any(isinstance(value, Tensor) and value.is_floating_point() for value in args):
                _refuse()
            out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point():
            _refuse()
        return out


def _refuse() -> None:
    raise QuantizationError(
        "another node computes with a weight that is packed.", "put that node before Quantize Model W4A8"
    )
