"""Kernels, temporaries and memory traffic of one call of packed layers: ``python -m benchmarks.call_cost``.

Counted on torch's meta device at shapes of SDXL and FLUX at 1024², in the types that they run in, float16 and bfloat16,
beside the float layer of the same shape. An operation that makes or changes a tensor is a kernel; it reads its inputs
and writes its output once, also where they are one tensor. "Triton": where the machine has it, and our two kernels pass
their trials. ``peak`` is the most that lies in memory beside inputs, packed weight and output.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from math import prod
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qsched_core.quant import (
    FORMATS,
    Format,
    QuantizedConv2d,
    QuantizedLinear,
    decoding,
    fused,
    products,
    resolve_format,
    rotation,
    tokens,
)
from qsched_core.quant.layers import multiplies_integers
from qsched_core.quant.packing import grouping, in_steps, row_bytes

from .record import record

LINEARS = {
    "SDXL ff 1280 -> 10240, 1024 tokens": (10240, 1280, 1024),
    "SDXL to_q 640 -> 640, 4096 tokens": (640, 640, 4096),
    "FLUX linear1 3072 -> 21504, 4352 tokens": (21504, 3072, 4352),
}
CONVOLUTIONS = {
    "SDXL conv 1280 3x3, 32²": (1280, 1280, 32),
    "SDXL conv 2560 -> 1280 3x3, 32²": (1280, 2560, 32),
    "SDXL conv 320 3x3, 128²": (320, 320, 128),
}
FORMS = [*(FORMATS[name] for name in ("w4a8", "w4a16", "w8a8", "w6a8")), resolve_format("w4a8", symmetric=False)]
META = torch.device("meta")
_SYNCHRONISING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal"}
_LOOK_UP = {"take", "index"}
_NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided"}


class Count(TorchDispatchMode):
    """What the operations inside cost."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.traffic = self.peak = self.synchronisations = 0
        self._live: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        storages = {one.untyped_storage()._cdata for one in inputs}
        outputs = [one for one in tree_leaves(out) if isinstance(one, Tensor)]
        fresh = [one for one in outputs if one.untyped_storage()._cdata not in storages]
        self.synchronisations += name in _SYNCHRONISING
        changed = function._schema.is_mutable
        if name not in _NO_KERNEL and (fresh or changed):
            self.kernels[name] += 1
            target = (kwargs or {}).get("out")
            reads = inputs[1:] if name == "copy_" else [one for one in inputs if one is not target]
            if name in _LOOK_UP:  # of a table it reads as much as it gives
                reads = [*reads[1:], *(fresh or outputs)]
            self.traffic += sum(map(_bytes, reads)) + sum(map(_bytes, fresh or outputs))
        for one in fresh:
            self._live[StorageWeakRef(one.untyped_storage())] = one.untyped_storage().nbytes()
        self._live = {one: size for one, size in self._live.items() if not one.expired()}
        self.peak = max(self.peak, sum(self._live.values()))
        return out

    def unpacked_at_once(self, packed: Tensor, columns: int, form: Format, dtype: torch.dtype, gain: float) -> Tensor:
        """Stands in for ``fused.decode``, which launches a kernel of its own: it reads bytes and writes a weight."""
        self.kernels["triton"] += 1
        out = torch.empty(len(packed), grouping(columns, form)[1], dtype=dtype, device=packed.device)
        self.traffic += _bytes(packed) + _bytes(out)
        return out

    def rounded_at_once(self, x: Tensor, bits: int, least: float, in_place: bool = False) -> Tensor:
        """Stands in for ``fused.rounded``."""
        self.kernels["triton"] += 1
        self.traffic += 2 * _bytes(x)
        return x if in_place else torch.empty_like(x)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def cost(module: nn.Module, x: Tensor, with_triton: bool = False) -> dict[str, float]:
    """Of one call: kernels, and MB of temporaries at their peak and of traffic."""
    with torch.inference_mode():
        module(x)
        with Count() as count, ExitStack() as stack:
            if with_triton:
                stack.enter_context(patch.object(fused, "decode", count.unpacked_at_once))
                stack.enter_context(patch.object(fused, "rounded", count.rounded_at_once))
            out = module(x)
    return {
        "kernels": sum(count.kernels.values()),
        "peak_mb": round((count.peak - _bytes(out)) / 1e6, 1),
        "traffic_mb": round(count.traffic / 1e6, 1),
        "synchronisations": count.synchronisations,
    }


def least_cost(packed: nn.Module, x: Tensor, out_bytes: int, integers: bool = False) -> tuple[int, int]:
    """(traffic, temporaries) in bytes below which no chain of torch's operations can be that unpacks a weight: none of
    them takes codes out of their bytes and scales them. So codes lie in memory between two, a byte each, and the
    weight, two bytes, between the last of them and the product. A scale that is a byte and its row's number becomes a
    number of four bytes first; others are read for nothing. Tokens that are rounded are rotated, their largest
    found, rounded and multiplied, each in one operation. What remains beside a weight are the rotated tokens.

    ``integers``: below which none can be that multiplies codes. Rows of codes with a scale at their end are copied to
    be multiplied, and so are codes of tokens. A sum has four bytes; two scales and a bias take two operations, between
    which lies what an output takes. Beside that lie the tokens, rotated and as codes, and a part of the sums."""
    weights = prod(packed.shape)
    if integers:
        tokens_bytes = 5 * _bytes(x) + out_bytes // 2 * 14
        return _bytes(packed.weight) + 2 * weights + tokens_bytes, _bytes(x) + _bytes(x) // 2
    codes = 2 * weights if packed.format.storage_bits < 8 else 0
    scales = 0
    if in_steps(packed.format):
        scales = 8 * len(packed.weight) * grouping(prod(packed.shape[1:]), packed.format)[0]
    is_linear = isinstance(packed, QuantizedLinear)
    reads_of_input = 1 if not is_linear else 6 if packed.format.activation_bits < 16 else 3
    traffic = _bytes(packed.weight) + codes + scales + 4 * weights + reads_of_input * _bytes(x) + out_bytes
    return traffic, 2 * weights + (_bytes(x) if is_linear else 0)


def linear(outputs: int, inputs: int, form: Format) -> QuantizedLinear:
    packed = torch.empty(outputs, row_bytes(inputs, form), dtype=torch.uint8, device=META)
    return QuantizedLinear(packed, torch.empty(outputs, dtype=torch.float16, device=META), inputs, form)


def convolution(outputs: int, inputs: int, form: Format) -> QuantizedConv2d:
    packed = torch.empty(outputs, row_bytes(9 * inputs, form), dtype=torch.uint8, device=META)
    bias = torch.empty(outputs, dtype=torch.float16, device=META)
    return QuantizedConv2d(packed, bias, (outputs, inputs, 3, 3), form, padding=(1, 1))


class Float(nn.Module):
    """The layer in a type of 16 bits."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype):
        super().__init__()
        self.weight = torch.empty(shape, dtype=dtype, device=META)
        self.bias = torch.empty(shape[0], dtype=dtype, device=META)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 2:
            return F.linear(x, self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, padding=1)


def rows() -> list[dict]:
    """A row for each format and shape, with the float layer's traffic and the unpacked weight's size beside it."""
    rows_of_formats = []
    shapes = [(name, linear, (n, k), (1, tokens, k)) for name, (n, k, tokens) in LINEARS.items()]
    shapes += [(name, convolution, (n, c, 3, 3), (1, c, side, side)) for name, (n, c, side) in CONVOLUTIONS.items()]
    for name, make, shape, size in shapes:
        x = torch.empty(size, dtype=torch.bfloat16 if name.startswith("FLUX") else torch.float16, device=META)
        plain = cost(Float(shape, x.dtype), x)
        for form, with_triton in [(form, False) for form in FORMS] + [(form, True) for form in FORMS if in_steps(form)]:
            layer = make(shape[0], shape[1], form).to(x.dtype)
            row = cost(layer, x, with_triton)
            out_bytes = 2 * shape[0] * (size[1] if make is linear else size[2] * size[3])
            if make is linear and form.activation_bits < 16:
                # Rotated, their largest found, rounded, multiplied: each in one operation, and the weight for nothing.
                row["tokens_alone_ratio"] = round((6 * _bytes(x) + out_bytes) / 1e6 / plain["traffic_mb"], 2)
            if not with_triton:
                integers = make is linear and multiplies_integers(form, torch.device("cuda"))
                traffic, temporaries = least_cost(layer, x, out_bytes, integers)
                row["least_ratio"] = round(traffic / 1e6 / plain["traffic_mb"], 2)
                row["least_peak_mb"] = round(temporaries / 1e6, 1)
            unpacked = 2 * prod(shape) / 1e6
            rows_of_formats.append(
                {
                    "layer": name,
                    "format": f"{form}, Triton" if with_triton else str(form),
                    **row,
                    "float_traffic_mb": plain["traffic_mb"],
                    "traffic_ratio": round(row["traffic_mb"] / plain["traffic_mb"], 2),
                    "unpacked_mb": round(unpacked, 1),
                    "input_mb": round(_bytes(x) / 1e6, 1),
                }
            )
    return rows_of_formats


def as_on_a_card() -> None:
    """A meta device holds no numbers to compare or to keep, and is prepared for nothing else."""
    products._is_right = lambda device: True
    for size in rotation.SIZES:
        rotation._hadamard(size, rotation._SCALED, META)
    decoding.prepare(META)
    tokens.prepare(META)


def main() -> None:
    as_on_a_card()
    table = rows()
    text = "{layer:42s} {format:18s} {kernels:4d} kernels {traffic_ratio:6.2f} x traffic {peak_mb:8.1f} MB"
    for row in table:
        print(text.format(**row))
    record("call_cost", {"rows": table})


if __name__ == "__main__":
    main()
