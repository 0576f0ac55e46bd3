"""Weights that break naive scales: zeros, huge and tiny ones, a single outlier, a single row."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from in_turn import in_turn
from packed_layout import ASYMMETRIC, BITS, FORMS, WIDTHS, relative_error, slow_unpack, weights

from qsched_core.quant import FORMATS, Format
from qsched_core.quant.packing import pack, scales, sound_scales, unpack


@pytest.mark.parametrize("form", [*FORMS, *ASYMMETRIC])
@in_turn("columns", WIDTHS)
def test_zero_rows_stay_zero(form, columns):
    weight = weights(4, columns)
    weight[1] = 0
    packed = pack(weight, form)
    result = unpack(packed, columns, form)
    assert (result[1] == 0).all()
    assert (result[0] != 0).any()
    sizes = scales(packed, columns, form)
    assert ((sizes if form.symmetric else sizes.chunk(2, 1)[0]) != 0).all(), "no weight is divided by nothing"
    assert sound_scales(packed, columns, form)


@pytest.mark.parametrize("bits", BITS)
@in_turn("magnitude", [1e5, 1e6, 1e9, 1e18, 1e30, 1e-6, 1e-9, 1e-30, 1e-42])
def test_huge_and_tiny_weights_stay_finite(magnitude, bits):
    """Regression: scales above 65504 became infinite in float16, and the layer all zeros."""
    form = Format("f", bits, 8, 32)
    weight = weights(4, 64, scale=magnitude)
    result = unpack(pack(weight, form), 64, form)
    assert torch.isfinite(result).all()
    assert ((result == 0) | (result.sign() == weight.sign())).all()
    if magnitude > 1:
        assert (result.abs().amax(1) >= 65504).all()  # what is beyond the largest scale is cut, not dropped
    # Never larger than given. 6 %: a step of a scale; 2^-23: the smallest one, halved steps and all.
    assert result.abs().max() <= 1.06 * weight.abs().max() + 2**-23


@pytest.mark.parametrize("bits", BITS)
@in_turn("magnitude", [1e5, 2e5, 5e5, 1e6, 1e30, 1e-30])
def test_what_float16_cannot_hold_is_infinite_but_not_nan(magnitude, bits):
    """Regression: the step above 65504 is infinite in float16, and times a code of 0 NaN."""
    form = Format("f", bits, 8, 32)
    weight = weights(4, 64, scale=magnitude)
    weight[:, ::2] = 0
    result = unpack(pack(weight, form), 64, form, torch.float16)
    assert not torch.isnan(result).any()
    assert (result[:, ::2] == 0).all()


@pytest.mark.parametrize("magnitude", [3e4, 1e-3])
@pytest.mark.parametrize("group", [0, 32])
def test_what_scales_can_hold_is_as_exact_as_ever(magnitude, group):
    """The largest, 4e5, overflow float16; their scales at 4 bits do not."""
    form = Format("f", 4, 8, group)
    errors = [relative_error(weights(64, 64, scale=scale), form) for scale in (1.0, magnitude)]
    # 1 %: only the scales' own rounding differs.
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


@pytest.mark.parametrize(("name", "huge"), [("w4a8", 20.0), ("w3a8", 10.0), ("w6a8", 1e4)])
def test_one_huge_weight_spoils_its_own_group_only(name, huge):
    form, weight = FORMATS[name], weights(2, 96)
    weight[0, 40] = huge
    result = unpack(pack(weight, form), 96, form)
    clean = unpack(pack(weights(2, 96), form), 96, form)
    assert same_bits(result[1], clean[1])
    assert same_bits(result[0, :32], clean[0, :32])
    assert same_bits(result[0, 64:], clean[0, 64:])


@pytest.mark.parametrize(("steps", "expected"), [(120, 120), (127, 127), (128, 127), (140, 127), (400, 127)])
@pytest.mark.parametrize("bits", [3, 4])
def test_a_scale_is_at_most_127_steps_below_the_largest_of_its_row(bits, steps, expected):
    """1500 times smaller. A group that would need less is rounded with that, coarsely or away; it does no harm to the
    others, and is a 3000th of their step at most."""
    form, end = Format("f", bits, 8, 8), 2 ** (bits - 1)
    # Weights that codes hold exactly: each scale is then the one that they were made with.
    exact = torch.tensor([-end, end - 1, 0, 1, -1, 1 - end, 1, 0]) * 1.0
    weight = torch.cat([exact, exact * 2 ** (-steps / 12), exact * 2 ** (-60 / 12)])[None]
    packed = pack(weight, form)
    result, scale = slow_unpack(packed, 24, form)
    assert [number % 128 for number in packed[0, 12:15].tolist()] == [0, expected, 60]
    torch.testing.assert_close(result[0, :8], weight[0, :8].double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(result[0, 16:], weight[0, 16:].double(), rtol=1e-6, atol=0)
    # 1e-6: 2^(e/12) in float32.
    assert ((result - weight).abs() <= scale / 2 + 1e-6 * weight.abs())[0, 8:16].all()
    assert scale[0, 8] == pytest.approx(2 ** (-expected / 12), rel=1e-6)
    if steps == expected:
        torch.testing.assert_close(result[0, 8:16], weight[0, 8:16].double(), rtol=1e-6, atol=0)
    if steps == 400:
        assert (result[0, 8:16] == 0).all()
    once = unpack(packed, 24, form)
    assert same_bits(unpack(pack(once, form), 24, form), once)


@pytest.mark.parametrize("bits", BITS)
@in_turn("columns", [2, 3, 5, 6, 7, 10])
def test_a_single_row_unpacks(columns, bits):
    """Regression: scales that started at an odd byte of a one-row tensor could not be viewed as float16."""
    form = Format("f", bits, 8, 0)
    packed = pack(weights(1, columns), form)
    torch.testing.assert_close(
        unpack(packed, columns, form).double(), slow_unpack(packed, columns, form)[0], rtol=1e-7, atol=0
    )  # 1e-7: one rounding of a code times a scale


@pytest.mark.parametrize("form", [FORMATS["w4a8"], FORMATS["w3a8"], FORMATS["w6a8"], FORMATS["w8a8"]], ids=str)
def test_a_weight_that_is_turned_over_is_rounded_alike(form):
    """Except where the largest is there with both signs: one of the two is clipped."""
    weight = weights(16, 100)
    assert same_bits(unpack(pack(-weight, form), 100, form), -unpack(pack(weight, form), 100, form))
    both = torch.tensor([[1.0, -1.0] * 16])
    result, end = unpack(pack(both, form), 32, form), 2 ** (form.weight_bits - 1)
    assert result.amin() == -1
    assert result.amax() >= 1 - 1 / end
