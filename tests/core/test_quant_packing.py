"""Packed weights: the layout byte by byte, and what is read back from it."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from in_turn import in_turn
from packed_layout import ASYMMETRIC, FORMS, WIDTHS, grouped, grouping, in_steps, slow_unpack, tail_bytes, weights

from qsched_core.quant import FORMATS, Format, packing
from qsched_core.quant.packing import codes, pack, row_bytes, scales, unpack


@pytest.mark.parametrize("form", [*FORMS, *ASYMMETRIC])
@in_turn("columns", WIDTHS)
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


@pytest.mark.parametrize("form", [*FORMS, *ASYMMETRIC])
@in_turn("columns", WIDTHS)
def test_a_row_takes_the_bits_of_its_codes_and_the_bytes_of_its_scales(form, columns):
    packed = pack(weights(3, columns), form)
    size, groups = grouping(columns, form)
    assert packed.dtype == torch.uint8
    # 3-bit codes lie in 4 bits.
    code_bytes = groups * size * {3: 4, 4: 4, 6: 6, 8: 8}[form.weight_bits] // 8
    assert packed.shape == (3, code_bytes + tail_bytes(groups, form))
    assert packed.shape[1] == row_bytes(columns, form)


@pytest.mark.parametrize("form", [*FORMS, *ASYMMETRIC])
@in_turn("columns", WIDTHS)
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


@pytest.mark.parametrize("form", FORMS)
@in_turn("columns", WIDTHS)
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


@pytest.mark.parametrize("form", [*FORMS, *ASYMMETRIC])
@in_turn("columns", WIDTHS)
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
