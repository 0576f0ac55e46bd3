"""What has no packed form is named with its share of the bytes, and what has one is not."""

from __future__ import annotations

import torch
from torch import nn

import qsched_core.quant as quant


class Experts(nn.Module):
    """A bank of experts as one tensor, as hosts keep them."""

    def __init__(self, count: int, outputs: int, inputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, outputs, inputs, dtype=torch.float16))
        self.bias = nn.Parameter(torch.zeros(count, outputs, dtype=torch.float16))


class Network(nn.Module):
    def __init__(self, experts: int):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(256, 256), nn.Conv2d(32, 32, 3), nn.LayerNorm(256)])
        self.banks = nn.ModuleList([Experts(4, 128, 128) for _ in range(experts)])
        self.words = nn.Embedding(256, 256)


def test_experts_and_embeddings_are_named_with_their_share():
    network = Network(experts=2)
    whole = quant.module_bytes(network)
    banks = 2 * 2 * (4 * 128 * 128 + 4 * 128) / whole
    words = 2 * 256 * 256 / whole
    assert quant.unpackable(network) == [
        f"Not packed, no layer of a known kind: 2 Experts with 3-D weights, {banks:.0%} of the bytes.",
        f"Not packed, no layer of a known kind: 1 Embedding, {words:.0%} of the bytes.",
    ]
    lines = quant.unpackable(network, "stock")
    assert any("1 Conv2d with 4-D weights" in line for line in lines), "stock leaves convolutions as they are"


def test_norms_are_not_worth_a_line():
    network = nn.Module()
    network.blocks = nn.ModuleList([nn.Linear(256, 256), nn.LayerNorm(256)])
    assert quant.unpackable(network) == []
