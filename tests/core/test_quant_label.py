"""What a preset says of the quantisation it was made for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import qsched_core as qs
from qsched_core import Binding, Coefficients, Preset, mismatches
from qsched_core.quant import label_of, may_be, same_quantization
from qsched_core.quant.label import format_of

SIGMAS = (10.0, 1.0, 0.0)


def layer(weight: object, **attributes) -> nn.Module:
    layer = nn.Linear(4, 4)
    layer._parameters["weight"] = weight
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def test_a_label_names_formats_and_packed_convolutions():
    network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.Linear(64, 64))
    assert label_of(network) == "none"
    qs.quantize(network, "w4a16", backend="torch", include=["*"], group_size=32)
    assert label_of(network) == "conv+w4a16/g32"


@pytest.mark.parametrize(
    ("name", "group", "label"),
    [
        ("asym_w4a8_int8", 32, "w4a8/g32"),
        ("convrot_w4a4", None, "w4a4/channel"),
        ("int8_tensorwise", None, "w8a8/channel"),
        ("nvfp4", None, "nvfp4"),
    ],
)
def test_the_hosts_own_layouts_have_the_label_of_the_same_format_of_ours(name, group, label):
    """A preset calibrated on the CPU "differed" on a card, because kitchen's kernels held the same 4 bits there."""
    settings = SimpleNamespace(**({} if group is None else {"group_size": group}))
    weight = SimpleNamespace(data=SimpleNamespace(_params=settings))  # as ComfyUI's class of packed weights has them
    assert label_of(nn.Sequential(layer(weight, quant_format=name))) == label


def test_a_layer_of_the_hosts_has_our_format_by_name_and_any_other_has_none():
    packed = SimpleNamespace(data=SimpleNamespace())
    assert format_of(layer(packed, quant_format="int8_tensorwise")) == "w8a8"
    network = nn.Sequential(nn.Linear(64, 64))
    qs.quantize(network, "w4a16", backend="torch", include=["*"], group_size=32)
    plain = nn.Linear(4, 4)
    plain.quant_format = "int8_tensorwise"
    for other in (layer(packed, quant_format="nvfp4"), layer(packed), network[0], plain, nn.ReLU(), layer(None)):
        assert format_of(other) == ""


@pytest.mark.parametrize(("length", "most"), [(199, 199), (200, 200), (201, 200)])
def test_a_label_has_200_letters_at_most(length, most):
    strange = layer(SimpleNamespace(data=SimpleNamespace()), quant_format="x" * length)
    assert label_of(nn.Sequential(strange)) == "x" * most


def test_plain_floats_of_one_byte_are_named_by_their_type():
    weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.float8_e4m3fn), requires_grad=False)
    assert label_of(nn.Sequential(layer(weight), nn.Linear(4, 4))) == "float8_e4m3fn"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("w4a8/g32", "w4a8/g32", True),
        ("w4a8/g32", "w4a8/channel", False),
        ("w4a8/g32", "w4a8/g32/asym", False),
        ("w4a8/channel+conv", "conv+w4a8/channel", True),
        ("w4a8/channel+conv", "w4a8/channel", False),
        ("w4a8/g32", "w4a8/g32+w8a8/channel", False),
        ("asym_w4a8_int8", "w4a8/g32", True),
        ("asym_w4a8_int8+int8_tensorwise", "w4a8/g16+w8a8/channel", True),
        ("quanto+w4a8/g32", "w4a8/g32", False),
        ("none", "w4a8/g32", False),
        ("none", "none", True),
        ("nvfp4", "float8_e4m3fn", False),
    ],
)
def test_two_labels_say_the_same_or_not(one, other, same):
    assert same_quantization(one, other) is same
    assert same_quantization(other, one) is same
    differences = mismatches(Preset(Coefficients.identity(2), SIGMAS, Binding(quantization=one)), Binding(), SIGMAS)
    assert differences == []
    here = Binding(quantization=other)
    differences = mismatches(Preset(Coefficients.identity(2), SIGMAS, Binding(quantization=one)), here, SIGMAS)
    assert [item.what for item in differences] == ([] if same else ["quantization"])


@pytest.mark.parametrize(
    ("label", "name", "scope", "answer"),
    [
        ("w4a8/g32", "w4a8", "g32", True),
        ("w4a8/g32", "w4a8", "", None),
        ("w4a8/g32", "w4a8", "g64", False),
        ("w4a8/g32", "w8a8", "channel", False),
        ("w4a8/channel+conv", "w4a8", "channel", None),
        ("w4a8/channel+conv", "w4a8", "g32", False),
        ("asym_w4a8_int8", "w4a8", "g32", None),
        ("w4a8/g32+w8a8/channel", "w4a8", "g32", None),
        ("none", "w4a8", "g32", False),
    ],
)
def test_a_quantizer_that_has_not_run_can_give_a_label_or_not_or_only_its_network_can_tell(label, name, scope, answer):
    assert may_be(label, name, scope) is answer


def test_what_may_be_never_contradicts_what_is():
    labels = ["w4a8/g32", "w4a8/channel", "conv+w4a8/g32", "w8a8/channel", "asym_w4a8_int8"]
    for label in labels:
        for here in labels[:-1]:
            name, _, scope = here.removeprefix("conv+").partition("/")
            if may_be(label, name, scope) is False:
                assert not same_quantization(label, here)
