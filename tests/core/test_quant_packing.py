"""Packed weights: the layout byte by byte, the error that rounding may make, and weights that break naive scales."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exactness import same_bits
from torch import Tensor

from qsched_core import QuantizationError
from qsched_core.quant import FORMATS, Format, packing, resolve_format
from qsched_core.quant.packing import codes, pack, row_bytes, scales, unpack

BITS = (3, 4, 6, 8)
GROUPS = (0, 8, 16, 32, 128)
# Whole groups, odd, not a multiple of a group, smaller than a group, a single column.
WIDTHS = (128, 127, 100, 33, 5, 1)
GRID = [
    pytest.param(Format("f", bits, 8, group), width, id=f"w{bits}-{f'g{group}' if group else 'channel'}-K{width}")
    for bits in BITS
    for group in GROUPS
    for width in WIDTHS
]
ASYMMETRIC = [pytest.param(replace(item.values[0], symmetric=False), item.values[1], id=item.id) for item in GRID]


def weights(rows: int, columns: int, scale: float = 0.02, seed: int = 0) -> Tensor:
    """Heavy-tailed, as trained layers are: that is where clipping matters."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, columns, generator=generator)
    return scale * normal * (1 + 3 * (torch.rand(rows, columns, generator=generator) > 0.98))


def slow_unpack(packed: Tensor, columns: int, form: Format) -> tuple[Tensor, Tensor]:
    """(weight, scale of every element), read from the bytes in plain Python as the module's docstring says."""
    values, scales = [], []
    size, groups = grouping(columns, form)
    for row in packed.tolist():
        split = len(row) - tail_bytes(groups, form)
        data, tail = bytes(row[:split]), bytes(row[split:])
        if form.weight_bits == 8:
            codes = list(struct.unpack(f"{len(data)}{'b' if form.symmetric else 'B'}", data))
        else:
            nibbles, upper = data[: groups * size // 2], data[groups * size // 2 :]
            codes = [byte & 15 for byte in nibbles] + [byte >> 4 for byte in nibbles]
            if form.weight_bits == 6:
                tops = [byte >> shift & 3 for shift in (0, 2, 4, 6) for byte in upper]
                codes = [code + 16 * top for code, top in zip(codes, tops, strict=True)]
            middle = {3: 8, 4: 8, 6: 32}[form.weight_bits] if form.symmetric else 0
            codes = [code - middle for code in codes]
        assert len(codes) == groups * size
        minimum = [0.0] * groups
        if in_steps(form):
            *steps, number = struct.unpack(f"<{groups}Bh", tail)
            scale = [(-1) ** (step >> 7) * 2 ** ((number - step % 128) / 12) for step in steps]
        elif form.symmetric:
            scale = struct.unpack(f"<{groups}e", tail)
        else:
            numbers = struct.unpack(f"<{2 * groups}e", tail)
            scale, minimum = numbers[:groups], numbers[groups:]
        values.append([codes[i] * scale[i // size] + minimum[i // size] for i in range(columns)])
        scales.append([scale[i // size] for i in range(columns)])
    return torch.tensor(values, dtype=torch.float64), torch.tensor(scales, dtype=torch.float64)


def grouping(columns: int, form: Format) -> tuple[int, int]:
    """(columns of a group, groups of a row)."""
    whole = 4 if form.weight_bits == 6 else 2
    size = form.group_size or -(-columns // whole) * whole
    return size, -(-columns // size)


def in_steps(form: Format) -> bool:
    """Whether scales are bytes, steps below that of their row."""
    return form.symmetric and form.weight_bits in (3, 4) and form.group_size > 0


def tail_bytes(groups: int, form: Format) -> int:
    """Bytes of a row after its codes."""
    return groups + 2 if in_steps(form) else 2 * groups if form.symmetric else 4 * groups


def grouped(weight: Tensor, form: Format) -> Tensor:
    """(N, K) -> (N, groups, columns of a group), with zeros up to whole groups."""
    size, groups = grouping(weight.shape[1], form)
    return torch.nn.functional.pad(weight, (0, size * groups - weight.shape[1])).view(len(weight), groups, size)


def signed_scales(groups: Tensor, bits: int) -> Tensor:
    """What gives the largest weight of each group (…, size) the code -2^(bits-1): (…, 1)."""
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    return torch.where(high > -low, -high, -low) / 2 ** (bits - 1)


def squared_errors(groups: Tensor, scale: Tensor, least: int, top: int) -> Tensor:
    """Of each group (…, size) with a scale (…, 1) and codes from ``least`` to ``top``."""
    return ((groups / scale).round().clamp(least, top) * scale - groups).square().sum(-1)


def relative_error(weight: Tensor, form: Format) -> float:
    return ((unpack(pack(weight, form), weight.shape[1], form) - weight).norm() / weight.norm()).item()


@pytest.mark.parametrize(("form", "columns"), [*GRID, *ASYMMETRIC])
def test_unpack_reads_the_documented_layout(form, columns):
    packed = pack(weights(3, columns), form)
    # float32 against float64. 1e-6: an exponent of up to 12 is rounded before 2 is raised to it. 1e-7: one rounding of
    # a code times a scale; with a minimum of up to 0.3 also of the sum.
    torch.testing.assert_close(
        unpack(packed, columns, form).double(),
        slow_unpack(packed, columns, form)[0],
        rtol=1e-6 if in_steps(form) else 1e-7,
        atol=0 if form.symmetric else 3e-8,
    )


def test_the_bytes_of_a_known_weight():
    """Codes in the low, then in the high nibbles, each plus 8. Scales 2^-5 and, for the largest is positive, -2^-6: the
    row's number is -60, 12 for each factor of two, and the second group is 12 steps below that."""
    form = Format("f", 4, 8, 8)
    weight = torch.tensor([[-8, 7, 0, 1, 2, 3, -1, -2, 4, -3.5, 0, 0.5, 1, -0.5, 0, 0]]) / 32
    packed = pack(weight, form)
    low, high = [0, 15, 8, 9, 10, 11, 7, 6], [0, 15, 8, 7, 6, 9, 8, 8]
    code_values = [a | b << 4 for a, b in zip(low, high, strict=True)]
    assert packed.tolist() == [[*code_values, 0, 128 + 12, 256 - 60, 0xFF]]
    assert same_bits(unpack(packed, 16, form), weight)
    assert codes(packed, 16, form).tolist() == [[code - 8 for code in low + high]]
    assert scales(packed, 16, form).tolist() == [[2**-5, -(2**-6)]]


def test_the_bytes_of_8_bit_codes():
    """Scale -1/64, which is 0xa400, for the largest is positive. It alone gets the code that has no opposite."""
    weight = torch.tensor([[128, -127, 0, 64]]) / 64
    packed = pack(weight, FORMATS["w8a8"])
    assert packed.tolist() == [[0x80, 0x7F, 0x00, 0xC0, 0x00, 0xA4]]
    assert same_bits(unpack(packed, 4, FORMATS["w8a8"]), weight)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_the_bytes_of_6_bit_codes(symmetric):
    """Group scale 1: symmetric codes plus 32; asymmetric codes above a minimum of -32, which are the same."""
    form = Format("f", 6, 8, 8, symmetric)
    weight = torch.tensor([[-32.0, 31, 0, 1, 16, -16, -1, 15]])
    code_values = [0, 63, 32, 33, 48, 16, 31, 47]
    nibbles = [code_values[i] & 15 | (code_values[i + 4] & 15) << 4 for i in range(4)]
    upper = [sum((code_values[i + 2 * place] >> 4) << 2 * place for place in range(4)) for i in range(2)]
    packed = pack(weight, form)
    assert packed.tolist() == [[*nibbles, *upper, 0x00, 0x3C, *([] if symmetric else [0x00, 0xD0])]]
    assert same_bits(unpack(packed, 8, form), weight)


@pytest.mark.parametrize(("form", "columns"), [*GRID, *ASYMMETRIC])
def test_a_row_takes_the_bits_of_its_codes_and_the_bytes_of_its_scales(form, columns):
    packed = pack(weights(3, columns), form)
    size, groups = grouping(columns, form)
    assert packed.dtype == torch.uint8
    # 3-bit codes lie in 4 bits.
    code_bytes = groups * size * {3: 4, 4: 4, 6: 6, 8: 8}[form.weight_bits] // 8
    assert packed.shape == (3, code_bytes + tail_bytes(groups, form))
    assert packed.shape[1] == row_bytes(columns, form)


@pytest.mark.parametrize(("form", "columns"), [*GRID, *ASYMMETRIC])
def test_the_codes_can_be_read_alone(form, columns):
    packed = pack(weights(3, columns), form)
    size, groups = grouping(columns, form)
    numbers, values = codes(packed, columns, form), scales(packed, columns, form).double()
    assert numbers.dtype == (torch.int8 if form.symmetric else torch.uint8)
    result = numbers.double() * values[:, :groups].repeat_interleave(size, 1)[:, :columns]
    if not form.symmetric:
        result += values[:, groups:].repeat_interleave(size, 1)[:, :columns]
    # 1e-6 as above.
    torch.testing.assert_close(
        result, slow_unpack(packed, columns, form)[0], rtol=1e-6 if in_steps(form) else 0, atol=0
    )


@pytest.mark.parametrize(("form", "columns"), GRID)
def test_codes_span_the_whole_range_and_the_largest_weight_is_at_its_low_end(form, columns):
    """What clipping leaves of it, too: a group that is packed again must find its scale."""
    weight = weights(6, columns)
    numbers = grouped(codes(pack(weight, form), columns, form), form)
    values = grouped(weight, form)
    least = -(2 ** (form.weight_bits - 1))
    largest = values.abs().argmax(-1, keepdim=True)
    assert (numbers.gather(-1, largest) == least).all()
    assert numbers.amin() == least
    assert numbers.amax() <= -least - 1


def test_4_bits_with_groups_of_32_are_4_and_a_quarter_bits_per_weight():
    """And one number of 16 bits for a row."""
    assert row_bytes(4096, FORMATS["w4a8"]) * 8 == 4.25 * 4096 + 16


@pytest.mark.parametrize(("form", "columns"), GRID)
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


@pytest.mark.parametrize(("form", "columns"), GRID)
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


@pytest.mark.parametrize(("form", "columns"), [*GRID, *ASYMMETRIC])
def test_packing_what_was_unpacked_changes_nothing(form, columns):
    """A LoRA that is added and taken off again must not wear the weight out."""
    once = unpack(pack(weights(6, columns), form), columns, form)
    assert same_bits(unpack(pack(once, form), columns, form), once)


@pytest.mark.parametrize("bits", [3, 4])
def test_every_step_is_found_again(bits):
    """From the smallest to the largest scale there is, with either sign."""
    form, end = Format("f", bits, 8, 8), 2 ** (bits - 1)
    exact = torch.tensor([-end, end - 1, 0, 1, -1, 1 - end, 1, 0]) * 1.0
    steps = torch.arange(-288, 192)
    result = exact * (2.0 ** (steps.double() / 12)).float()[:, None]
    packed = pack(torch.cat([result, -result]), form)
    numbers = packed[:, 5:].clone().view(torch.int16).flatten()
    assert same_bits(numbers, steps.repeat(2).to(torch.int16))
    assert same_bits(packed[:, 4], torch.tensor([0, 128], dtype=torch.uint8).repeat_interleave(len(steps)))
    assert same_bits(pack(unpack(packed, 8, form), form), packed)


def test_a_layer_is_packed_in_parts_of_its_devices_size(monkeypatch):
    """2^18 weights at a time, which a CPU's cache holds, were millions of launches on a GPU."""
    form, parts = FORMATS["w4a8"], []
    pack_rows = packing._pack_symmetric
    monkeypatch.setattr(packing, "_pack_symmetric", lambda part, form: parts.append(len(part)) or pack_rows(part, form))
    pack(torch.empty(8192, 1024, device="meta"), form)
    assert parts == [4096, 4096]
    parts.clear()
    weight = weights(512, 1024)
    packed = pack(weight, form)
    assert parts == [256, 256]
    assert same_bits(packed, pack_rows(weight, form))


def test_packing_is_deterministic():
    weight = weights(16, 256)
    assert same_bits(pack(weight, FORMATS["w4a8"]), pack(weight.clone(), FORMATS["w4a8"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_the_type_of_the_weight_makes_no_difference_beyond_its_own_rounding(dtype):
    weight = weights(8, 64).to(dtype)
    assert same_bits(pack(weight, FORMATS["w4a8"]), pack(weight.float(), FORMATS["w4a8"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_unpack_gives_the_type_asked_for(dtype):
    form = FORMATS["w4a8"]
    packed = pack(weights(8, 64), form)
    result = unpack(packed, 64, form, dtype)
    assert result.dtype == dtype
    # One rounding of the scale and one of the product.
    torch.testing.assert_close(result.float(), unpack(packed, 64, form), rtol=2 * torch.finfo(dtype).eps, atol=0)


# --- weights that break naive scales


@pytest.mark.parametrize(("form", "columns"), [*GRID, *ASYMMETRIC])
def test_zero_rows_stay_zero(form, columns):
    weight = weights(4, columns)
    weight[1] = 0
    result = unpack(pack(weight, form), columns, form)
    assert (result[1] == 0).all()
    assert (result[0] != 0).any()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("magnitude", [1e5, 1e6, 1e9, 1e18, 1e30, 1e-6, 1e-9, 1e-30, 1e-42])
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
@pytest.mark.parametrize("magnitude", [1e5, 2e5, 5e5, 1e6, 1e30, 1e-30])
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
@pytest.mark.parametrize("columns", [2, 3, 5, 6, 7, 10])
def test_a_single_row_unpacks(columns, bits):
    """Regression: scales that started at an odd byte of a one-row tensor could not be viewed as float16."""
    form = Format("f", bits, 8, 0)
    packed = pack(weights(1, columns), form)
    torch.testing.assert_close(
        unpack(packed, columns, form).double(), slow_unpack(packed, columns, form)[0], rtol=1e-7, atol=0
    )  # 1e-7 as above


@pytest.mark.parametrize("form", [FORMATS["w4a8"], FORMATS["w3a8"], FORMATS["w6a8"], FORMATS["w8a8"]], ids=str)
def test_a_weight_that_is_turned_over_is_rounded_alike(form):
    """Except where the largest is there with both signs: one of the two is clipped."""
    weight = weights(16, 100)
    assert same_bits(unpack(pack(-weight, form), 100, form), -unpack(pack(weight, form), 100, form))
    both = torch.tensor([[1.0, -1.0] * 16])
    result, end = unpack(pack(both, form), 32, form), 2 ** (form.weight_bits - 1)
    assert result.amin() == -1
    assert result.amax() >= 1 - 1 / end


# --- minimums


@pytest.mark.parametrize(("form", "columns"), ASYMMETRIC)
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
@pytest.mark.parametrize("width", [64, 33])
@pytest.mark.parametrize(("offset", "spread"), [(1.0, 0.0), (1.0, 1e-4), (-3.0, 1e-2), (100.0, 1.0), (0.3, 0.1)])
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
@pytest.mark.parametrize("magnitude", [1e5, 1e9, 1e18, 1e30, 1e-6, 1e-9, 1e-30, 1e-42])
def test_huge_and_tiny_weights_stay_finite_with_a_minimum(magnitude, bits):
    form = Format("f", bits, 8, 32, False)
    weight = weights(4, 64, scale=magnitude)
    result = unpack(pack(weight, form), 64, form)
    assert torch.isfinite(result).all()
    if magnitude > 1:
        assert (result.abs().amax(1) >= 65504).all()
    # 2^-9, three roundings to float16; 2^-23 as above.
    assert result.abs().max() <= (1 + 2**-9) * weight.abs().max() + (2**bits) * 2**-24


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_sum_with_the_minimum_is_rounded_once(dtype):
    """A small weight is the difference of two large numbers: in bfloat16 it would be off by its own step."""
    form = Format("f", 8, 8, 0, False)
    packed = pack(weights(8, 64), form)
    assert same_bits(unpack(packed, 64, form, dtype), unpack(packed, 64, form).to(dtype))


# --- formats


def test_the_named_formats():
    values = {name: (f.weight_bits, f.activation_bits, f.group_size) for name, f in FORMATS.items()}
    assert values == {
        "w4a8": (4, 8, 32),
        "w4a16": (4, 16, 32),
        "w4a4": (4, 4, 32),
        "w8a8": (8, 8, 0),
        "w8a16": (8, 16, 0),
        "w6a8": (6, 8, 32),
        "w3a8": (3, 8, 32),
    }
    assert all(form.symmetric for form in FORMATS.values())
    assert [str(form) for form in FORMATS.values()] == [
        "w4a8/g32", "w4a16/g32", "w4a4/g32", "w8a8/channel", "w8a16/channel", "w6a8/g32", "w3a8/g32",
    ]  # fmt: skip
    assert [form.storage_bits for form in FORMATS.values()] == [4, 4, 4, 8, 8, 6, 4]


def test_an_asymmetric_format_says_so():
    assert str(resolve_format("w4a8", symmetric=False)) == "w4a8/g32/asym"
    assert str(resolve_format("w4a8", 0, False)) == "w4a8/channel/asym"


def test_another_group_size_is_another_format():
    assert str(resolve_format("w4a8", 64)) == "w4a8/g64"
    assert str(resolve_format("w4a8", 0)) == "w4a8/channel"
    assert str(resolve_format("w4a8", 65536)) == "w4a8/g65536"
    assert resolve_format("w4a8") is FORMATS["w4a8"]


def test_an_unknown_format_is_refused_with_the_known_ones(refused):
    with refused(QuantizationError, "'w2a8'", *FORMATS, name="w2a8"):
        resolve_format("w2a8")


@pytest.mark.parametrize("size", [-8, 1, 4, 12, 33, 65544])
def test_a_group_size_that_does_not_fill_bytes_is_refused(refused, size):
    with refused(QuantizationError, f"group size {size}."):
        resolve_format("w4a8", size)


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(2, 8), (5, 8), (16, 8), (4, 2), (4, 32)])
def test_bits_that_are_not_supported_are_refused(refused, weight_bits, activation_bits):
    with refused(QuantizationError, f"W{weight_bits}A{activation_bits}"):
        Format("f", weight_bits, activation_bits, 32)


@pytest.mark.parametrize("language", ["", "/zh", "/ja", "/ko", "/fr"])
def test_the_help_page_names_the_bits_of_both_kinds_of_scales(language):
    """Regression: it said 4.9 bits for asymmetric scales of 32 columns, which take 5.0."""
    page = (Path(__file__).parents[2] / "web" / "docs" / f"QSchedQuantizeModel{language}.md").read_text("utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("|") and "*asymmetric*" in line]
    for symmetric in (True, False):
        bits = 8 * row_bytes(1280, resolve_format("w4a8", 32, symmetric=symmetric)) / 1280
        assert f"{bits:.1f}" in row
