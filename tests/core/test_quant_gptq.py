"""GPTQ's arithmetic: codes fitted to the rows that a weight meets, within the grid of its packing."""

from __future__ import annotations

from math import inf

import pytest
import torch
from exactness import same_bits
from layer_inputs import PACKINGS, correlated

from qsched_core.quant import FORMATS, resolve_format, rounding
from qsched_core.quant.packing import codes, grid_of, pack, recoded, row_bytes, scales, unpack
from qsched_core.quant.rounding import IntegerGrid, NotFitted, TableGrid, fitted_codes, hessians_of


def test_two_columns_are_rounded_as_worked_out_by_hand():
    """Column 0 sees more and is rounded first; column 1 then takes up H01 / H11 of its error."""
    rows = torch.tensor([[2.0, 1.0], [2.0, 0.0], [0.0, 1.0]])  # H = [[8, 2], [2, 2]] / 3
    grid = IntegerGrid(torch.ones(1, 1), None, 2, -8, 7)
    numbers, values = fitted_codes(torch.tensor([[1.4, 2.3]]), hessians_of(rows), grid, damping=0.0)
    assert numbers.tolist() == values.tolist() == [[1.0, 3.0]]  # 2.3 + 0.4 * 2 / 2 = 2.7
    nearest, _ = fitted_codes(torch.tensor([[1.4, 2.3]]), hessians_of(torch.eye(2)), grid)
    assert nearest.tolist() == [[1.0, 2.0]]


def test_inputs_that_know_nothing_of_each_other_leave_nearest():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    form = resolve_format("w4a8", 32)
    packed = pack(weight, form)
    numbers, values = fitted_codes(weight, hessians_of(torch.eye(64)), grid_of(packed, 64, form))
    assert same_bits(numbers.to(torch.int8), codes(packed, 64, form))
    assert same_bits(values, unpack(packed, 64, form))


def test_blocks_of_columns_change_nothing(monkeypatch):
    weight, rows = torch.randn(8, 96, generator=torch.Generator().manual_seed(0)), correlated(500, 96)
    grid = grid_of(pack(weight, FORMATS["w4a8"]), 96, FORMATS["w4a8"])
    one, _ = fitted_codes(weight, hessians_of(rows), grid)
    monkeypatch.setattr(rounding, "BLOCK", 7)
    other, _ = fitted_codes(weight, hessians_of(rows), grid)
    assert (one != other).float().mean() < 0.01  # sums in another order


@pytest.mark.parametrize(("columns", "channel", "widths"), [
    (4096, 1, [4096]), (5120, 1, [2560, 2560]), (11520, 9, [3843, 3843, 3834]), (23040, 9, [3843] * 5 + [3825]),
    (8192, 8192, [8192]), (9000, 3000, [3000] * 3),
])  # fmt: skip
def test_wide_layers_are_cut_between_channels(columns, channel, widths):
    parts = rounding._parts(columns, channel)
    assert [part.stop - part.start for part in parts] == widths
    assert all(part.start % channel == 0 for part in parts)
    assert parts[-1].stop == columns


def test_the_levels_of_a_table_are_the_nearest_ones():
    levels = torch.tensor([[[-3.0, -1.0, 0.0, 2.0]], [[-6.0, -2.0, 0.0, 4.0]]])  # two outputs, one group
    rounded = TableGrid(levels, 4).block(torch.arange(4))
    for value in (-9.0, -2.2, -1.9, -0.4, 0.9, 1.1, 9.0):
        numbers, values = rounded(0, torch.tensor([value, value]))
        expected = (levels[:, 0] - value).abs().argmin(1)
        assert numbers.tolist() == expected.tolist()
        assert same_bits(values, levels[:, 0].gather(1, expected[:, None])[:, 0])


# --- the bytes


@pytest.mark.parametrize("form", PACKINGS, ids=str)
@pytest.mark.parametrize("columns", [128, 100])
def test_codes_go_into_the_same_bytes(form, columns):
    weight = torch.randn(12, columns, generator=torch.Generator().manual_seed(3))
    packed = pack(weight, form)
    grid = grid_of(packed, columns, form)
    numbers, values = fitted_codes(weight, hessians_of(correlated(400, columns)), grid)
    other = recoded(packed, numbers, form)
    assert other.shape == (12, row_bytes(columns, form))
    assert same_bits(unpack(other, columns, form), values)
    assert same_bits(scales(other, columns, form), scales(packed, columns, form))
    assert same_bits(recoded(other, codes(packed, columns, form), form), packed)
    low, high = (-(2 ** (form.weight_bits - 1)), 0)[not form.symmetric], 2**form.weight_bits - 1
    assert low <= numbers.min()
    assert numbers.max() <= high + low


@pytest.mark.parametrize("hessian", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, inf]], [[inf, 0.0], [0.0, 1.0]]])
def test_a_hessian_that_has_no_finite_factor_is_refused(hessian):
    with pytest.raises(NotFitted, match="have no Hessian that can be factored"):
        rounding._unit_factor(torch.tensor(hessian))


def test_it_rounds_as_gptq_does_which_needs_the_inverse():
    """Frantar et al., arXiv 2210.17323, column by column as the paper has it."""
    weight, rows = torch.randn(8, 48, generator=torch.Generator().manual_seed(4)).double(), correlated(300, 48).double()
    grid = IntegerGrid(torch.full((8, 1), 0.3), None, 48, -8, 7)
    hessian = rows.t() @ rows / len(rows)
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(48)
    order = hessian.diagonal().argsort(descending=True)
    factor = torch.linalg.cholesky(hessian[order][:, order].inverse(), upper=True)
    rest, expected = weight[:, order].clone(), torch.empty(8, 48, dtype=torch.float64)
    for k in range(48):
        expected[:, k] = (rest[:, k] / 0.3).round().clamp(-8, 7)
        rest[:, k:] -= ((rest[:, k] - 0.3 * expected[:, k]) / factor[k, k])[:, None] * factor[k, k:]
    numbers, _ = fitted_codes(weight, hessians_of(rows), grid)
    assert torch.equal(numbers[:, order], expected)
