"""Score nets of galaxies (Sampson and others; galaxygrad 0.2.1): an MLP mixer over patches of 4 x 4, written anew."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .packages import fetch

PACKAGE = ("galaxygrad", "0.2.1", "56fd8f02de3b025e87f690a494014371391894f2288356288068f9f5e90d8a97")
PATCH, HIDDEN, MIXER, BLOCKS = 4, 64, 512, 4
LAST_TIME = 10.0
"""The diffusion time at which training ends: x = exp(-t / 2) x0 + sqrt(1 - exp(-t)) noise."""


class Mixer(nn.Module):
    def __init__(self, patches: int):
        super().__init__()
        self.patch_in, self.patch_out = nn.Linear(patches, MIXER), nn.Linear(MIXER, patches)
        self.hidden_in, self.hidden_out = nn.Linear(HIDDEN, MIXER), nn.Linear(MIXER, HIDDEN)
        self.patch_norm, self.hidden_norm = nn.LayerNorm((HIDDEN, patches)), nn.LayerNorm((patches, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        """(B, HIDDEN, patches) -> the same."""
        x = x + self.patch_out(self.patch_in(self.patch_norm(x)).relu())
        x = x.transpose(1, 2)
        x = x + self.hidden_out(self.hidden_in(self.hidden_norm(x)).relu())
        return x.transpose(1, 2)


class ScoreNet(nn.Module):
    """Score (B, 1, side, side) of noisy log-brightness at a diffusion time (B,)."""

    def __init__(self, side: int):
        super().__init__()
        self.grid = side // PATCH
        self.conv_in = nn.Conv2d(2, HIDDEN, PATCH, stride=PATCH)
        self.blocks = nn.ModuleList(Mixer(self.grid**2) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm((HIDDEN, self.grid**2))
        self.conv_out = nn.ConvTranspose2d(HIDDEN, 1, PATCH, stride=PATCH)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        plane = (time / LAST_TIME).view(-1, 1, 1, 1).expand_as(x)
        hidden = self.conv_in(torch.cat([x, plane], dim=1)).flatten(2)
        for block in self.blocks:
            hidden = block(hidden)
        return self.conv_out(self.norm(hidden).unflatten(2, (self.grid, self.grid)))


def load(name: str, side: int) -> ScoreNet:
    """``name``: a file of the package without its suffix."""
    net = ScoreNet(side)
    with fetch(*PACKAGE, f"galaxygrad/{name}.eqx").open("rb") as file:
        _read(net, file)
    return net.eval().requires_grad_(False)


def _read(net: ScoreNet, file) -> None:
    """Equinox writes leaf after leaf as ``.npy``, in the order in which its classes name them."""

    def into(*parameters: nn.Parameter) -> None:
        for parameter in parameters:
            parameter.data.copy_(torch.from_numpy(np.load(file, allow_pickle=False)).view_as(parameter))

    into(net.conv_in.weight, net.conv_in.bias)
    # Its transposed convolution runs over a spread-out input: kernels are mirrored, and channels the other way round.
    kernel = torch.from_numpy(np.load(file, allow_pickle=False))
    net.conv_out.weight.data.copy_(kernel.flip(-1, -2).transpose(0, 1))
    into(net.conv_out.bias)
    for block in net.blocks:
        for layer in (block.patch_in, block.patch_out, block.hidden_in, block.hidden_out):
            into(layer.weight, layer.bias)
        for norm in (block.patch_norm, block.hidden_norm):
            into(norm.weight, norm.bias)
    into(net.norm.weight, net.norm.bias)


def denoiser(net: nn.Module):
    """model(x, sigma) -> denoised in VE space: x0 + sigma noise."""

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        time = (1 + sigma.square()).log().view(-1)
        signal = (-time / 2).exp().view(-1, 1, 1, 1)
        variance = 1 - signal.square()
        scaled = x * signal
        return (scaled + variance * net(scaled, time)) / signal

    return model
