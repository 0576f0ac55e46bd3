"""The error that packing a weight may make, and what the choice of a clipped scale wins."""

from __future__ import annotations

import pytest
import torch
from in_turn import in_turn
from packed_layout import (
    FORMS,
    WIDTHS,
    grouped,
    in_steps,
    relative_error,
    signed_scales,
    slow_unpack,
    squared_errors,
    weights,
)

from qsched_core.quant import Format
from qsched_core.quant.packing import pack, unpack


@pytest.mark.parametrize("form", FORMS)
@in_turn("columns", WIDTHS)
def test_no_element_errs_by_more_than_half_a_step_unless_it_is_clipped(form, columns):
    weight = weights(6, columns).double()
    result, scale = slow_unpack(pack(weight.float(), form), columns, form)
    end = 2 ** (form.weight_bits - 1)
    units = weight / scale
    # Above, the last code is end - 1: what is just below the group's largest loses up to a whole step there.
    allowed = torch.maximum(units - (end - 1), -end - units).clamp(min=0.5)
    # 2e-5: the codes, up to 128, are chosen in float32.
    assert ((units - result / scale).abs() <= allowed + 2e-5).all()
    assert ((units - result / scale).abs() <= 1)[units.abs() <= end].all()
    # Clipping takes at most a quarter of a group's largest value, six steps of 2^(1/12) a little more; 2^-10: the scale
    # is rounded to float16.
    assert (units.abs() <= (2 ** (6 / 12) if in_steps(form) else 1 / 0.75) * end * (1 + 2**-10)).all()


@pytest.mark.parametrize("form", FORMS)
@in_turn("columns", WIDTHS)
def test_choosing_the_clipping_never_loses_to_plain_rounding(form, columns):
    weight = weights(6, columns, seed=1)
    groups, end = grouped(weight, form), 2 ** (form.weight_bits - 1)
    scale = signed_scales(groups, form.weight_bits)
    if in_steps(form):
        scale = scale.sign() * 2 ** ((scale.abs().log2() * 12).ceil() / 12)
    plain = squared_errors(groups, scale.half().float() if not in_steps(form) else scale, -end, end - 1)
    ours = (grouped(unpack(pack(weight, form), columns, form), form) - groups).square().sum(-1)
    # 1e-5: sums of up to 128 float32 squares in another order. 1e-14: the rounding of a group of one weight.
    assert (ours <= plain * (1 + 1e-5) + 1e-14).all()


@pytest.mark.parametrize(("bits", "group", "most"), [(4, 0, 0.9), (4, 32, 0.96), (3, 32, 0.9)])
def test_clipping_pays_on_heavy_tails(bits, group, most):
    """Else the candidates are dead weight: against exact scales that clip nothing."""
    weight, form = weights(64, 256, seed=2), Format("f", bits, 8, group)
    groups, end = grouped(weight, form), 2 ** (bits - 1)
    plain = squared_errors(groups, signed_scales(groups, bits), -end, end - 1).sum()
    assert (unpack(pack(weight, form), 256, form) - weight).square().sum() < most * plain


@pytest.mark.parametrize(("bits", "most"), [(4, 0.93), (3, 0.86)])
def test_a_scale_with_a_sign_pays(bits, most):
    """Against positive scales and as many codes below zero as above. Those have as many clippings to choose from, and
    no grid: the first holds the largest weight exactly."""
    weight, form = weights(64, 256, seed=2), Format("f", bits, 8, 32)
    groups, top = grouped(weight, form), 2 ** (bits - 1) - 1
    largest = groups.abs().amax(-1, keepdim=True)
    errors = [squared_errors(groups, largest / top * 2 ** (-step / 12), -top, top) for step in range(7)]
    other = (torch.stack(errors).amin(0).sum().sqrt() / weight.norm()).item()
    assert relative_error(weight, form) < most * other


@pytest.mark.parametrize("bits", [3, 4])
def test_steps_cost_less_than_2_percent(bits):
    """Against exact scales, the best of 64 down to 0.7."""
    weight, form = weights(64, 256, seed=2), Format("f", bits, 8, 32)
    groups, end = grouped(weight, form), 2 ** (bits - 1)
    exact = signed_scales(groups, bits)
    errors = [squared_errors(groups, exact * shrink, -end, end - 1) for shrink in torch.linspace(1, 0.7, 64).tolist()]
    other = (torch.stack(errors).amin(0).sum().sqrt() / weight.norm()).item()
    assert relative_error(weight, form) < 1.02 * other


@pytest.mark.parametrize("group", [0, 32])
def test_8_bits_err_less_than_4_by_the_ratio_of_their_steps(group):
    weight = weights(64, 256, seed=3)
    errors = [relative_error(weight, Format("f", bits, 8, group)) for bits in (4, 8)]
    # 128/8 = 16 if nothing was clipped; 4 bits clip more, and so lose a little less.
    assert 10 < errors[0] / errors[1] < 17


def test_smaller_groups_err_less():
    weight = weights(64, 256, seed=4)
    errors = [relative_error(weight, Format("f", 4, 8, group)) for group in (0, 128, 32, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.5 * errors[-1]
