"""ComfyUI's native layouts, packed and multiplied by comfy-kitchen: what stock loaders read and tensor cores run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..formats import Format, resolve_format
from ..layers import rounded_tokens
from ..rotation import rotate, rotate_weight
from ..rounding import Fitting, Grid, IntegerGrid, TableGrid
from .base import Backend

ROTATIONS = (256, 64, 16)
"""Columns a Hadamard rotation mixes: the widest that divides a layer's inputs. 320 and 640 take 64."""


@dataclass(frozen=True)
class Layout:
    """One of ComfyUI's formats. ``algo`` names it in checkpoints, ``kind`` in comfy-kitchen, ``function`` multiplies;
    ``default_group`` is its own group size, 0 per channel."""

    algo: str
    kind: str
    function: str
    default_group: int


W4A8 = Layout("asym_w4a8_int8", "AsymW4A8Int8Layout", "w4a8_int8_linear", 16)
W4A4 = Layout("convrot_w4a4", "TensorCoreConvRotW4A4Layout", "convrot_w4a4_linear", 0)
W8A8 = Layout("int8_tensorwise", "TensorWiseINT8Layout", "int8_linear", 0)
_BITS = {(4, 8): W4A8, (4, 4): W4A4, (8, 8): W8A8}


def layout_of(form: Format) -> Layout | None:
    """The layout whose bits a format has, if any."""
    return _BITS.get((form.weight_bits, form.activation_bits))


class KitchenLinear(nn.Module):
    """A Linear over one of comfy-kitchen's quantised tensors, for modules outside ComfyUI."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    def like(cls, layer: nn.Linear, weight: Tensor, bias: Tensor | None, layout: Layout) -> KitchenLinear:
        return cls(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x)
        return F.linear(x, self.weight.to(x.dtype), bias)


class KitchenBackend(Backend):
    """``make(layer, quantised weight, bias, layout)`` builds the twin; ``known`` are the layouts that its host reads,
    None: all."""

    name = "kitchen"
    stock = True

    def __init__(self, make: Callable[..., nn.Module] = KitchenLinear.like, known: Collection[str] | None = None):
        self.make, self.known = make, known

    def form(self, format: str, group_size: int | None = None, symmetric: bool = True) -> Format:
        form = resolve_format(format, group_size, symmetric)
        layout = layout_of(form)
        if group_size is not None or layout is None:
            return form
        return resolve_format(format, layout.default_group, symmetric)

    def missing(self, form: Format, device: torch.device) -> str:
        try:
            from comfy_kitchen.tensor.base import LAYOUTS
        except Exception as error:  # noqa: BLE001 - a broken install must not break the others
            return f"comfy-kitchen cannot be imported ({error})"
        layout = layout_of(form)
        if layout is None:
            return f"ComfyUI has no native layout for {form.name}"
        if layout.kind not in LAYOUTS or (self.known is not None and layout.algo not in self.known):
            return f"this ComfyUI has no {layout.algo}"
        if not form.symmetric:
            return f"{layout.algo} is symmetric"
        if layout is not W4A8 and form.group_size:
            return f"{layout.algo} has one scale per channel"
        if layout is W4A8 and form.group_size % 16 | (not form.group_size):
            return f"{layout.algo} takes groups of 16, 32, 64 or 128"
        return ""

    def refusal(self, layer: nn.Module, form: Format) -> str:
        if not isinstance(layer, nn.Linear):
            return "ComfyUI's native layouts hold Linear layers only"
        columns = layer.in_features
        if rotation(columns) == 0:
            return f"{columns} inputs are no multiple of 16"
        if layout_of(form) is W4A4 and columns % 64:
            return f"{columns} inputs are no multiple of 64"
        if form.group_size and columns % form.group_size:
            return f"{columns} inputs are no multiple of the group, {form.group_size}"
        return ""

    def kernel(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        return self._runs_on(form, device)

    def _runs_on(self, form: Format, device: torch.device) -> str:
        from comfy_kitchen.registry import registry

        return "eager" if device.type == "cpu" else registry.get_capable_backend(layout_of(form).function)

    def fast(self, form: Format, device: torch.device) -> bool:
        return self._runs_on(form, device) != "eager"

    def twin(self, layer: nn.Module, weight: Tensor, bias: Tensor | None, form: Format) -> nn.Module:
        return self.make(layer, quantized_weight(weight, form), bias, layout_of(form))

    def fitting(self, layer: nn.Module, twin: nn.Module, weight: Tensor, form: Format) -> Fitting | None:
        """Their tensors are opened here: where one does not hold what it is known to hold, nothing is fitted."""
        packed = twin.weight.data
        grid = grid_of(packed, form)
        if grid is None:
            return None
        size = packed._params.convrot_groupsize

        def inputs(rows: Tensor) -> Tensor:
            return rotate(rows, size)[None] * size**0.5

        def write(codes: Tensor) -> Callable[[], None]:
            before = packed._qdata.clone()
            packed._qdata.copy_(_stored_codes(codes, form).to(before))
            return lambda: packed._qdata.copy_(before)

        flat = rotate_weight(weight.to(packed.device).float(), size) / size**0.5
        return Fitting(flat[None], inputs, partial(rounded_tokens, bits=form.activation_bits), [grid], write)


def grid_of(packed: Tensor, form: Format) -> Grid | None:
    """The values that the codes of a comfy-kitchen tensor may stand for, its scales being fixed. None: they are not as
    this was written for."""
    params, (rows, columns) = packed._params, packed.shape
    layout = layout_of(form)
    if layout is W4A8:
        table, relative = params.codebook, params.scale
        if table is None or params.correction is not None or packed._qdata.shape != (rows, columns // 2):
            return None
        # Their product computes with levels that are rounded to int8.
        levels = (table.float() * relative.float()[..., None]).round().clamp(-127, 127)
        return TableGrid(levels * params.s_channel.float()[:, None, None], columns // relative.shape[1])
    top = 127 if layout is W8A8 else 7
    stored = columns if layout is W8A8 else columns // 2
    if packed._qdata.shape != (rows, stored) or params.scale.numel() != rows:
        return None
    return IntegerGrid(params.scale.float().view(rows, 1), None, columns, -top, top)


def _stored_codes(codes: Tensor, form: Format) -> Tensor:
    """Codes (N, K) as their tensors store them: int8, or two per byte, the first in the low nibble."""
    whole = codes.to(torch.int16)
    if layout_of(form) is W8A8:
        return whole.to(torch.int8)
    return ((whole[:, 0::2] & 15) | ((whole[:, 1::2] & 15) << 4)).to(torch.uint8).view(torch.int8)


def quantized_weight(weight: Tensor, form: Format) -> Tensor:
    """comfy-kitchen's tensor of a float weight (N, K)."""
    from comfy_kitchen.tensor import QuantizedTensor

    layout, options = layout_of(form), {"convrot_groupsize": rotation(weight.shape[1])}
    if layout is W8A8:
        options |= {"per_channel": True, "convrot": True}
    if layout is W4A8:
        options |= {"group_size": form.group_size}
    # Their kernels know no float8 and no float64, and say so late.
    plain = weight if weight.dtype in (torch.float16, torch.bfloat16, torch.float32) else weight.float()
    return QuantizedTensor.from_float(plain.contiguous(), layout.kind, **options)


def rotation(columns: int) -> int:
    """The rotation's group for a layer of so many inputs, 0 where none fits."""
    return next((size for size in ROTATIONS if columns % size == 0), 0)
