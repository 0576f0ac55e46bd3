"""A packed layer whose codes, and bias, are fitted to observed inputs; and whether that made it better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backends import Way
from .observe import FIT_ROWS
from .packed import packed_weight
from .rounding import FEWEST_ROWS, NotFitted, fitted_codes


@dataclass(frozen=True)
class Fit:
    """Relative errors of a layer's output on rows that nothing was fitted to; ``note`` says why it was not fitted."""

    nearest: float | None = None
    fitted: float | None = None
    note: str = ""

    @property
    def better(self) -> bool:
        return self.fitted is not None and self.fitted < self.nearest


def fitted_twin(
    way: Way, layer: nn.Module, weight: Tensor, bias: Tensor | None, rows: Tensor | None, judged: Tensor
) -> tuple[nn.Module, Fit]:
    """The packed twin of a float ``layer``, its codes fitted to ``rows`` of its inputs where that is better on
    ``judged`` ones: (R, K), or patches (R, C, kh, kw). It is packed on the weight's device.

    Raises:
        torch.OutOfMemoryError: not even rounding to nearest fits the device.
    """
    device = weight.device
    twin = way.backend.twin(layer, weight, bias, way.form)
    judged = judged.to(device).float()
    if not torch.isfinite(judged).all() or (rows is not None and not torch.isfinite(rows).all()):
        return twin, Fit(note="its inputs hold NaN or infinity")
    nearest = output_error(layer, twin, weight, bias, judged)
    if rows is None or len(rows) < FEWEST_ROWS:
        return twin, Fit(nearest, note=f"fewer than {FEWEST_ROWS} inputs seen")
    try:
        undo = _fit(way, layer, twin, weight, rows[:FIT_ROWS].to(device).float())
    except NotFitted as reason:
        return twin, Fit(nearest, note=str(reason))
    except torch.OutOfMemoryError:
        return twin, Fit(nearest, note="out of memory for its Hessian")
    fit = Fit(nearest, output_error(layer, twin, weight, bias, judged))
    if fit.better:
        return twin, fit
    undo()
    return twin, replace(fit, note="fitted was not better")


def _fit(way: Way, layer: nn.Module, twin: nn.Module, weight: Tensor, rows: Tensor) -> Callable[[], None]:
    """Write codes fitted to input ``rows`` into ``twin``, and into its bias the mean error of the output that they
    leave (inputs are centred then: the bias has their mean). What is returned takes both out again.

    Raises:
        NotFitted: the backend's codes cannot be chosen, or there is no factor of the Hessian.
    """
    fitting = way.backend.fitting(layer, twin, weight, way.form)
    if fitting is None:
        raise NotFitted(f"{way.backend.name} has codes of its own")
    inputs = fitting.inputs(rows)
    means = inputs.mean(1)
    inputs = fitting.rounded(inputs)
    codes, shifts = [], []
    for part, there, mean, grid in zip(fitting.weight, inputs, means, fitting.grids, strict=True):
        rounded_mean = there.mean(0)
        chosen, values = fitted_codes(part, there if twin.bias is None else there - rounded_mean, grid, fitting.channel)
        codes.append(chosen)
        shifts.append(part @ mean - values @ rounded_mean)
    undo = fitting.write(torch.cat(codes))
    if twin.bias is None:
        return undo
    before = twin.bias.data  # the float layer's own values, perhaps: they are not written into
    twin.bias.data = (before.float() + torch.cat(shifts).to(before.device)).to(before)

    def undo_both() -> None:
        undo()
        twin.bias.data = before

    return undo_both


def layer_output(layer: nn.Module, weight: Tensor, rows: Tensor) -> Tensor:
    """(R, N): what the layer makes of input rows or patches with this ``weight``, without a bias."""
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(rows, weight.to(rows), groups=layer.groups).flatten(1)
    return F.linear(rows, weight.to(rows))


def output_error(layer: nn.Module, twin: nn.Module, weight: Tensor, bias: Tensor | None, rows: Tensor) -> float:
    """The relative error of the output that ``twin`` makes of input rows, the bias not counted in."""
    exact = layer_output(layer, weight, rows)
    if isinstance(layer, nn.Conv2d):
        made = layer_output(layer, packed_weight(twin).to(rows.device), rows)
        made = made if bias is None else made + (twin.bias.float() - bias.to(rows))
    else:
        made = twin(rows) if bias is None else twin(rows) - bias.to(rows)
    return ((made.float() - exact).norm() / exact.norm().clamp(min=1e-30)).item()
