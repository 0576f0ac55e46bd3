"""The quick check of products: what each format's error may be, and that the products of this machine keep to it."""

from __future__ import annotations

import pytest
import torch

from qsched_core.quant import FORMATS, TorchBackend
from qsched_core.quant.product_errors import ProductError, product_errors


@pytest.mark.parametrize(
    ("name", "most"),
    [("w3a8", 0.25), ("w4a8", 0.15), ("w4a16", 0.15), ("w4a4", 0.35), ("w6a8", 0.05), ("w8a8", 0.03)],
)
def test_an_error_is_right_below_the_most_of_its_bits(name, most):
    for worst, is_right in ((most * 0.999, True), (most, False), (float("inf"), False)):
        error = ProductError("a", FORMATS[name], 64, errors={1: 0.001, 33: worst})
        assert (error.worst, error.is_right) == (worst, is_right)


def test_no_product_has_no_error():
    assert ProductError("a", FORMATS["w4a8"], 64, out="too narrow").worst == 0.0


def test_the_products_of_every_format_are_right_and_no_better_than_their_bits():
    results = list(product_errors([TorchBackend()], widths=(64, 320)))
    tries = [(name, width) for name in FORMATS for width in (64, 320)]
    assert [(one.form.name, one.inputs) for one in results] == tries
    for one in results:
        assert one.is_right and one.out == "" and set(one.errors) == {1, 33} and one.backend == TorchBackend().name
        # Half as much again is allowed: what a kernel gets wrong must show.
        assert one.worst > (0.003 if one.form.weight_bits == 8 else 0.01)


def test_a_layer_or_a_format_that_a_backend_cannot_have_is_not_tried():
    class Narrow(TorchBackend):
        def missing(self, form, device):
            return "no kernel" if form.name == "w8a8" else ""

        def refusal(self, layer, form, device):
            return "too wide" if layer.in_features > 64 else ""

    results = list(product_errors([Narrow()], formats=("w4a8", "w8a8"), widths=(64, 128), rows=(3,)))
    assert [(one.form.name, one.inputs, one.out) for one in results] == [("w4a8", 64, ""), ("w4a8", 128, "too wide")]
    assert set(results[0].errors) == {3} and results[1].errors is None


def test_the_check_draws_from_no_generator_that_somebody_has_seeded():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (list(product_errors([TorchBackend()], ("w4a8",), (64,), (1,))) for _ in range(2))
    assert torch.equal(torch.rand(3), expected) and first[0].errors == second[0].errors
