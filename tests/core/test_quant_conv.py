"""Packed convolutions: the float one with rounded weights, and which of a U-Net's are packed."""

from __future__ import annotations

import math

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn
from torch.nn import functional as F

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import FORMATS, Plan, QuantizedConv2d, QuantizedLinear
from qsched_core.quant.packing import row_bytes

SHAPES = {
    "plain": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "one by one": {"kernel_size": 1},
    "wide": {"kernel_size": (1, 5), "padding": (0, 2), "stride": (2, 1)},
    "dilated, same": {"kernel_size": 3, "dilation": 2, "padding": "same"},
    "grouped": {"kernel_size": 3, "groups": 4},
    "depthwise": {"kernel_size": 3, "groups": 32, "padding": 1},
    "without bias": {"kernel_size": 3, "bias": False},
}


def convolution(**shape) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(32, 64, **shape)


def twin(layer: nn.Conv2d, name: str = "w4a8") -> QuantizedConv2d:
    bias = None if layer.bias is None else layer.bias.detach()
    return QuantizedConv2d.like(layer, layer.weight.detach(), bias, FORMATS[name])


def pictures(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 32, 11, 13, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_it_is_the_float_convolution_with_rounded_weights(shape, name):
    layer = convolution(**SHAPES[shape])
    packed = twin(layer, name)
    output = packed(pictures())
    with torch.no_grad():
        layer.weight.copy_(packed.dequantized())
        assert same_bits(output, layer(pictures()))
    assert packed.weight.dtype == torch.uint8
    assert packed.weight.shape == (64, row_bytes(math.prod(layer.weight.shape[1:]), FORMATS[name]))


@pytest.mark.parametrize(("name", "most"), [("w8a8", 0.01), ("w6a8", 0.03), ("w4a8", 0.11), ("w3a8", 0.25)])
def test_the_error_is_that_of_the_bits(name, most):
    layer = convolution(kernel_size=3)
    error = (twin(layer, name).dequantized() - layer.weight).norm() / layer.weight.norm()
    assert most / 3 < error < most


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_it_computes_in_the_type_of_its_input(dtype):
    layer = convolution(kernel_size=3, padding=1)
    output = twin(layer)(pictures(dtype))
    assert output.dtype == dtype
    full = twin(layer)(pictures())
    assert ((output.float() - full).norm() / full.norm()) < 20 * torch.finfo(dtype).eps


def test_activations_are_left_alone():
    """The same weights, whatever the format says of activations."""
    layer = convolution(kernel_size=3)
    assert same_bits(twin(layer, "w4a8")(pictures()), twin(layer, "w4a16")(pictures()))


def test_a_state_dict_goes_there_and_back():
    one, other = twin(convolution(kernel_size=3)), twin(nn.Conv2d(32, 64, 3))
    other.load_state_dict(one.state_dict())
    assert same_bits(one(pictures()), other(pictures()))
    assert repr(one) == "QuantizedConv2d((64, 32, 3, 3), stride=(1, 1), padding=(0, 0), w4a8/g32)"


class ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(128, width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return x + self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]


class UNet(nn.Module):
    """Put together and named as Stable Diffusion's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time_embed = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 128))
        self.label_emb = nn.Sequential(nn.Sequential(nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 128)))
        self.input_blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 128, 3)), nn.Sequential(ResBlock(128))])
        self.middle_block = nn.Sequential(ResBlock(128), nn.Conv2d(128, 128, 1))
        self.out = nn.Sequential(nn.GroupNorm(8, 128), nn.SiLU(), nn.Conv2d(128, 4, 3))


FLOAT_LAYERS = {
    "time_embed.0": "outside the repeated blocks",
    "time_embed.2": "outside the repeated blocks",
    "label_emb.0.0": "outside the repeated blocks",
    "label_emb.0.2": "outside the repeated blocks",
    "input_blocks.0.0": "it reads or writes the latent",
    "out.2": "it reads or writes the latent",
}
PACKED = (
    "input_blocks.1.0.in_layers.2", "input_blocks.1.0.emb_layers.1", "middle_block.0.in_layers.2",
    "middle_block.0.emb_layers.1", "middle_block.1",
)  # fmt: skip


def test_which_layers_of_a_unet_are_packed():
    report = qs.quantize(UNet())
    assert {layer.name: layer.reason for layer in report.layers} == {**FLOAT_LAYERS, **dict.fromkeys(PACKED, "")}
    assert "2 of 6 Linear layers and 3 of 5 convolutions quantised." in report.text()
    assert "Convolutions round their weights only" in report.text()


@pytest.mark.parametrize(("channels", "reason"), [(16, "it reads or writes the latent"), (32, "")])
def test_a_latent_has_up_to_sixteen_channels(channels, reason):
    """Today's have as many; a network's own layers have more."""
    net = UNet()
    net.input_blocks.extend([nn.Conv2d(channels, 128, 3), nn.Conv2d(128, channels, 3)])
    reasons = {layer.name: layer.reason for layer in qs.quantize(net).layers}
    assert reasons["input_blocks.2"] == reasons["input_blocks.3"] == reason


def test_stock_leaves_convolutions_alone():
    net = UNet()
    report = qs.quantize(net, recipe="stock", backend="torch")
    assert not any(isinstance(module, QuantizedConv2d) for module in net.modules())
    assert sum(isinstance(module, QuantizedLinear) for module in net.modules()) == 2
    assert {len(layer.shape) for layer in report.layers} == {2}
    assert "onvolution" not in report.text()


def test_compact_comes_near_a_quarter():
    """Of the packed layers 4.25 of 16 bits stay; the rest of this small net is a tenth of it."""
    report = qs.quantize(UNet())
    assert 0.28 < report.bytes_after / report.bytes_before < 0.45
    stock = qs.quantize(UNet(), recipe="stock", backend="torch")
    assert stock.bytes_after > 1.5 * report.bytes_after


def test_include_reaches_what_is_kept_and_exclude_wins():
    net = UNet()
    report = qs.quantize(net, include=["*"], exclude=["out*", "time_embed*"])
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons["input_blocks.0.0"] == reasons["label_emb.0.0"] == ""
    assert reasons["out.2"] == reasons["time_embed.0"] == "excluded by the user"


def test_what_cannot_be_packed_is_kept_with_its_reason():
    net = UNet()
    odd = nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect")
    damaged = nn.Conv2d(128, 128, 3)
    with torch.no_grad():
        damaged.weight[5, 3, 1, 1] = float("nan")
    net.input_blocks.extend([odd, damaged, nn.Conv2d(32, 32, 1)])
    reasons = {layer.name: layer.reason for layer in qs.quantize(net).layers}
    assert reasons["input_blocks.2"] == "it pads with something else than zeros"
    assert reasons["input_blocks.3"] == "its weight holds NaN or infinity"
    assert reasons["input_blocks.4"] == "fewer than 4096 weights"


def test_a_packed_convolution_is_not_packed_again(refused):
    net = UNet()
    qs.quantize(net)
    with refused(QuantizationError, "quantised already"):
        qs.quantize(net)


def test_the_rounded_net_still_computes_nearly_the_same():
    x, emb = torch.randn(1, 128, 8, 8), torch.randn(1, 128)
    net = UNet()
    full = net.middle_block[0](x, emb)
    qs.quantize(net, "w8a8")
    output = net.middle_block[0](x, emb)
    assert 0 < (output - full).norm() / full.norm() < 0.01
    assert torch.isfinite(F.relu(output)).all()


def joined_blocks() -> nn.Module:
    """Two blocks as U-Nets have them: a convolution, and a projection that carries the input past it."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(192, 64, 3, padding=1)
            self.past = nn.Conv2d(192, 64, 1)
            self.even = nn.Conv2d(64, 64, 1)
            self.alone = nn.Conv2d(64, 192, 1)  # as an attention's queries, keys and values

        def forward(self, x: Tensor) -> Tensor:
            return self.alone(self.even(self.conv(x) + self.past(x)))

    torch.manual_seed(0)
    return nn.Sequential(nn.ModuleList([Block(), Block()]))


def formats_of(report: qs.QuantReport) -> dict[str, tuple[str, str]]:
    return {layer.name.rpartition(".")[2]: (layer.format, layer.note) for layer in report.layers}


@pytest.mark.parametrize(("form", "wide"), [("w4a8", "w8a8/channel"), ("w3a8", "w8a8/channel"), ("w4a16", "w8a16")])
def test_what_carries_a_sum_past_a_block_gets_eight_bits(form, wide):
    layers = formats_of(qs.quantize(joined_blocks(), form))
    assert layers["past"][0].startswith(wide.partition("/")[0])
    assert layers["past"][1] == "carries a sum past a block: 8 bits"
    for name in ("conv", "even", "alone"):  # no number of channels is changed, or nothing is summed
        assert layers[name][0].startswith(form)
        assert layers[name][1] == ""


def test_it_gets_what_the_user_or_a_study_says():
    assert formats_of(qs.quantize(joined_blocks(), "w4a8", include=["*"]))["past"][0].startswith("w4a8")
    plan = Plan({"0.0.past": FORMATS["w6a8"], "0.1.past": FORMATS["w4a8"]})
    report = qs.quantize(joined_blocks(), "w4a8", plan=plan)
    assert [layer.format[:4] for layer in report.layers if layer.name.endswith("past")] == ["w6a8", "w4a8"]
    wide = formats_of(qs.quantize(joined_blocks(), "w8a8"))["past"]
    assert wide[1] == ""  # as all the others
