"""A packed layer whose codes, and bias, are fitted to observed inputs; and whether that made it better."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backends import QuantoLayer, Way
from .branch import LowRank
from .convolutions import CONVOLUTIONS, convolve
from .input_recorder import FIT_ROWS
from .inspection import packed_weight
from .layers import QuantizedLinear
from .rounding import DAMPINGS, FEWEST_ROWS, Fitting, NotFitted, fitted_codes, hessians_of


@dataclass(frozen=True)
class Fit:
    """Relative errors of a layer's output on rows that nothing was fitted to; ``note`` says why it was not fitted."""

    nearest: float | None = None
    fitted: float | None = None
    note: str = ""

    @property
    def better(self) -> bool:
        return self.fitted is not None and self.fitted < self.nearest


TRIED_OUTPUTS, TRIED_ROWS = 256, 1024
"""Output channels and input rows that a layer's rotation and smoothing are chosen by: packing SDXL's layers once more
for each choice would take minutes."""

OVERSAMPLED, POWER_STEPS = 8, 4
"""Of the subspace iteration: more leave the same part to three digits."""

MOST_SMOOTHING = 100.0
"""What an input column may be divided or multiplied by."""


def fitted_twin(
    way: Way,
    layer: nn.Module,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor | None,
    check_rows: Tensor,
    largest: Tensor | None = None,
    rank: int = 0,
    check: Callable[[], None] = lambda: None,
) -> tuple[nn.Module, Fit]:
    """The packed twin of a float ``layer``, its codes fitted to ``rows`` of its inputs where that is better on
    ``check_rows``: (R, K), or patches (R, C, …). It is packed on the weight's device. ``largest`` (K,) are the
    magnitudes of its input columns, for smoothing. Of one of our Linear layers a part of ``rank`` is kept in float16,
    and the rest of its weight is rounded (SVDQuant, arXiv 2411.05007). ``check()`` is called many times a layer and may
    raise to cancel.

    Raises:
        torch.OutOfMemoryError: not even rounding to nearest fits the device.
    """
    device = weight.device
    twin = way.backend.twin(layer, weight, bias, way.form)
    check_rows = check_rows.to(device).float()
    if not torch.isfinite(check_rows).all() or (rows is not None and not torch.isfinite(rows).all()):
        return twin, Fit(note="its inputs hold NaN or infinity")
    nearest = output_error(layer, twin, weight, bias, check_rows)
    if rows is None or len(rows) < FEWEST_ROWS:
        return twin, Fit(nearest, note=f"fewer than {FEWEST_ROWS} inputs seen")
    rows = rows[:FIT_ROWS].to(device).float()
    try:
        other = _prepared(twin, weight, rows[:TRIED_ROWS], largest, rank)
        error, write = _best_fit(
            way, layer, other, weight, rows, lambda: output_error(layer, other, weight, bias, check_rows), check
        )
    except NotFitted as reason:
        return twin, Fit(nearest, note=str(reason))
    except torch.OutOfMemoryError:
        return twin, Fit(nearest, note="out of memory for its Hessian")
    fit = Fit(nearest, error)
    if not fit.better:
        return twin, replace(fit, note="fitted was not better")
    write()
    return other, fit


def _prepared(twin: nn.Module, weight: Tensor, rows: Tensor, largest: Tensor | None, rank: int) -> nn.Module:
    """``twin``, or one of the same weight with the rotation and the smoothing that round it best on ``rows``, and with
    a part of ``rank``."""
    if not isinstance(twin, QuantizedLinear) or isinstance(twin, QuantoLayer):
        return twin
    scales = [None]
    if twin.format.activation_bits == 4 and largest is not None:
        scales.append(smoothing(weight.float(), largest.to(weight.device)))
    choices = [(size, scale) for size in dict.fromkeys((twin.rotation, 0)) for scale in scales]
    size, scale = choices[0] if len(choices) == 1 else _best(twin, weight, rows, choices)
    if rank == 0 and (size, scale) == choices[0]:
        return twin
    return _with(copy.deepcopy(twin), weight, size, scale, rank)


def _best(
    twin: QuantizedLinear, weight: Tensor, rows: Tensor, choices: list[tuple[int, Tensor | None]]
) -> tuple[int, Tensor | None]:
    """The rotation and smoothing with the least error of the output on ``rows``, told from some of the outputs."""
    some = weight[:: -(-len(weight) // TRIED_OUTPUTS)].float()
    exact, errors = F.linear(rows, some), []
    for size, scale in choices:
        small = _with(type(twin).from_float(some, None, twin.format), some, size, scale)
        errors.append((small(rows) - exact).norm().item())
    return choices[min(range(len(choices)), key=errors.__getitem__)]


def _with(twin: QuantizedLinear, weight: Tensor, rotation: int, scale: Tensor | None, rank: int = 0) -> QuantizedLinear:
    twin.rotation, twin.input_scale = rotation, scale
    if rank:
        twin.low_rank = leading_part(weight, scale, rank)
    twin.weight.data = twin.packed(weight)
    return twin


def leading_part(weight: Tensor, scale: Tensor | None, rank: int) -> LowRank:
    """The part of ``rank`` of a weight (N, K) that holds most of it as smoothed inputs meet it, in float16. By subspace
    iteration (Halko et al., arXiv 0909.4061): a whole decomposition of a wide weight takes minutes."""
    smoothed = weight.float() if scale is None else weight.float() * scale
    rank = min(rank, *weight.shape)
    width = min(rank + OVERSAMPLED, *weight.shape)
    start = torch.randn(weight.shape[1], width, generator=torch.Generator().manual_seed(0)).to(smoothed)
    basis = torch.linalg.qr(smoothed @ start).Q
    for _ in range(POWER_STEPS):
        basis = torch.linalg.qr(smoothed @ torch.linalg.qr(smoothed.t() @ basis).Q).Q
    left, sizes, right = torch.linalg.svd(basis.t() @ smoothed, full_matrices=False)
    halves = sizes[:rank].sqrt()
    down = halves[:, None] * right[:rank]
    up, down = basis @ left[:, :rank] * halves, down if scale is None else down / scale
    # contiguous, as a file gives them back: a product over other strides rounds otherwise.
    return LowRank(up.half().contiguous(), down.half().contiguous())


def smoothing(weight: Tensor, largest: Tensor) -> Tensor:
    """(K,): what the inputs are divided by and the weight's columns multiplied with, so that loud inputs do not take
    the few levels of 4-bit activations from the others (SmoothQuant, arXiv 2211.10438, with alpha 0.5). Geometric mean
    1; columns that never see anything, or have no weight, stay."""
    heavy = weight.abs().amax(0)
    scale = (largest.float() / heavy.clamp(min=1e-12)).sqrt()
    alive = (largest > 0) & (heavy > 0)
    scale = torch.where(alive, scale, torch.ones_like(scale))
    scale = scale / scale[alive].log().mean().exp() if alive.any() else scale
    return torch.where(alive, scale.clamp(1 / MOST_SMOOTHING, MOST_SMOOTHING), torch.ones_like(scale))


def _best_fit(
    way: Way,
    layer: nn.Module,
    twin: nn.Module,
    weight: Tensor,
    rows: Tensor,
    error: Callable[[], float],
    check: Callable[[], None],
) -> tuple[float, Callable[[], object]]:
    """(least ``error`` of all dampings, what writes the codes that have it into ``twin``), which is left as it was.

    Raises:
        NotFitted: the backend's codes cannot be chosen, or there is no factor of the Hessian.
    """
    fitting = way.backend.fitting(layer, twin, weight, way.form)
    if fitting is None:
        raise NotFitted(f"{way.backend.name} has codes of its own")
    groups = _group_inputs(fitting, rows, centred=twin.bias is not None)
    best = None
    for damping in DAMPINGS:
        write = partial(_write, fitting, twin, *_rounding(fitting, groups, damping, check))
        undo = write()
        left = error()
        undo()
        if best is None or left < best[0]:
            best = left, write
    return best


@dataclass(frozen=True)
class _GroupInputs:
    """What one group of channels sees: its Hessians, the means (K,) of its inputs, and of the rounded ones."""

    hessians: list[tuple[slice, Tensor]]
    mean: Tensor
    rounded_mean: Tensor


def _group_inputs(fitting: Fitting, rows: Tensor, centred: bool) -> list[_GroupInputs]:
    """For each group of channels of a layer; ``centred``: a bias takes the means."""
    inputs = fitting.inputs(rows)
    means = inputs.mean(1)
    groups = []
    for mean, group_rows in zip(means, fitting.rounded(inputs), strict=True):
        rounded_mean = group_rows.mean(0)
        hessians = hessians_of(group_rows, fitting.channel, rounded_mean if centred else None)
        groups.append(_GroupInputs(hessians, mean, rounded_mean))
    return groups


def _rounding(
    fitting: Fitting, groups: list[_GroupInputs], damping: float, check: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """(codes (N, K), the mean error (N,) of the output that they leave)."""
    codes, shifts = [], []
    for part, group, grid in zip(fitting.weight, groups, fitting.grids, strict=True):
        part_codes, values = fitted_codes(part, group.hessians, grid, damping, check)
        codes.append(part_codes)
        shifts.append(part @ group.mean - values @ group.rounded_mean)
    return torch.cat(codes), torch.cat(shifts)


def _write(fitting: Fitting, twin: nn.Module, codes: Tensor, shift: Tensor) -> Callable[[], None]:
    """Write ``codes`` into ``twin``, and add ``shift`` to its bias, if it has one. What is returned takes both out
    again."""
    undo = fitting.write(codes)
    if twin.bias is None:
        return undo
    before = twin.bias.data  # the float layer's own values, perhaps: they are not written into
    twin.bias.data = (before.float() + shift.to(before.device)).to(before)

    def undo_both() -> None:
        undo()
        twin.bias.data = before

    return undo_both


def layer_output(layer: nn.Module, weight: Tensor, rows: Tensor) -> Tensor:
    """(R, N): what the layer makes of input rows or patches with this ``weight``, without a bias."""
    if isinstance(layer, CONVOLUTIONS):
        return convolve(rows, weight.to(rows), groups=layer.groups).flatten(1)
    return F.linear(rows, weight.to(rows))


def output_error(layer: nn.Module, twin: nn.Module, weight: Tensor, bias: Tensor | None, rows: Tensor) -> float:
    """The relative error of the output that ``twin`` makes of input rows, the bias not counted in."""
    exact = layer_output(layer, weight, rows)
    if isinstance(layer, CONVOLUTIONS):
        outputs = layer_output(layer, packed_weight(twin).to(rows.device), rows)
        outputs = outputs if bias is None else outputs + (twin.bias.float() - bias.to(rows))
    else:
        outputs = twin(rows) if bias is None else twin(rows) - bias.to(rows)
    return ((outputs.float() - exact).norm() / exact.norm().clamp(min=1e-30)).item()
