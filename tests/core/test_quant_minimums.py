"""Weights that are packed above a minimum: asymmetric formats."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from in_turn import in_turn
from packed_layout import ASYMMETRIC, BITS, WIDTHS, grouping, slow_unpack, weights

from qsched_core.quant import Format, packing
from qsched_core.quant.packing import pack, unpack


@pytest.mark.parametrize("form", ASYMMETRIC)
@in_turn("columns", WIDTHS)
def test_with_a_minimum_no_element_errs_by_more_than_half_a_step_unless_it_is_clipped(form, columns):
    weight = weights(6, columns).double() + 0.1
    result, scale = slow_unpack(pack(weight.float(), form), columns, form)
    size, groups = grouping(columns, form)
    for part in range(groups):
        here = slice(part * size, (part + 1) * size)
        group, step = weight[:, here], scale[:, here]
        # An eighth of the range may be clipped at either end; 2^-10 of the values: float16 rounds minimum and scale.
        clip = (group.amax(1) - group.amin(1))[:, None] / 8 + group.abs().amax(1, keepdim=True) * 2**-10
        error = (group - result[:, here]).abs()
        assert (error <= step / 2 + clip).all()
        inside = (group > group.amin(1, keepdim=True) + clip) & (group < group.amax(1, keepdim=True) - clip)
        # 1e-6: the codes are chosen in float32.
        assert (error <= step / 2 * (1 + 1e-6))[inside].all()


@pytest.mark.parametrize("bits", BITS)
def test_a_minimum_pays_where_weights_lie_on_one_side(bits):
    """All positive: the symmetric codes below zero are wasted, so the step halves."""
    weight = weights(64, 256, seed=2).abs() + 0.05
    errors = [
        (unpack(pack(weight, form), 256, form) - weight).norm().item()
        for form in (Format("f", bits, 8, 32), Format("f", bits, 8, 32, False))
    ]
    assert errors[1] < 0.55 * errors[0]


@pytest.mark.parametrize("group", [0, 32])
def test_clipping_a_range_pays_at_4_bits_and_never_loses(group):
    form = Format("f", 4, 8, group, False)
    weight = weights(64, 256, seed=2)
    grouped = weight.view(64, -1, group or 256)
    low = grouped.amin(-1, keepdim=True).half().float()
    scale = ((grouped.amax(-1, keepdim=True) - low) / 15).half().float()
    plain = (((grouped - low) / scale).round().clamp(0, 15) * scale + low - grouped).square().sum(-1)
    ours = (unpack(pack(weight, form), 256, form).view_as(grouped) - grouped).square().sum(-1)
    # 1e-5: sums of float32 squares in another order.
    assert (ours <= plain * (1 + 1e-5)).all()
    assert ours.sum() < 0.97 * plain.sum()


def test_padding_draws_no_minimum_to_zero():
    """33 columns, groups of 32: the last one stands alone in its group, and is all there is to it."""
    weight = 1 + weights(4, 33)
    form = Format("f", 4, 8, 32, False)
    result = unpack(pack(weight, form), 33, form)
    # 2^-11: the minimum is a float16.
    torch.testing.assert_close(result[:, 32], weight[:, 32], rtol=2**-11, atol=0)


def test_padding_has_no_part_in_the_choice_of_a_range():
    """37 columns, groups of 32: of the last group five weights count. Regression: no test noticed when the copies of
    the last weight, which fill it up, were counted as well."""
    form, weight = Format("f", 4, 8, 32, False), weights(256, 37, seed=3)
    group = weight[:, 32:]
    errors = []
    for shrink in packing._SHRINK.tolist():
        margin = (group.amax(1, keepdim=True) - group.amin(1, keepdim=True)) * (1 - shrink) / 2
        low = (group.amin(1, keepdim=True) + margin).half().float()
        scale = ((group.amax(1, keepdim=True) - margin - low) / 15).half().float()
        errors.append((((group - low) / scale).round().clamp(0, 15) * scale + low - group).square().sum(1))
    error = (unpack(pack(weight, form), 37, form)[:, 32:] - group).square().sum(1)
    # 1e-4: sums of float32 squares, and minimums that are limited a little.
    assert (error <= torch.stack(errors).amin(0) * (1 + 1e-4)).all()


@pytest.mark.parametrize("bits", BITS)
@in_turn("width", [64, 33])
@in_turn("offset, spread", [(1.0, 0.0), (1.0, 1e-4), (-3.0, 1e-2), (100.0, 1.0), (0.3, 0.1)])
def test_groups_far_from_zero_are_as_exact_as_float16_and_do_not_wear_out(bits, width, offset, spread):
    """Their range is small against what float16 leaves of the minimum."""
    form = Format("f", bits, 8, 32, False)
    weight = offset + spread * weights(6, width, scale=1.0)
    once = unpack(pack(weight, form), width, form)
    assert same_bits(unpack(pack(once, form), width, form), once)
    grouped, result = (
        torch.nn.functional.pad(w, (0, -width % 32), mode="replicate").view(6, -1, 32) for w in (weight, once)
    )
    span = (grouped.amax(-1) - grouped.amin(-1))[..., None]
    # An eighth of the range may be clipped, or half a step be lost; then a rounding of the minimum and of the scale.
    assert ((result - grouped).abs() <= span / 8 + span / (2**bits - 1) / 2 + 2**-10 * grouped.abs()).all()


@pytest.mark.parametrize("bits", BITS)
@in_turn("magnitude", [1e5, 1e9, 1e18, 1e30, 1e-6, 1e-9, 1e-30, 1e-42])
def test_huge_and_tiny_weights_stay_finite_with_a_minimum(magnitude, bits):
    form = Format("f", bits, 8, 32, False)
    weight = weights(4, 64, scale=magnitude)
    result = unpack(pack(weight, form), 64, form)
    assert torch.isfinite(result).all()
    if magnitude > 1:
        assert (result.abs().amax(1) >= 65504).all()
    # 2^-9, three roundings to float16; 2^-24: the smallest scale.
    assert result.abs().max() <= (1 + 2**-9) * weight.abs().max() + (2**bits) * 2**-24


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_sum_with_the_minimum_is_rounded_once(dtype):
    """A small weight is the difference of two large numbers: in bfloat16 it would be off by its own step."""
    form = Format("f", 8, 8, 0, False)
    packed = pack(weights(8, 64), form)
    assert same_bits(unpack(packed, 64, form, dtype), unpack(packed, 64, form).to(dtype))
