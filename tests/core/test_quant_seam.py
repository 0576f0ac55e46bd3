"""Where others add to a packed layer: an input scale, a part in low rank, activation bits of a call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsched_core.quant import (
    FORMATS,
    QuantizedConv2d,
    QuantizedLinear,
    load_quantized,
    quantize,
    restore,
    save_quantized,
)
from qsched_core.quant.branch import LowRank


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(name: str = "w8a8", columns: int = 128) -> QuantizedLinear:
    return QuantizedLinear.from_float(0.1 * random(96, columns), random(96, seed=1), FORMATS[name])


def convolution(name: str = "w8a8") -> QuantizedConv2d:
    return QuantizedConv2d.like(nn.Conv2d(16, 24, 3, padding=1), 0.1 * random(24, 16, 3, 3), random(24), FORMATS[name])


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


LAYERS = {"linear": (linear, (2, 7, 128)), "conv": (convolution, (2, 16, 9, 8))}


@pytest.mark.parametrize("kind", LAYERS)
def test_an_input_scale_is_divided_by_and_is_not_in_the_weight(kind):
    make, shape = LAYERS[kind]
    plain, x = make(), random(*shape, seed=3)
    scale = random(16 if kind == "conv" else 128, seed=4).clamp(-2, 2).mul(0.5).exp()
    columns = scale[:, None, None] if kind == "conv" else scale
    weight = plain.dequantized()
    scaled = make()
    scaled.input_scale = scale
    scaled.weight.data = scaled.packed(weight)
    # 2 %: the weight is rounded to 8 bits once more, with other columns loud; a forgotten factor would be 50 %.
    assert relative(scaled.dequantized(), weight) < 0.02
    assert relative(make().unpacked(scaled.weight), weight * columns) < 0.01
    # 3 %: the inputs as well.
    assert relative(scaled(x), plain(x)) < 0.03
    assert relative(scaled.apply_weight(x, weight), plain(x)) < 0.03
    assert "input_scale" in scaled.state_dict()


def test_low_rank_is_a_part_of_the_weight_that_is_not_rounded():
    layer, x = linear("w4a8"), random(2, 7, 128, seed=3)
    whole = layer.dequantized() + random(96, 4, seed=5) @ random(4, 128, seed=6)
    part = LowRank(random(96, 4, seed=5), random(4, 128, seed=6))
    layer.low_rank = part
    layer.weight.data = layer.packed(whole)
    assert relative(layer.dequantized() - part.weight(), whole - part.weight()) < 0.12  # as four bits err
    assert relative(layer.dequantized(), whole) < 0.01  # most of it is in the part
    assert relative(layer(x), F.linear(x, whole, layer.bias)) < 0.01
    assert sorted(layer.state_dict()) == ["bias", "low_rank.down", "low_rank.up", "weight"]
    assert layer.half().low_rank.up.dtype == torch.float16
    assert layer(x.half()).dtype == torch.float16


def test_the_activation_bits_of_a_call_can_be_set():
    layer, x = linear("w8a8"), random(2, 7, 128, seed=3)
    exact = F.linear(x, layer.dequantized(), layer.bias)
    error = {}
    for bits in (4, 8, 16):
        layer.activation_bits = bits
        error[bits] = relative(layer(x), exact)
    assert error[16] < 1e-6 < error[8] < 0.02 < error[4] < 0.25
    assert layer.format.activation_bits == 8


@pytest.mark.parametrize("name", ["w3a8", "w4a16", "w8a8"])
def test_the_norms_that_rows_had_are_kept_where_packing_changes_them(tmp_path, name):
    network = nn.ModuleDict({"linear": nn.Linear(128, 96), "conv": nn.Conv2d(64, 64, 3)})
    before = {key: layer.weight.detach().flatten(1).norm(dim=1) for key, layer in network.items()}
    quantize(network, name, include=("*",))
    save_quantized(network, tmp_path / "model.safetensors")
    again = nn.ModuleDict({"linear": nn.Linear(128, 96), "conv": nn.Conv2d(64, 64, 3)})
    restore(again, load_quantized(tmp_path / "model.safetensors"))
    for key, norms in before.items():
        shift, ours = again[key].norm_shift, again[key].dequantized().flatten(1).norm(dim=1)
        assert (shift is None) == (name == "w8a8"), "8 bits change a norm by less than matters"
        if shift is not None:
            # float16 holds a shift of 1 % to 1e-5.
            torch.testing.assert_close(ours * (1 + shift.float()), norms, rtol=3e-5, atol=0)
