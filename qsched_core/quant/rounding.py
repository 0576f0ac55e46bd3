"""Rounding fitted to what a layer sees: GPTQ (Frantar et al., arXiv 2210.17323) into the bytes of nearest rounding.

Scales stay as the packing chose them; only codes change. A column is rounded, and what that does to the output is
taken back by the columns that are not rounded yet, in the measure in which the layer's inputs make up for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DAMPINGS = (0.01, 0.1, 1.0)
"""Added to the diagonal, in units of its mean. Which of them a layer gets is told by inputs that nothing is fitted to:
GPTQ's own 0.01 trusts a few prompts too much where a layer sees a text, or little of each picture: measured once, its
pictures were farther away than the choice's in each of 16 rows of `python -m benchmarks.rounding`, never nearer."""

BLOCK = 128
"""Columns after which the rest of the weight is brought up to date: one matrix product for as many."""

MAX_COLUMNS = 4096
"""Columns that are fitted together. A 3 x 3 convolution of 2560 channels has 23 040: their Hessian would be 2 GB."""

FEWEST_ROWS = 8
"""Rows below which nothing is fitted: a layer that saw so few has not shown what it sees."""

ColumnRounding = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""(place in the block, weights (N,)) -> (codes (N,), the weights that they stand for)."""


class Grid(Protocol):
    """The values that a packed weight (N, K) may take, its scales being fixed."""

    def block(self, columns: Tensor) -> ColumnRounding:
        """Rounds to nearest within these columns."""
        ...


@dataclass(frozen=True)
class IntegerGrid:
    """code · scale + minimum with ``low`` <= code <= ``high``. ``scales`` and ``minimums`` are (N, groups), and
    ``group`` columns share one; ``minimums`` None: 0."""

    scales: Tensor
    minimums: Tensor | None
    group: int
    low: int
    high: int

    def block(self, columns: Tensor) -> ColumnRounding:
        groups = columns // self.group
        scales = self.scales[:, groups].t().contiguous()
        minimums = None if self.minimums is None else self.minimums[:, groups].t().contiguous()

        def rounded(place: int, weight: Tensor) -> tuple[Tensor, Tensor]:
            base = 0.0 if minimums is None else minimums[place]
            codes = ((weight - base) / scales[place]).round_().clamp_(self.low, self.high)
            return codes, codes * scales[place] + base

        return rounded


@dataclass(frozen=True)
class TableGrid:
    """One of the ascending ``levels`` (N, groups, L) of the column's group, which holds ``group`` columns."""

    levels: Tensor
    group: int

    def block(self, columns: Tensor) -> ColumnRounding:
        levels = self.levels[:, columns // self.group].transpose(0, 1).contiguous()

        def rounded(place: int, weight: Tensor) -> tuple[Tensor, Tensor]:
            table = levels[place]
            above = torch.searchsorted(table, weight[:, None].contiguous()).clamp_(1, table.shape[1] - 1)
            low, high = table.gather(1, above - 1), table.gather(1, above)
            up = (high - weight[:, None]).abs() < (weight[:, None] - low).abs()
            codes = torch.where(up, above, above - 1)
            return codes.flatten().to(weight.dtype), table.gather(1, codes).flatten()

        return rounded


@dataclass(frozen=True)
class Fitting:
    """How a packed layer multiplies. ``weight`` (groups, N / groups, K), and what ``inputs`` makes of input rows,
    (groups, R, K), meet in its product once ``rounded`` has rounded the inputs. ``grids`` are one per group; ``write``
    puts codes (N, K) into the layer and gives what takes them out again; ``channel`` columns are one input channel.
    """

    weight: Tensor
    inputs: Callable[[Tensor], Tensor]
    rounded: Callable[[Tensor], Tensor]
    grids: Sequence[Grid]
    write: Callable[[Tensor], Callable[[], None]]
    channel: int = 1


class NotFitted(Exception):
    """Why a layer stays as nearest rounding left it; part of a sentence."""


def hessians_of(rows: Tensor, channel: int = 1, centre: Tensor | None = None) -> list[tuple[slice, Tensor]]:
    """[(columns, their Hessian (k, k))] of input ``rows`` (R, K) as the layer multiplies them, for ``fitted_codes``;
    of their distance to ``centre`` (K,), where there is one. ``channel`` columns belong to one input channel and stay
    together."""
    parts = _parts(rows.shape[1], channel)
    # The rows of a wide convolution take 0.4 GB: they are not copied whole.
    return [(part, _hessian(rows[:, part] if centre is None else rows[:, part] - centre[part])) for part in parts]


def fitted_codes(
    weight: Tensor,
    hessians: Sequence[tuple[slice, Tensor]],
    grid: Grid,
    damping: float = 0.01,
    check: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """(codes, the weight that they stand for), both float32 (N, K), for a ``weight`` (N, K) as the layer multiplies it.
    The larger ``damping``, above 0, the less is made of what the inputs show. ``check()`` is called after every
    ``BLOCK`` columns and may raise to cancel: a wide convolution takes minutes on a CPU.

    Raises:
        NotFitted: a Hessian cannot be factored.
    """
    codes, values = torch.empty_like(weight), torch.empty_like(weight)
    for part, hessian in hessians:
        damped = hessian.clone()
        damped.diagonal().add_(damping * hessian.diagonal().mean())
        codes[:, part], values[:, part] = _gptq(weight[:, part], damped, grid, part.start, check)
    return codes, values


def _hessian(rows: Tensor) -> Tensor:
    """(K, K) of input ``rows`` (R, K)."""
    hessian = rows.t() @ rows / len(rows)
    diagonal = hessian.diagonal()
    diagonal[diagonal <= 0] = 1.0  # dead columns: nothing is known of them, and they know of nothing
    return hessian


def _parts(columns: int, channel: int) -> list[slice]:
    """Equal parts of at most ``MAX_COLUMNS`` columns, of whole channels (a single channel may be wider)."""
    channels = columns // channel
    most = max(1, MAX_COLUMNS // channel)
    each = -(-channels // -(-channels // most)) * channel
    return [slice(start, min(start + each, columns)) for start in range(0, columns, each)]


def _gptq(weight: Tensor, hessian: Tensor, grid: Grid, first: int, check: Callable[[], None]) -> tuple[Tensor, Tensor]:
    """(codes, values) of ``weight`` (N, K); ``first`` is the number of its first column in the grid. Columns that see
    the most come first: they have the most others to make up for them. ``hessian`` is (K, K).

    Written as LDLQ (Chee et al., arXiv 2307.13304), which rounds as GPTQ does but needs no inverse: with H = U D U^T,
    U upper triangular, the error of the output is that of the columns of (weight - values) U; a column is rounded to
    make up for what the columns before it have put there.
    """
    order = hessian.diagonal().argsort(descending=True)
    factor = _unit_factor(hessian[order][:, order])
    columns = weight.t()[order]  # a column at a time: (K, N)
    codes, values, errors = (torch.empty_like(columns) for _ in range(3))
    for start in range(0, len(columns), BLOCK):
        check()
        end = min(start + BLOCK, len(columns))
        rounded, inner = grid.block(order[start:end] + first), factor[start:end, start:end]
        block = columns[start:end].clone()
        if start:  # no product over nothing: not every device has one
            block.addmm_(factor[:start, start:end].t(), errors[:start])
        for j, k in enumerate(range(start, end)):
            codes[k], values[k] = rounded(j, block[j])
            errors[k] = columns[k] - values[k]
            block[j + 1 :].addr_(inner[j, j + 1 :], errors[k])
    back = order.argsort()
    return codes[back].t(), values[back].t()


def _unit_factor(hessian: Tensor) -> Tensor:
    """U of H = U D U^T, upper triangular with a diagonal of ones, in the Hessian's type. In float64: in float32 wide
    ones fail."""
    flipped = hessian.flip(0, 1)
    # Some devices have no float64.
    lower, info = torch.linalg.cholesky_ex((flipped.cpu() if flipped.device.type == "mps" else flipped).double())
    upper = lower.flip(0, 1).div_(lower.diagonal().flip(0))
    if int(info) or not torch.isfinite(upper).all():
        raise NotFitted("its inputs have no Hessian that can be factored")
    return upper.to(hessian)
