"""The packed layer: the same product as with its unpacked weight, and the error that rounded activations add.

Without the rotation, which test_quant_rotation.py is about: what is multiplied here can be written down by hand.
"""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn
from torch.nn import functional as F

from qsched_core.quant import FORMATS, Format, QuantizedLinear, layers, products, resolve_format
from qsched_core.quant.tokens import quantize_tokens

IN, OUT = 96, 64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Plain(QuantizedLinear):
    rotates = False


def layer(form: Format, bias: bool = True) -> Plain:
    return Plain.from_float(0.1 * random(OUT, IN), random(OUT, seed=1) if bias else None, form)


# --- activations


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_codes_are_whole_numbers_within_range_and_half_a_step_from_the_token(bits, dtype):
    x = random(2, 5, IN).to(dtype)
    codes, scale = quantize_tokens(x, bits)
    top = 2 ** (bits - 1) - 1
    assert (codes.dtype, scale.dtype) == (dtype, torch.float32)
    assert scale.shape == (2, 5, 1)
    assert same_bits(codes, codes.round())
    assert codes.float().abs().max() <= top  # 128 would be no int8
    # The division is done in the token's own type: in bfloat16 that is up to half a code for the largest ones.
    slack = top * torch.finfo(dtype).eps / 2
    assert (codes.float().abs().amax(-1) >= top - (slack > 0.1)).all()  # every token uses the whole range
    assert ((x.float() - codes.float() * scale.float()).abs() <= scale.float() * (0.5 + slack)).all()


def test_int8_tokens_err_by_less_than_one_percent():
    x = random(64, 512)
    codes, scale = quantize_tokens(x, 8)
    # A normal token's largest of 512 values is about 3.2 sigma: step 3.2/127, error step/sqrt(12) = 0.7 %.
    assert 0.005 < ((x - codes * scale).norm() / x.norm()).item() < 0.01


def test_each_token_has_its_own_scale():
    x = random(3, IN)
    x[1] *= 1000
    codes, scale = quantize_tokens(x, 8)
    alone, _ = quantize_tokens(x[:1], 8)
    assert same_bits(codes[:1], alone)
    assert scale[1] > 100 * scale[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_token_of_zeros_gives_zeros(dtype):
    codes, scale = quantize_tokens(torch.zeros(2, IN, dtype=dtype), 8)
    assert (codes == 0).all()
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()


def test_a_broken_token_stays_visibly_broken():
    """NaN must reach the check of the sampler, and not be rounded to a number."""
    x = random(2, IN)
    x[0, 3] = float("nan")
    out = layer(FORMATS["w4a8"])(x)
    assert torch.isnan(out[0]).all()
    assert torch.isfinite(out[1]).all()


# --- the layer


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_without_activation_bits_it_is_the_linear_of_the_unpacked_weight(bias):
    module = layer(FORMATS["w4a16"], bias)
    x = random(3, 7, IN)
    assert same_bits(module(x), F.linear(x, module.dequantized(), module.bias))


@pytest.mark.parametrize("name", ["w4a8", "w4a4", "w8a8", "w6a8", "w3a8"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_the_product_is_the_one_of_rounded_tokens_and_unpacked_weight(name, bias):
    module = layer(FORMATS[name], bias).double()
    module.weight.data = layer(FORMATS[name]).weight.data  # .double() does not touch bytes; said once more
    x = random(3, 7, IN).double()
    codes, scale = quantize_tokens(x, module.format.activation_bits)
    slow = (codes * scale) @ module.dequantized(torch.float64).T
    slow = slow if module.bias is None else slow + module.bias
    # 1e-12: float64 sums of 96 products in another order.
    torch.testing.assert_close(module(x), slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("w8a8", 0.005, 0.02), ("w6a8", 0.015, 0.04), ("w4a8", 0.04, 0.12), ("w4a4", 0.08, 0.25), ("w3a8", 0.12, 0.25)],
)
def test_the_output_errs_as_much_as_the_bits_say(name, least, most):
    """Relative to the float layer: about 1, 2, 8, 15 and 17 % for normal weights and tokens; 0 would be no rounding."""
    weight, x = 0.1 * random(OUT, IN), random(64, IN, seed=5)
    exact = x @ weight.T
    output = Plain.from_float(weight, None, FORMATS[name])(x)
    assert least < ((output - exact).norm() / exact.norm()).item() < most


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_agrees_with_float32(dtype):
    module, x = layer(FORMATS["w4a8"]), random(5, IN)
    output = module(x.to(dtype))
    assert output.dtype == dtype
    # Rounding of scales, codes' scale and output: four roundings of outputs up to 5; a code may differ by one.
    torch.testing.assert_close(output.float(), module(x), rtol=0, atol=8 * 5 * torch.finfo(dtype).eps)


def test_float16_does_not_overflow_where_a_float_layer_does_not():
    """Regression: codes up to 127 were summed as they are, and 127·0.5·4096 is beyond float16 where 2048 is not."""
    module = Plain.from_float(torch.full((8, 4096), 0.5), None, FORMATS["w4a8"])
    output = module(torch.ones(1, 4096, dtype=torch.float16))
    # 0.5 %: scale of the token, scale of the weight and the output are rounded to float16.
    torch.testing.assert_close(output.float(), torch.full((1, 8), 2048.0), rtol=5e-3, atol=0)


def test_float16_takes_the_largest_token_there_is():
    module = Plain.from_float(torch.full((8, 64), 0.01), None, FORMATS["w4a8"])
    assert torch.isfinite(module(torch.full((1, 64), 65504.0, dtype=torch.float16))).all()


def test_no_tokens_give_no_outputs():
    assert layer(FORMATS["w4a8"])(torch.zeros(0, IN)).shape == (0, OUT)


def test_weight_and_bias_are_kept_frozen_and_travel_in_the_state():
    module = layer(FORMATS["w4a8"])
    assert {name: value.dtype for name, value in module.state_dict().items()} == {
        "weight": torch.uint8,
        "bias": torch.float32,
    }
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False]
    other = Plain.from_float(torch.zeros(OUT, IN), torch.zeros(OUT), FORMATS["w4a8"])
    other.load_state_dict(module.state_dict())
    x = random(3, IN)
    assert same_bits(other(x), module(x))


def test_a_cast_of_the_module_leaves_the_bytes_alone():
    module = layer(FORMATS["w4a8"])
    before = module.weight.clone()
    assert same_bits(module.half().weight, before)
    assert module.bias.dtype == torch.float16


def test_apply_weight_takes_a_patched_weight_with_the_same_rounded_tokens():
    module = layer(FORMATS["w4a8"])
    x = random(3, IN)
    assert same_bits(module.apply_weight(x, module.dequantized()), module(x))
    doubled = module.apply_weight(x, 2 * module.dequantized())
    # 1e-5: float32 sums.
    torch.testing.assert_close(doubled - module.bias, 2 * (module(x) - module.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["w4a8", "w6a8", "w8a8"])
def test_weights_with_a_minimum_are_multiplied_as_unpacked(name):
    module, x = layer(resolve_format(name, symmetric=False)), random(3, IN)
    tokens, scale = quantize_tokens(x, 8)
    slow = (tokens * scale) @ module.dequantized().T + module.bias
    # 1e-5: float32 sums of 96 products in another order.
    torch.testing.assert_close(module(x), slow, rtol=1e-5, atol=1e-5)


# --- the integer product


@pytest.fixture
def integers(monkeypatch):
    """The integer path on the CPU, where it does not pay; and how often it was taken."""
    shapes = []

    def counted(x_codes, w_codes):
        shapes.append(x_codes.shape)
        return products.int8_product(x_codes, w_codes)

    monkeypatch.setattr(layers, "pays", lambda device: True)
    monkeypatch.setattr(layers, "int8_product", counted)
    return shapes


def test_the_product_of_the_largest_codes_is_exact():
    x, w = torch.full((17, 512), 127, dtype=torch.int8), torch.full((8, 512), -128, dtype=torch.int8)
    output = products.int8_product(x, w)
    assert output.dtype == torch.int32
    assert same_bits(output, torch.full((17, 8), -128 * 127 * 512, dtype=torch.int32))


@pytest.mark.parametrize("shape", [(1, 8, 8), (17, 64, 24), (33, 100, 7), (5, 33, 1)])
def test_it_is_the_product_of_whole_numbers(shape):
    rows, inner, outer = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, (rows, inner), generator=generator)
    w = torch.randint(-128, 128, (outer, inner), generator=generator)
    assert same_bits(products.int8_product(x.to(torch.int8), w.to(torch.int8)).long(), x @ w.T)


@pytest.mark.parametrize("fault", ["missing", "refusing", "wrong"])
def test_where_torch_has_no_right_product_there_is_none(monkeypatch, integers, fault):
    def other(x, w):
        if fault == "refusing":
            raise RuntimeError("not implemented for 'Char'")
        return torch.zeros(x.shape[0], w.shape[1], dtype=torch.int32)

    if fault == "missing":
        monkeypatch.delattr(torch, "_int_mm")
    else:
        monkeypatch.setattr(torch, "_int_mm", other)
    products._is_right.cache_clear()
    try:
        codes = torch.ones(32, 32, dtype=torch.int8)
        assert products.int8_product(codes, codes) is None
        module, x = layer(FORMATS["w8a8"]), random(5, IN)
        assert same_bits(module(x), module.apply_weight(x, module.dequantized()))
    finally:
        products._is_right.cache_clear()


@pytest.mark.parametrize(("rows", "inner", "outer"), [(1, 64, 64), (16, 64, 64), (17, 64, 64), (40, 128, 24)])
def test_other_devices_get_the_shapes_that_they_take(monkeypatch, rows, inner, outer):
    """CUDA takes more than 16 rows, and inner and outer sizes in eights. A stand-in: there is no GPU here."""
    monkeypatch.setattr(products, "_is_right", lambda device: True)
    shapes = []

    def product(x, w):
        shapes.append((*x.shape, w.shape[1]))
        return torch.empty(x.shape[0], w.shape[1], dtype=torch.int32, device=x.device)

    monkeypatch.setattr(torch, "_int_mm", product)

    def output(*sizes):
        x, w = (torch.empty(*size, dtype=torch.int8, device="meta") for size in (sizes[:2], (sizes[2], sizes[1])))
        return products.int8_product(x, w)

    assert output(rows, inner, outer).shape == (rows, outer)
    assert shapes == [(max(17, rows), inner, outer)]
    assert output(rows, inner + 4, outer) is None
    assert output(rows, inner, outer + 4) is None
    assert output(0, inner, outer) is None


def test_no_product_where_torch_only_plans():
    codes = torch.empty(32, 32, dtype=torch.int8, device="meta")
    assert products.int8_product(codes, codes) is None


@pytest.mark.parametrize("name", ["w8a8", "w4a8"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(3, 7), (64,), ()], ids=str)
def test_integers_give_what_floats_give(integers, name, bias, shape):
    module, x = layer(resolve_format(name, 0), bias), random(*shape, IN)
    output, floats = module(x), module.apply_weight(x, module.dequantized())
    assert len(integers) == 1
    assert output.shape == floats.shape
    # 1e-5: float32 sums, relative to the outputs' size, which is about 3.
    torch.testing.assert_close(output, floats, rtol=1e-5, atol=1e-5)
    assert ((output - floats).norm() / floats.norm()).item() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_integers_agree_in_every_type(integers, dtype):
    module, x = layer(FORMATS["w8a8"]).to(dtype), random(5, IN).to(dtype)
    output = module(x)
    assert len(integers) == 1
    assert output.dtype == dtype
    floats = module.apply_weight(x, module.dequantized(dtype))
    # Rounding of scales, products and output: four roundings of outputs up to 5.
    torch.testing.assert_close(output, floats, rtol=0, atol=4 * 5 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    "form",
    [
        FORMATS["w4a8"], FORMATS["w4a4"], FORMATS["w4a16"], FORMATS["w6a8"],
        resolve_format("w8a8", 32), resolve_format("w8a8", symmetric=False), resolve_format("w4a4", 0),
    ],
    ids=str,
)  # fmt: skip
def test_only_one_scale_per_channel_and_int8_tokens_are_summed_as_integers(integers, form):
    layer(form)(random(3, IN))
    assert not integers


def test_integers_do_not_overflow_float16_either(integers):
    module = Plain.from_float(torch.full((8, 4096), 0.5), None, FORMATS["w8a8"])
    output = module(torch.ones(1, 4096, dtype=torch.float16))
    # 0.5 %: scale of the token, scale of the weight and the output are rounded to float16.
    torch.testing.assert_close(output.float(), torch.full((1, 8), 2048.0), rtol=5e-3, atol=0)
    assert integers


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_token_stays_broken_as_integers(integers, value):
    x = random(2, IN)
    x[0, 3] = value
    out = layer(FORMATS["w8a8"])(x)
    assert not torch.isfinite(out[0]).any()
    assert torch.isfinite(out[1]).all()


def test_no_tokens_give_no_outputs_as_integers(integers):
    assert layer(FORMATS["w8a8"])(torch.zeros(0, IN)).shape == (0, OUT)


def test_it_says_what_it_is():
    assert repr(layer(FORMATS["w4a8"])) == "Plain(96, 64, bias=True, w4a8/g32)"
    assert not isinstance(layer(FORMATS["w4a8"]), nn.Linear)
