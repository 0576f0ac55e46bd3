"""The packed layer: the same product as with its unpacked weight, and the error that rounded activations add."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsched_core.quant import FORMATS, Format, QuantizedLinear
from qsched_core.quant.layers import quantize_tokens

IN, OUT = 96, 64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(form: Format, bias: bool = True) -> QuantizedLinear:
    return QuantizedLinear.from_float(0.1 * random(OUT, IN), random(OUT, seed=1) if bias else None, form)


# --- activations


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_codes_are_whole_numbers_within_range_and_half_a_step_from_the_token(bits, dtype):
    x = random(2, 5, IN).to(dtype)
    codes, scale = quantize_tokens(x, bits)
    top = 2 ** (bits - 1) - 1
    assert codes.dtype == scale.dtype == dtype
    assert scale.shape == (2, 5, 1)
    assert torch.equal(codes, codes.round())
    assert codes.float().abs().max() <= top  # 128 would be no int8
    # The division is done in the token's own type: in bfloat16 that is up to half a code for the largest ones.
    slack = top * torch.finfo(dtype).eps / 2
    assert (codes.float().abs().amax(-1) >= top - (slack > 0.1)).all()  # every token uses the whole range
    assert ((x.float() - codes.float() * scale.float()).abs() <= scale.float() * (0.5 + slack)).all()


def test_int8_tokens_err_by_less_than_one_percent():
    x = random(64, 512)
    codes, scale = quantize_tokens(x, 8)
    # A normal token's largest of 512 values is about 3.2 sigma: step 3.2/127, error step/√12 = 0.7 %.
    assert 0.005 < ((x - codes * scale).norm() / x.norm()).item() < 0.01


def test_each_token_has_its_own_scale():
    x = random(3, IN)
    x[1] *= 1000
    codes, scale = quantize_tokens(x, 8)
    alone, _ = quantize_tokens(x[:1], 8)
    assert torch.equal(codes[:1], alone)
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
    assert torch.equal(module(x), F.linear(x, module.dequantized(), module.bias))


@pytest.mark.parametrize("name", ["w4a8", "w4a4", "w8a8", "w3a8"])
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
    ("name", "least", "most"), [("w8a8", 0.005, 0.02), ("w4a8", 0.04, 0.12), ("w4a4", 0.08, 0.25), ("w3a8", 0.12, 0.25)]
)
def test_the_output_errs_as_much_as_the_bits_say(name, least, most):
    """Relative to the float layer: about 1, 8, 15 and 17 % for normal weights and tokens; 0 would be no rounding."""
    weight, x = 0.1 * random(OUT, IN), random(64, IN, seed=5)
    exact = x @ weight.T
    made = QuantizedLinear.from_float(weight, None, FORMATS[name])(x)
    assert least < ((made - exact).norm() / exact.norm()).item() < most


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_agrees_with_float32(dtype):
    module, x = layer(FORMATS["w4a8"]), random(5, IN)
    made = module(x.to(dtype))
    assert made.dtype == dtype
    # Rounding of scales, codes' scale and output: four roundings of outputs up to 5; a code may differ by one.
    torch.testing.assert_close(made.float(), module(x), rtol=0, atol=8 * 5 * torch.finfo(dtype).eps)


def test_float16_does_not_overflow_where_a_float_layer_does_not():
    """Regression: codes up to 127 were summed as they are, and 127·0.5·4096 is beyond float16 where 2048 is not."""
    module = QuantizedLinear.from_float(torch.full((8, 4096), 0.5), None, FORMATS["w4a8"])
    made = module(torch.ones(1, 4096, dtype=torch.float16))
    # 0.5 %: scale of the token, scale of the weight and the output are rounded to float16.
    torch.testing.assert_close(made.float(), torch.full((1, 8), 2048.0), rtol=5e-3, atol=0)


def test_float16_takes_the_largest_token_there_is():
    module = QuantizedLinear.from_float(torch.full((8, 64), 0.01), None, FORMATS["w4a8"])
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
    other = QuantizedLinear.from_float(torch.zeros(OUT, IN), torch.zeros(OUT), FORMATS["w4a8"])
    other.load_state_dict(module.state_dict())
    x = random(3, IN)
    assert torch.equal(other(x), module(x))


def test_a_cast_of_the_module_leaves_the_bytes_alone():
    module = layer(FORMATS["w4a8"])
    before = module.weight.clone()
    assert torch.equal(module.half().weight, before)
    assert module.bias.dtype == torch.float16


def test_apply_weight_takes_a_patched_weight_with_the_same_rounded_tokens():
    module = layer(FORMATS["w4a8"])
    x = random(3, IN)
    assert torch.equal(module.apply_weight(x, module.dequantized()), module(x))
    doubled = module.apply_weight(x, 2 * module.dequantized())
    # 1e-5: float32 sums.
    torch.testing.assert_close(doubled - module.bias, 2 * (module(x) - module.bias), rtol=1e-5, atol=1e-5)


def test_it_says_what_it_is():
    assert repr(layer(FORMATS["w4a8"])) == "QuantizedLinear(96, 64, bias=True, w4a8/g32)"
    assert not isinstance(layer(FORMATS["w4a8"]), nn.Linear)
