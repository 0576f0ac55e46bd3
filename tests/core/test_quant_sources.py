"""Layers that somebody else packed: what counts as one, how many bits it has, and that it is read only where asked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qsched_core.quant as quant
from qsched_core import QuantizationError
from qsched_core.quant.sources import is_layer, weight_bits


class ForeignLinear(nn.Module):
    """A host's Linear over packed weights: no ``nn.Linear`` for Python."""

    def __init__(self, inputs: int, outputs: int, weight: torch.Tensor):
        super().__init__()
        self.in_features, self.out_features, self.bias = inputs, outputs, None
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.float())


def network(weight: torch.Tensor) -> nn.Module:
    root = nn.Module()
    root.blocks = nn.ModuleList([ForeignLinear(weight.shape[1], weight.shape[0], weight)])
    return root


def test_what_has_the_widths_and_the_weight_of_a_linear_layer_is_one():
    layer = ForeignLinear(64, 128, torch.zeros(128, 64))
    assert is_layer(layer, (nn.Linear,)) and is_layer(nn.Linear(3, 2), (nn.Linear,))
    assert not is_layer(layer, (nn.Conv2d,))
    assert not is_layer(ForeignLinear(64, 128, torch.zeros(4, 128, 64)), (nn.Linear,)), "experts are no Linear layer"
    assert not is_layer(nn.Embedding(128, 64), (nn.Linear,))
    packed = quant.QuantizedLinear.from_float(torch.randn(128, 64), None, quant.resolve_format("w4a8"))
    assert not is_layer(packed, (nn.Linear,)), "ours is packed already"


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, 32), (torch.bfloat16, 16), (torch.float8_e4m3fn, 8), (torch.int8, 8)]
)
def test_bits_of_plain_weights(dtype, bits):
    assert weight_bits(torch.zeros(4, 4, dtype=dtype)) == bits


def test_a_weight_is_packed_into_fewer_bits_and_never_into_as_many():
    weight = torch.randn(128, 64, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    for form, count in (("w4a8", 1), ("w6a8", 1), ("w8a8", 0)):
        job = quant.Job.of(form, backend="torch")
        ((twin, report),) = quant.quantized_layers(network(weight), job, lambda name, value: value.float())
        assert (twin is not None) == bool(count)
        assert report.bytes_before == weight.numel()
        assert report.reason == ("" if count else "it has already 8 bits")


def test_a_tensor_class_is_read_only_where_a_host_says_that_it_can():
    kitchen = pytest.importorskip("comfy_kitchen.tensor")
    weight = torch.randn(128, 64, generator=torch.Generator().manual_seed(0))
    packed = kitchen.QuantizedTensor.from_float(weight, "TensorWiseINT8Layout", per_channel=True)
    assert weight_bits(packed) == 8
    root, job = network(packed), quant.Job.of("w4a8", backend="torch")
    with pytest.raises(QuantizationError, match="quantised already"):
        list(quant.quantized_layers(root, job))
    ((twin, report),) = quant.quantized_layers(
        root, job, lambda name, value: value.dequantize(), is_source=lambda layer: isinstance(layer, ForeignLinear)
    )
    assert report.bytes_before == 128 * 64 + 4 * 128, "codes and a scale for each row"
    assert (twin.dequantized() - weight).norm() < 0.1 * weight.norm()
