"""The formats by name, what is refused as one, and the bits that the help pages name."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsched_core import QuantizationError
from qsched_core.quant import FORMATS, Format, read_format, resolve_format
from qsched_core.quant.packing import row_bytes


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


@pytest.mark.parametrize("text", ["w4a8/g8", "w8a8/channel", "w6a8/g128", "w4a8/g32/asym"])
def test_a_format_is_read_as_it_prints(text):
    assert str(read_format(f" {text} ")) == text
    assert read_format(text.partition("/")[0]) == FORMATS[text.partition("/")[0]]


@pytest.mark.parametrize(
    "text", ["", "w5a8", "w4a8/32", "w4a8/g", "w4a8/g7", "w4a8/g999999999", "w4a8/gx", "w4a8/gx8", "w4a8//"]
)
def test_other_words_are_no_format(text, refused):
    with refused(QuantizationError):
        read_format(text)
    with refused(QuantizationError, "format 'w4a8/32' is unknown.", "write w4a8, w4a8/g64 or w8a8/channel"):
        read_format("w4a8/32")


@pytest.mark.parametrize("language", ["", "/zh", "/ja", "/ko", "/fr"])
def test_the_help_page_names_the_bits_of_both_kinds_of_scales(language):
    """Regression: it said 4.9 bits for asymmetric scales of 32 columns, which take 5.0."""
    page = (Path(__file__).parents[2] / "web" / "docs" / f"QSchedQuantizeModel{language}.md").read_text("utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("|") and "*asymmetric*" in line]
    for symmetric in (True, False):
        bits = 8 * row_bytes(1280, resolve_format("w4a8", 32, symmetric=symmetric)) / 1280
        assert f"{bits:.1f}" in row
