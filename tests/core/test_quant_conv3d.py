"""Packed convolutions over time: plain ones, and classes of videos that pad by themselves and remember frames."""

from __future__ import annotations

import math

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn

import qsched_core as qs
from qsched_core.quant import FORMATS, QuantizedConv3d, load_quantized, restore, save_quantized
from qsched_core.quant.convolutions import has_own_call
from qsched_core.quant.packing import row_bytes

SHAPES = {
    "plain": {"kernel_size": 3, "padding": 1},
    "over time alone": {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "stride": (2, 1, 1)},
    "grouped, dilated": {"kernel_size": 3, "groups": 4, "dilation": (1, 2, 1)},
    "same, without bias": {"kernel_size": 3, "padding": "same", "bias": False},
}


class Causal(nn.Conv3d):
    """As video VAEs have them: it pads in front alone, and is given the last frames of the call before."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.front = 2 * self.padding[0]
        self.padding = (0, *self.padding[1:])

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        before = x.new_zeros(*x.shape[:2], self.front, *x.shape[3:]) if before is None else before
        return super().forward(torch.cat([before, x], dim=2))


class PastOurs(Causal):
    """Calls torch's forward and not that of the class above it, as SeedVR2's does where memory is short."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.Conv3d.forward(self, nn.functional.pad(x, (0, 0, 0, 0, self.front, 0)))


def layer_of(kind: type[nn.Conv3d] = nn.Conv3d, **shape) -> nn.Conv3d:
    torch.manual_seed(0)
    return kind(16, 32, **(shape or SHAPES["plain"])).requires_grad_(False)


def twin_of(layer: nn.Conv3d, name: str = "w8a16") -> QuantizedConv3d:
    return QuantizedConv3d.like(layer, layer.weight, layer.bias, FORMATS[name])


def rounded(layer: nn.Conv3d, twin: QuantizedConv3d) -> nn.Conv3d:
    layer.weight.copy_(twin.dequantized())
    return layer


def frames(count: int = 5) -> Tensor:
    return torch.randn(2, 16, count, 9, 7, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["w8a16", "w4a16", "w3a8"])
def test_it_is_the_float_convolution_with_rounded_weights(shape, name):
    layer = layer_of(**SHAPES[shape])
    twin = twin_of(layer, name)
    assert twin.weight.shape == (32, row_bytes(math.prod(layer.weight.shape[1:]), FORMATS[name]))
    output = twin(frames())
    assert same_bits(output, rounded(layer, twin)(frames()))


def test_a_class_of_videos_keeps_its_own_call_and_its_class():
    """Its forward pads and remembers; networks ask for it with ``isinstance`` to hand it the frames before."""
    layer = layer_of(Causal)
    twin, other = twin_of(layer), twin_of(layer, "w4a16")
    assert isinstance(twin, Causal)
    assert type(twin) is type(other)
    assert (twin.front, twin.padding) == (2, (0, 1, 1))
    whole = twin(frames(6))
    assert whole.shape == layer(frames(6)).shape
    first, second = frames(6)[:, :, :3], frames(6)[:, :, 3:]
    parts = torch.cat([twin(first), twin(second, first[:, :, -2:])], dim=2)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    assert same_bits(whole, rounded(layer, twin)(frames(6)))


def test_a_class_that_calls_torchs_forward_meets_the_floats_and_not_the_bytes():
    layer = layer_of(PastOurs)
    twin = twin_of(layer)
    output = twin(frames())
    assert same_bits(output, rounded(layer, twin)(frames()))


class Video(nn.Module):
    def __init__(self, kind: type[nn.Conv3d] = Causal) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([kind(32, 32, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        return x


def video_frames() -> Tensor:
    return torch.randn(2, 32, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def test_a_network_of_videos_goes_into_a_file_and_back(tmp_path):
    net = Video()
    full = net(video_frames())
    report = qs.quantize(net, "w8a16")
    assert "0 of 0 Linear layers and 2 of 2 convolutions quantised." in report.text()
    assert report.bytes_after < 0.52 * report.bytes_before
    output = net(video_frames())
    assert 0 < (output - full).norm() / full.norm() < 0.02
    path = tmp_path / "video.safetensors"
    save_quantized(net, path)
    again = Video()
    restore(again, load_quantized(path))
    assert all(isinstance(block, Causal) and isinstance(block, QuantizedConv3d) for block in again.blocks)
    assert same_bits(again(video_frames()), output)


def driven(net: nn.Module):
    generator = torch.Generator().manual_seed(3)

    def run() -> None:
        for _ in range(4):
            net(torch.randn(1, 32, 4, 8, 8, generator=generator.manual_seed(3)))

    return run


def test_plain_ones_are_fitted_to_their_patches():
    net = Video(nn.Conv3d).requires_grad_(False)
    observation = qs.observe(net, driven(net))
    rows = observation.layers["blocks.0"].judged
    assert rows.shape[1:] == (32, 3, 3, 3)
    # Every patch is one of the input's: what the layer makes of it is one of its outputs.
    first = net.blocks[0]
    outputs = (
        first(torch.randn(1, 32, 4, 8, 8, generator=torch.Generator().manual_seed(3))).movedim(1, -1).flatten(0, 3)
    )
    ours = rows.float().flatten(1) @ first.weight.flatten(1).t() + first.bias
    assert (torch.cdist(ours[:8].double(), outputs.double()).amin(1) < 1e-3).all()
    report = qs.quantize(net, "w4a16", observation=observation, include=["*"])
    assert all(layer.fit.nearest is not None for layer in report.quantized)
    twin_report = qs.quantize(Video(nn.Conv3d), "w4a16", include=["*"])
    assert len(twin_report.quantized) == len(report.quantized) == 2


def test_classes_with_a_call_of_their_own_are_rounded_to_nearest():
    """What their weight meets is not what they are called with: no input of theirs tells how to round."""
    net = Video().requires_grad_(False)
    net.blocks.append(nn.Conv3d(32, 32, 1))
    observation = qs.observe(net, driven(net))
    assert list(observation.layers) == ["blocks.2"]
    report = qs.quantize(net, "w4a16", observation=observation, include=["*"])
    assert "Rounded to nearest 2: its class has a call of its own." in report.text()


class Reads(nn.Module):
    """Sums its kernel over time where there is one frame, as CogVideoX's does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(32, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv3d(x, self.conv.weight.sum(2, keepdim=True), self.conv.bias)


class Holds(nn.Conv2d):
    """A convolution with another in it, as Stable Video Diffusion's decoder has."""

    def __init__(self) -> None:
        super().__init__(32, 32, 3)
        self.time = nn.Conv3d(32, 32, 3)


def test_what_the_network_does_more_with_than_call_is_kept():
    net = nn.ModuleDict({"blocks": nn.ModuleList([Reads(), Holds(), nn.Conv3d(32, 32, 3)])})
    reasons = {layer.name: layer.reason for layer in qs.quantize(net, "w8a16").layers}
    more = "its network does more with it than call it"
    assert reasons == {"blocks.0.conv": more, "blocks.1": more, "blocks.1.time": "", "blocks.2": ""}
    assert not has_own_call(nn.Conv3d(1, 1, 1))
