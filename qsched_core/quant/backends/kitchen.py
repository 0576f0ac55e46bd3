"""ComfyUI's native layouts, packed and multiplied by comfy-kitchen: what stock loaders read and tensor cores run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..formats import Format, resolve_format
from ..rotation import rotate, rotate_weight
from ..rounding import Fitting, Grid, IntegerGrid, TableGrid
from ..sources import is_layer
from ..tokens import rounded_tokens
from ..trial import ROWS, failed_in_run, numbers, relative_error, trial
from .base import Backend
from .limits import rotations

Result = TypeVar("Result")

HALF_OR_FLOAT = (torch.float16, torch.bfloat16, torch.float32)
"""What their kernels compute in: they know no float8 and no float64, and say so late."""


@dataclass(frozen=True)
class Layout:
    """One of ComfyUI's formats. ``algo`` names it in checkpoints, ``kind`` in comfy-kitchen, ``function`` multiplies;
    ``default_group`` is its own group size, 0 per channel. A product of normal numbers errs by less than ``error``."""

    algo: str
    kind: str
    function: str
    default_group: int
    error: float


W4A8 = Layout("asym_w4a8_int8", "AsymW4A8Int8Layout", "w4a8_int8_linear", 16, 0.2)
W4A4 = Layout("convrot_w4a4", "TensorCoreConvRotW4A4Layout", "convrot_w4a4_linear", 0, 0.4)
W8A8 = Layout("int8_tensorwise", "TensorWiseINT8Layout", "int8_linear", 0, 0.04)
_BITS = {(4, 8): W4A8, (4, 4): W4A4, (8, 8): W8A8}
NATIVE = {W4A8.algo: "w4a8", W4A4.algo: "w4a4", W8A8.algo: "w8a8"}
"""Our format that each of them is."""

_SLACK = 0.02
"""Two right kernels differ by as much: a token's scale in another type moves codes that lie between two."""


def layout_of(form: Format) -> Layout | None:
    """The layout whose bits a format has, if any."""
    return _BITS.get((form.weight_bits, form.activation_bits))


class EagerAfterFailure:
    """Mixed into a Linear over a native layout: a kernel that throws in a run is replaced there by the eager one."""

    eager_only = False

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        if not self.eager_only:
            try:
                return super().forward(x, *args, **kwargs)
            except torch.OutOfMemoryError:
                raise
            except _kernel_errors() as error:
                failure = error
        with _eager():
            out = super().forward(x, *args, **kwargs)  # what is no kernel's fault is raised here once more
        if not self.eager_only:
            failed_in_run(f"comfy-kitchen's kernel on {x.device.type}, {self.in_features} inputs", failure)
            self.eager_only = True
        return out


class _KitchenLinear(nn.Module):
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


class KitchenLinear(EagerAfterFailure, _KitchenLinear):
    """A Linear over one of comfy-kitchen's quantised tensors, for modules outside ComfyUI."""


class KitchenBackend(Backend):
    """``make(layer, quantised weight, bias, layout)`` builds the twin; ``algorithms`` are the layouts that its host
    reads, None: all. ``dtype`` is what the layers will compute in, None: what is usual on the device."""

    name = "kitchen"
    stock = True

    def __init__(
        self,
        make: Callable[..., nn.Module] = KitchenLinear.like,
        algorithms: Collection[str] | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.make, self.algorithms, self.dtype = make, algorithms, dtype

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
        if layout.kind not in LAYOUTS or (self.algorithms is not None and layout.algo not in self.algorithms):
            return f"this ComfyUI has no {layout.algo}"
        if not form.symmetric:
            return f"{layout.algo} is symmetric"
        if layout is not W4A8 and form.group_size:
            return f"{layout.algo} has one scale per channel"
        if layout is W4A8 and form.group_size % 16 | (not form.group_size):
            return f"{layout.algo} takes groups of 16, 32, 64 or 128"
        return ""

    def refusal(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        if not is_layer(layer, (nn.Linear,)):
            return "ComfyUI's native layouts hold Linear layers only"
        columns, layout = layer.in_features, layout_of(form)
        size = rotation(columns, layout)
        if size == 0:
            return f"{columns} inputs are no multiple of {min(rotations(layout.algo))}, as {layout.algo} needs"
        if layout is W4A4 and columns % 64:
            return f"{columns} inputs are no multiple of 64"
        if form.group_size and columns % form.group_size:
            return f"{columns} inputs are no multiple of the group, {form.group_size}"
        return self.trial(form, device, size)

    def trial(self, form: Format, device: torch.device, size: int = 0) -> str:
        layout = layout_of(form)
        dtype = self.dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        sizes = [size] if size else rotations(layout.algo)
        for each in sizes:
            key = (self.name, layout.algo, each, form.group_size, dtype, str(device))
            reason = trial(key, lambda each=each: _try(form, device, dtype, each))
            if reason:
                return f"{layout.algo} with rotation {each}: {reason}"
        return ""

    def kernel(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        return _runs_on(layout_of(form).function, device)

    def fast(self, form: Format, device: torch.device) -> bool:
        return _runs_on(layout_of(form).function, device) != "eager"

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
    width = columns if layout is W8A8 else columns // 2
    if packed._qdata.shape != (rows, width) or params.scale.numel() != rows:
        return None
    return IntegerGrid(params.scale.float().view(rows, 1), None, columns, -top, top)


def _stored_codes(codes: Tensor, form: Format) -> Tensor:
    """Codes (N, K) as their tensors store them: int8, or two per byte, the first in the low nibble."""
    whole = codes.to(torch.int16)
    if layout_of(form) is W8A8:
        return whole.to(torch.int8)
    return ((whole[:, 0::2] & 15) | ((whole[:, 1::2] & 15) << 4)).to(torch.uint8).view(torch.int8)


def quantized_weight(weight: Tensor, form: Format, size: int = 0) -> Tensor:
    """comfy-kitchen's tensor of a float weight (N, K), rotated over ``size`` columns, 0: as many as its layout takes.

    A kernel that throws at this shape is replaced by the eager one.
    """
    from comfy_kitchen.tensor import QuantizedTensor

    layout = layout_of(form)
    options = {"convrot_groupsize": size or rotation(weight.shape[1], layout)}
    if layout is W8A8:
        options |= {"per_channel": True, "convrot": True}
    if layout is W4A8:
        options |= {"group_size": form.group_size}
    plain = (weight if weight.dtype in HALF_OR_FLOAT else weight.float()).contiguous()
    what = f"packing {layout.algo} on {weight.device.type}"
    return _else_eager(what, lambda: QuantizedTensor.from_float(plain, layout.kind, **options))


def rotation(columns: int, layout: Layout) -> int:
    """The rotation's group for a layer of so many inputs: the widest that every device takes, 0 where none fits."""
    return next((size for size in rotations(layout.algo) if columns % size == 0), 0)


def _try(form: Format, device: torch.device, dtype: torch.dtype, size: int) -> str:
    """Pack a small layer and multiply with it on the device; "" or what is wrong with the products."""
    from comfy_kitchen.tensor import QuantizedTensor

    layout, columns = layout_of(form), max(256, 2 * size, form.group_size)
    weight = numbers(64, columns, seed=1).to(device, dtype)
    options = {"convrot_groupsize": size}
    options |= {"per_channel": True, "convrot": True} if layout is W8A8 else {}
    options |= {"group_size": form.group_size} if layout is W4A8 else {}
    packed = QuantizedTensor.from_float(weight, layout.kind, **options)
    for rows in ROWS:
        x = numbers(rows, columns, seed=2).to(device, dtype)
        product = F.linear(x, packed)
        with _eager():
            slow = F.linear(x, packed)
        exact = x.cpu().double() @ weight.cpu().double().T
        error = relative_error(product, exact)
        if error > layout.error:
            return f"its product of {rows} rows errs by {error:.2g}"
        if relative_error(product, slow) > max(_SLACK, layout.error / 4):
            return f"its product of {rows} rows is not the eager one"
    return ""


def _runs_on(function: str, device: torch.device) -> str:
    """The kernels that multiply. Asked for a function alone, the registry does not look at the card's compute
    capability."""
    from comfy_kitchen.registry import registry

    if device.type == "cpu":
        return "eager"
    name = registry.get_capable_backend(function)
    limits = registry.get_constraints(name, function)
    least = getattr(limits, "min_compute_capability", None)
    if least is not None and device.type == "cuda" and torch.cuda.get_device_capability(device) < tuple(least):
        return "eager"
    return name


def _else_eager(what: str, call: Callable[[], Result]) -> Result:
    try:
        return call()
    except torch.OutOfMemoryError:
        raise
    except _kernel_errors() as error:
        with _eager():
            result = call()
        failed_in_run(what, error)
        return result


def _eager():
    from comfy_kitchen.registry import registry

    return registry.use_backend("eager")


def _kernel_errors() -> tuple[type[Exception], ...]:
    from comfy_kitchen.exceptions import NoCapableBackendError

    return (RuntimeError, ValueError, NoCapableBackendError)
