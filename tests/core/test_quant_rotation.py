"""Rotated layers: the same product, less rounding where columns are loud, no overflow where a float layer has none."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn

from qsched_core.quant import QuantizedLinear, resolve_format
from qsched_core.quant.rotation import _hadamard, rotate, rotate_weight, rotation_of


class Plain(QuantizedLinear):
    rotates = False


def loud(columns: int = 640, rows: int = 96) -> tuple[nn.Linear, Tensor]:
    """A layer with heavy-tailed weights, and inputs (2, 7, K) with a few columns ten times as loud, as transformers
    have them."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(columns, rows)
    tails = torch.randn(rows, columns, 5, generator=generator).square().mean(-1).sqrt()
    layer.weight.data = 0.02 * torch.randn(rows, columns, generator=generator) / tails
    x = torch.randn(2, 7, columns, generator=generator)
    x[..., ::64] *= 10
    return layer, x


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.mark.parametrize("size", [16, 64])
def test_the_matrix_is_a_hadamard_one_without_a_column_for_the_mean(size):
    matrix = size * _hadamard(size, torch.float64, torch.device("cpu"))
    assert same_bits(matrix.abs(), torch.ones(size, size, dtype=torch.float64))
    assert same_bits(matrix @ matrix, size * torch.eye(size, dtype=torch.float64))
    assert matrix.sum(0).abs().max() == size**0.5


@pytest.mark.parametrize(("columns", "size"), [(1280, 64), (640, 64), (320, 64), (48, 16), (100, 0), (8, 0)])
def test_the_product_stays_what_it_was(columns, size):
    assert rotation_of(columns) == size
    x, weight = torch.randn(3, columns).double(), torch.randn(5, columns).double()
    turned = rotate_weight(weight, size)
    # 1e-12: float64 sums in another order.
    assert relative(rotate(x, size) @ turned.T, x @ weight.T) < 1e-12
    assert relative(rotate(turned, size), weight) < 1e-12


@pytest.mark.parametrize(("name", "least"), [("w8a8", 2.0), ("w4a8", 1.2), ("w4a4", 2.0)])
def test_loud_columns_cost_less(name, least):
    """By more than a fifth at W4A8, and by half where activations round more coarsely or weights less."""
    layer, x = loud()
    exact, form = layer(x), resolve_format(name)
    plain, rotated = (kind.like(layer, layer.weight.data, layer.bias.data, form) for kind in (Plain, QuantizedLinear))
    assert relative(plain(x), exact) > least * relative(rotated(x), exact)


def test_a_width_that_no_rotation_divides_is_packed_plainly():
    layer, x = loud(100)
    form = resolve_format("w4a8")
    plain, same = (kind.like(layer, layer.weight.data, layer.bias.data, form) for kind in (Plain, QuantizedLinear))
    assert same_bits(plain.weight, same.weight)
    assert same_bits(plain(x), same(x))


def test_the_weight_it_stands_for_is_told_unrotated():
    layer, _ = loud()
    twin = QuantizedLinear.like(layer, layer.weight.data, None, resolve_format("w8a8"))
    assert relative(twin.dequantized(), layer.weight) < 0.01
    assert same_bits(twin.packed(twin.dequantized()), twin.weight)


@pytest.mark.parametrize("name", ["w4a8", "w4a16"])
def test_float16_tokens_at_its_limit_do_not_overflow(name):
    layer = nn.Linear(64, 32)
    layer.weight.data.fill_(1e-4)
    twin = QuantizedLinear.like(layer, layer.weight.data, layer.bias.data, resolve_format(name)).half()
    out = twin(torch.full((1, 3, 64), 65504.0, dtype=torch.float16))
    assert out.isfinite().all()
    # 3 %: half a step of the scale, all that is left to round in a constant weight.
    assert relative(out, layer(torch.full((1, 3, 64), 65504.0))) < 0.03


def test_it_can_be_used_where_gradients_are_after_inference_mode():
    layer, x = loud()
    twin = QuantizedLinear.like(layer, layer.weight.data, layer.bias.data, resolve_format("w4a16"))
    with torch.inference_mode():
        twin(x)
    x = x.clone().requires_grad_()
    twin(x).sum().backward()
    assert x.grad.isfinite().all()
