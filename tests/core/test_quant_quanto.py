"""The quanto backend: its rounding in our bytes, what it cannot do, and life without the package."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from exactness import same_bits
from optimum import quanto
from torch import Tensor, nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import Format, QuantoBackend, QuantoConv2d, QuantoLinear, label_of, save_quantized
from qsched_core.quant.inspection import is_packed, packed_weight, stored_bytes

CPU = torch.device("cpu")
FOUR, EIGHT = Format("w4a16", 4, 16, 64, symmetric=False), Format("w8a16", 8, 16, 0)
CHANNEL = Format("w4a16", 4, 16, 0, symmetric=False)


def weights(*shape: int, mean: float = 0.02) -> Tensor:
    return mean + 0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def theirs(weight: Tensor, form: Format) -> Tensor:
    """The float weight by way of quanto's own tensors."""
    if form.weight_bits == 8:
        scale = quanto.AbsmaxOptimizer()(weight, quanto.qint8, 0)
        return quanto.quantize_weight(weight, quanto.qint8, 0, scale, optimized=False).dequantize()
    group = form.group_size or None
    scale, shift = quanto.MaxOptimizer()(weight, quanto.qint4, 0, group)
    tensor = quanto.quantize_weight(weight, quanto.qint4, 0, scale, shift, group, optimized=False)
    # Codes in place of nibbles: undoing those is what quanto compiles.
    tensor._data = torch.ops.quanto.quantize_affine(weight, 4, 0, group, scale, shift)
    return tensor.dequantize()


class Net(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.proj_in = nn.Linear(width, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU()) for _ in range(2))
        self.convs_blocks = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)])


@pytest.mark.parametrize("shape", [(96, 128), (5, 192), (32, 64, 3, 3)], ids=str)
@pytest.mark.parametrize("form", [FOUR, CHANNEL, EIGHT], ids=str)
def test_a_weight_is_rounded_as_quanto_does(shape, form):
    kind, layer = (QuantoConv2d, nn.Conv2d(64, 32, 3)) if len(shape) == 4 else (QuantoLinear, nn.Linear(8, 8))
    weight = weights(*shape)
    weight_here, other = kind.like(layer, weight, None, form).dequantized(), theirs(weight, form)
    errors = [((some - weight).norm() / weight.norm()).item() for some in (weight_here, other)]
    # A half scale moves single weights to the next code, and the error of all by little.
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    assert (weight_here - other).norm() < 0.4 * (other - weight).norm()


def test_an_odd_number_of_columns_is_packed_per_channel():
    weight = weights(6, 75)
    layer = QuantoLinear.from_float(weight, None, CHANNEL)
    assert layer.weight.shape == (6, 38 + 4)
    assert (layer.dequantized() - weight).norm() < 0.1 * weight.norm()


@pytest.mark.parametrize("form", [FOUR, EIGHT], ids=str)
@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_a_constant_weight_stays_that(form, value):
    weight = torch.full((8, 64), value)
    assert (QuantoLinear.from_float(weight, None, form).dequantized() - weight).abs().max() <= abs(value) / 127


def test_bytes_are_those_in_memory():
    """4 bits in groups of 64 with two halves each, 8 bits with a half per channel; nothing else is kept."""
    layers = [QuantoLinear.from_float(weights(96, 128), None, form) for form in (FOUR, EIGHT)]
    sizes = [96 * (64 + 2 * 4), 96 * (128 + 2)]
    assert [stored_bytes(layer.weight) for layer in layers] == sizes
    assert [sum(value.nbytes for value in layer.state_dict().values()) for layer in layers] == sizes
    assert [layer.weight.untyped_storage().nbytes() for layer in layers] == sizes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("form", "most"), [(FOUR, 0.1), (EIGHT, 0.01)], ids=str)
def test_layers_compute_in_the_type_of_their_input(dtype, form, most):
    torch.manual_seed(0)
    linear, conv = nn.Linear(128, 96), nn.Conv2d(64, 32, 3, stride=2, padding=1)
    for layer, kind, x in [
        (linear, QuantoLinear, torch.randn(2, 5, 128)),
        (conv, QuantoConv2d, torch.randn(2, 64, 9, 9)),
    ]:
        packed = kind.like(layer, layer.weight.detach(), layer.bias.detach(), form)
        out, full = packed(x.to(dtype)), layer(x)
        assert out.dtype == dtype
        assert 0 < (out.float() - full).norm() / full.norm() < most


def test_copies_state_dicts_and_casts_keep_the_numbers():
    layer, x = QuantoLinear.from_float(weights(96, 128), weights(96), FOUR), torch.randn(3, 128)
    other = QuantoLinear.from_float(torch.zeros(96, 128), torch.zeros(96), FOUR)
    other.load_state_dict(layer.state_dict())
    assert same_bits(other(x), layer(x))
    assert same_bits(copy.deepcopy(layer)(x), layer(x))
    assert same_bits(copy.deepcopy(layer).half().dequantized(), layer.dequantized())


@pytest.mark.parametrize(("name", "text"), [("w4a16", "w4a16/g64/asym"), ("w8a16", "w8a16/channel")])
def test_a_module_is_quantized_and_its_report_says_what_was_done(name, text):
    net, original = Net(), Net()
    report = qs.quantize(net, name, backend="quanto")
    assert label_of(net) == f"conv+quanto+{text}"  # a preset for other rounding differs
    assert {(layer.format, layer.backend, layer.kernel) for layer in report.quantized} == {
        (text, "quanto", "unpacks, float product")
    }
    assert {type(net.get_submodule(layer.name)) for layer in report.quantized} == {QuantoLinear, QuantoConv2d}
    for layer in report.quantized:
        packed, weight = net.get_submodule(layer.name), original.get_submodule(layer.name).weight
        assert is_packed(packed)
        error = (packed_weight(packed) - weight).norm() / weight.norm()
        assert error.item() == pytest.approx(layer.error, rel=1e-5)
        assert layer.bytes_after == stored_bytes(packed.weight)
        assert 0 < layer.error < (0.1 if name == "w4a16" else 0.01)


def test_what_quanto_does_not_take_goes_to_torch():
    net = Net(96)
    report = qs.quantize(net, "w4a16", backend="quanto")
    assert {layer.backend: layer.note for layer in report.quantized if len(layer.shape) == 2} == {
        "torch": "96 inputs are no multiple of the group, 64"
    }
    single = nn.Sequential(nn.Linear(4096, 1))
    assert qs.quantize(single, "w4a16", backend="quanto", include=["*"]).quantized[0].backend == "torch"


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("w4a8", {}, "activation scales are static, use w4a16 or w8a16"),
        ("w8a16", {"group_size": 64}, "one scale per channel"),
        ("w8a16", {"symmetric": False}, "its 8 bits are symmetric"),
    ],
)
def test_what_quanto_cannot_do_is_refused_with_the_reason(refused, name, options, why):
    with refused(QuantizationError, why, backend="quanto"):
        qs.quantize(Net(), name, backend="quanto", **options)


def test_a_plan_of_formats_that_it_has_not_is_not_bent():
    backend = QuantoBackend()
    assert "asymmetric" in backend.missing(Format("w4a16", 4, 16, 64), CPU)
    assert "4 and 8 bits" in backend.missing(Format("w6a16", 6, 16, 0), CPU)


def test_auto_does_not_take_it():
    assert {layer.backend for layer in qs.quantize(Net(), "w4a16").quantized} == {"torch"}


def test_without_the_package_the_error_says_what_to_install(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "optimum.quanto", None)
    with refused(QuantizationError, "it is not installed, pip install optimum-quanto.", backend="quanto"):
        qs.quantize(Net(), "w4a16", backend="quanto")
    assert qs.quantize(Net(), "w4a16").quantized  # the others live


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ModuleNotFoundError("No module named 'ninja'", name="ninja"), "No module named 'ninja'"),
        (OSError("no such lib"), "no such lib"),
    ],
    ids=["a part is missing", "broken"],
)
def test_a_broken_package_does_not_break_the_others(monkeypatch, error, why):
    def broken():
        raise error

    monkeypatch.setattr("qsched_core.quant.backends.quanto._import_quanto", broken)
    assert QuantoBackend().missing(FOUR, CPU) == f"it cannot be imported ({why})"
    assert qs.quantize(Net(), "w4a16").quantized


def test_a_packed_layer_runs_without_the_package(monkeypatch):
    layer, x = QuantoLinear.from_float(weights(96, 128), None, FOUR), torch.randn(3, 128)
    expected = layer(x)
    monkeypatch.setitem(sys.modules, "optimum.quanto.tensor", None)
    monkeypatch.setitem(sys.modules, "optimum.quanto", None)
    assert same_bits(layer(x), expected)


def test_such_a_model_is_not_written_to_a_file(refused, tmp_path):
    net = Net()
    qs.quantize(net, "w4a16", backend="quanto")
    with refused(QuantizationError, "quanto's layers are not written to files", "torch or kitchen backend"):
        save_quantized(net, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())
