"""Packed weights: the layout byte by byte, the error that rounding may make, and weights that break naive scales."""

from __future__ import annotations

import struct

import pytest
import torch
from torch import Tensor

from qsched_core import QuantizationError
from qsched_core.quant import FORMATS, Format, resolve_format
from qsched_core.quant.packing import pack, row_bytes, unpack

BITS = (3, 4, 8)
GROUPS = (0, 8, 16, 32, 128)
# Whole groups, odd, not a multiple of a group, smaller than a group, a single column.
WIDTHS = (128, 127, 100, 33, 5, 1)
GRID = [
    pytest.param(Format("f", bits, 8, group), width, id=f"w{bits}-{f'g{group}' if group else 'channel'}-K{width}")
    for bits in BITS
    for group in GROUPS
    for width in WIDTHS
]


def weights(rows: int, columns: int, scale: float = 0.02, seed: int = 0) -> Tensor:
    """Heavy-tailed, as trained layers are: that is where clipping matters."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, columns, generator=generator)
    return scale * normal * (1 + 3 * (torch.rand(rows, columns, generator=generator) > 0.98))


def slow_unpack(packed: Tensor, columns: int, form: Format) -> tuple[Tensor, Tensor]:
    """(weight, scale of every element), read from the bytes in plain Python as the module's docstring says."""
    values, scales = [], []
    size = form.group_size or columns + columns % 2
    groups = -(-columns // size)
    for row in packed.tolist():
        data, tail = bytes(row[: -2 * groups]), bytes(row[-2 * groups :])
        if form.weight_bits == 8:
            codes = list(struct.unpack(f"{len(data)}b", data))
        else:
            codes = [(byte & 15) - 8 for byte in data] + [(byte >> 4) - 8 for byte in data]
        assert len(codes) == groups * size
        scale = struct.unpack(f"<{groups}e", tail)
        values.append([codes[i] * scale[i // size] for i in range(columns)])
        scales.append([scale[i // size] for i in range(columns)])
    return torch.tensor(values, dtype=torch.float64), torch.tensor(scales, dtype=torch.float64)


@pytest.mark.parametrize(("form", "columns"), GRID)
def test_unpack_reads_the_documented_layout(form, columns):
    packed = pack(weights(3, columns), form)
    # 1e-7: float32 against float64, one rounding of a code times a scale.
    torch.testing.assert_close(
        unpack(packed, columns, form).double(), slow_unpack(packed, columns, form)[0], rtol=1e-7, atol=0
    )


def test_the_bytes_of_a_known_weight():
    """Group scales 1 and 0.5: codes in the low, then in the high nibbles, each plus 8; scales are 0x3c00 and 0x3800."""
    weight = torch.tensor([[7, -7, 0, 1, 2, 3, -1, -2, 3.5, -3.5, 0, 0.5, 1, -0.5, 0, 0]])
    packed = pack(weight, Format("f", 4, 8, 8))
    low, high = [15, 1, 8, 9, 10, 11, 7, 6], [15, 1, 8, 9, 10, 7, 8, 8]
    codes = [a | b << 4 for a, b in zip(low, high, strict=True)]
    assert packed.tolist() == [[*codes, 0x00, 0x3C, 0x00, 0x38]]
    assert torch.equal(unpack(packed, 16, Format("f", 4, 8, 8)), weight)


@pytest.mark.parametrize(("form", "columns"), GRID)
def test_two_codes_fill_a_byte(form, columns):
    packed = pack(weights(3, columns), form)
    size = form.group_size or columns + columns % 2
    groups = -(-columns // size)
    assert packed.dtype == torch.uint8
    # 3-bit codes lie in 4 bits.
    assert packed.shape == (3, groups * size * {3: 4, 4: 4, 8: 8}[form.weight_bits] // 8 + 2 * groups)
    assert packed.shape[1] == row_bytes(columns, form)


def test_4_bits_with_groups_of_32_are_4_and_a_half_bits_per_weight():
    assert row_bytes(4096, FORMATS["w4a8"]) * 8 / 4096 == 4.5


@pytest.mark.parametrize(("form", "columns"), GRID)
def test_no_element_errs_by_more_than_half_a_step_unless_it_is_clipped(form, columns):
    weight = weights(6, columns).double()
    made, scale = slow_unpack(pack(weight.float(), form), columns, form)
    top = 2 ** (form.weight_bits - 1) - 1
    allowed = torch.maximum(scale / 2, weight.abs() - top * scale)
    # 1e-6: the codes are chosen in float32.
    assert ((weight - made).abs() <= allowed * (1 + 1e-6)).all()
    # Clipping takes at most a quarter of a group's largest value; 2^-10: the scale is rounded to float16.
    assert (weight.abs() <= top * scale / 0.75 * (1 + 2**-10)).all()


@pytest.mark.parametrize(("form", "columns"), GRID)
def test_choosing_the_clipping_never_loses_to_plain_rounding(form, columns):
    weight = weights(6, columns, seed=1)
    size = form.group_size or columns + columns % 2
    top = 2 ** (form.weight_bits - 1) - 1
    made = unpack(pack(weight, form), columns, form)
    for start in range(0, columns, size):
        group = weight[:, start : start + size]
        scale = (group.abs().amax(1, keepdim=True) / top).half().float()
        plain = ((group / scale).round().clamp(-top, top) * scale - group).square().sum(1)
        ours = (made[:, start : start + size] - group).square().sum(1)
        # 1e-5: sums of up to 128 float32 squares in another order.
        assert (ours <= plain * (1 + 1e-5)).all()


def test_clipping_pays_on_heavy_tails_at_4_bits():
    """Else the six candidates are dead weight: the mean squared error falls by more than a tenth."""
    weight = weights(64, 256, seed=2)
    scale = weight.abs().amax(1, keepdim=True) / 7
    plain = ((weight / scale).round().clamp(-7, 7) * scale - weight).square().mean()
    ours = (unpack(pack(weight, Format("f", 4, 8, 0)), 256, Format("f", 4, 8, 0)) - weight).square().mean()
    assert ours < 0.9 * plain


@pytest.mark.parametrize("group", [0, 32])
def test_8_bits_err_less_than_4_by_the_ratio_of_their_steps(group):
    weight = weights(64, 256, seed=3)
    errors = [
        ((unpack(pack(weight, form), 256, form) - weight).norm() / weight.norm()).item()
        for form in (Format("f", bits, 8, group) for bits in (4, 8))
    ]
    # 127/7 = 18 if nothing was clipped; 4 bits clip more, and so lose a little less.
    assert 10 < errors[0] / errors[1] < 19


def test_smaller_groups_err_less():
    weight = weights(64, 256, seed=4)
    errors = [
        (unpack(pack(weight, form), 256, form) - weight).norm().item()
        for form in (Format("f", 4, 8, group) for group in (0, 128, 32, 8))
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.5 * errors[-1]


@pytest.mark.parametrize(("form", "columns"), GRID)
def test_packing_what_was_unpacked_changes_nothing(form, columns):
    """A LoRA that is added and taken off again must not wear the weight out."""
    once = unpack(pack(weights(6, columns), form), columns, form)
    assert torch.equal(unpack(pack(once, form), columns, form), once)


def test_packing_is_deterministic():
    weight = weights(16, 256)
    assert torch.equal(pack(weight, FORMATS["w4a8"]), pack(weight.clone(), FORMATS["w4a8"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_the_type_of_the_weight_makes_no_difference_beyond_its_own_rounding(dtype):
    weight = weights(8, 64).to(dtype)
    assert torch.equal(pack(weight, FORMATS["w4a8"]), pack(weight.float(), FORMATS["w4a8"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_unpack_gives_the_type_asked_for(dtype):
    form = FORMATS["w4a8"]
    packed = pack(weights(8, 64), form)
    made = unpack(packed, 64, form, dtype)
    assert made.dtype == dtype
    # One rounding of the scale and one of the product.
    torch.testing.assert_close(made.float(), unpack(packed, 64, form), rtol=2 * torch.finfo(dtype).eps, atol=0)


# --- weights that break naive scales


@pytest.mark.parametrize(("form", "columns"), GRID)
def test_zero_rows_stay_zero(form, columns):
    weight = weights(4, columns)
    weight[1] = 0
    made = unpack(pack(weight, form), columns, form)
    assert (made[1] == 0).all()
    assert (made[0] != 0).any()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("magnitude", [1e5, 1e6, 1e9, 1e18, 1e30, 1e-6, 1e-9, 1e-30, 1e-42])
def test_huge_and_tiny_weights_stay_finite(magnitude, bits):
    """Regression: scales above 65504 became infinite in float16, and the layer all zeros."""
    form = Format("f", bits, 8, 32)
    weight = weights(4, 64, scale=magnitude)
    made = unpack(pack(weight, form), 64, form)
    assert torch.isfinite(made).all()
    assert ((made == 0) | (made.sign() == weight.sign())).all()
    if magnitude > 1:
        assert (made.abs().amax(1) >= 65504).all()  # what is beyond the largest scale is cut, not dropped
    # Never larger than given. 1 %: float16 rounds a scale; 2^-23: its smallest one, halved steps and all.
    assert made.abs().max() <= 1.01 * weight.abs().max() + 2**-23


@pytest.mark.parametrize("magnitude", [1e5, 1e-3])
def test_what_float16_scales_can_hold_is_as_exact_as_ever(magnitude):
    """1e5 itself overflows float16; its scale at 4 bits does not."""
    errors = [
        ((unpack(pack(w, FORMATS["w4a8"]), 64, FORMATS["w4a8"]) - w).norm() / w.norm()).item()
        for w in (weights(4, 64, scale=1.0), weights(4, 64, scale=magnitude))
    ]
    # 1 %: only the scales' own rounding differs.
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


def test_one_huge_weight_spoils_its_own_group_only():
    weight = weights(2, 96)
    weight[0, 40] = 1e4
    made = unpack(pack(weight, FORMATS["w4a8"]), 96, FORMATS["w4a8"])
    clean = unpack(pack(weights(2, 96), FORMATS["w4a8"]), 96, FORMATS["w4a8"])
    assert torch.equal(made[1], clean[1])
    assert torch.equal(made[0, :32], clean[0, :32])
    assert torch.equal(made[0, 64:], clean[0, 64:])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("columns", [2, 3, 5, 6, 7, 10])
def test_a_single_row_unpacks(columns, bits):
    """Regression: scales that started at an odd byte of a one-row tensor could not be viewed as float16."""
    form = Format("f", bits, 8, 0)
    packed = pack(weights(1, columns), form)
    torch.testing.assert_close(
        unpack(packed, columns, form).double(), slow_unpack(packed, columns, form)[0], rtol=1e-7, atol=0
    )  # 1e-7 as above


# --- formats


def test_the_named_formats():
    values = {name: (f.weight_bits, f.activation_bits, f.group_size) for name, f in FORMATS.items()}
    assert values == {
        "w4a8": (4, 8, 32),
        "w4a16": (4, 16, 32),
        "w4a4": (4, 4, 32),
        "w8a8": (8, 8, 0),
        "w3a8": (3, 8, 32),
    }
    assert [str(form) for form in FORMATS.values()] == ["w4a8/g32", "w4a16/g32", "w4a4/g32", "w8a8/channel", "w3a8/g32"]


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


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(2, 8), (16, 8), (4, 2), (4, 32)])
def test_bits_that_are_not_supported_are_refused(refused, weight_bits, activation_bits):
    with refused(QuantizationError, f"W{weight_bits}A{activation_bits}"):
        Format("f", weight_bits, activation_bits, 32)
