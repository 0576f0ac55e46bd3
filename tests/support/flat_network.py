"""A small network of flat names, and a run of it: what is observed in tests of observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, TOKENS = 64, 40


class Flat(nn.Module):
    """Flat names, as an exported graph has them: nothing in them says what is a block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time = nn.Linear(WIDTH, WIDTH)
        self.layer_0 = nn.Linear(WIDTH, WIDTH)
        self.layer_1 = nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv2d(WIDTH, WIDTH, (1, 3), padding=(0, 1))  # a third of the columns to round one by one
        self.layer_2 = nn.Linear(WIDTH, WIDTH)
        self.unused = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.layer_0(x) + self.time(time)[:, None]
        x = x + self.layer_1(torch.tanh(x))
        x = x + self.conv(x.transpose(1, 2).unflatten(2, (8, -1))).flatten(2).transpose(1, 2)
        return self.layer_2(x)


def inputs(generator: torch.Generator, pictures: int = 2) -> tuple[Tensor, Tensor]:
    """As networks have them: columns that know of each other, and a time that lies on a few axes."""
    fixed = torch.Generator().manual_seed(9)
    mixing = torch.randn(WIDTH, WIDTH, generator=fixed) / 8 + torch.eye(WIDTH)
    axes = torch.randn(4, WIDTH, generator=fixed)
    x = torch.randn(pictures, TOKENS, WIDTH, generator=generator) @ mixing
    return x, torch.randn(pictures, 4, generator=generator) @ axes


def run_of(net: nn.Module, calls: int = 12):
    def run() -> None:
        generator = torch.Generator().manual_seed(1)
        for _ in range(calls):
            net(*inputs(generator))

    return run
