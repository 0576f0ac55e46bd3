"""Definitions of the nets that score the demo's pictures, and of the sizes that training and use must share.

Layers are torch's own, not the host's: training knows no host, and nets of 2 MB are never offloaded in parts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import Conv2d, Linear

from .scenes import ATTRIBUTES, CARDINALITY
from .vocabulary import CONTEXT_LENGTH, VOCABULARY_SIZE

TEXT_WIDTH = 128
TEXT_CONFIG = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "hidden_act": "quick_gelu",
    "projection_dim": TEXT_WIDTH,
}

FLUX_CONFIG = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 3,
    "attention_head_dim": 128,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT_WIDTH,
    "pooled_projection_dim": TEXT_WIDTH,
    "guidance_embeds": False,
    "axes_dims_rope": (16, 56, 56),
}

DUAL_ENCODER_CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 128, "patch_size": 16, "width": 96, "layers": 3, "head_width": 32, "mlp_ratio": 3.0},
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": VOCABULARY_SIZE,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}


class _Trunk(nn.Sequential):
    """Pictures (B, 3, 128, 128) in [0, 1] -> features (B, 128)."""

    def __init__(self) -> None:
        super().__init__(
            Conv2d(3, 32, 5, stride=2, padding=2),
            nn.GELU(),
            Conv2d(32, 64, 3, stride=2, padding=1),
            nn.GELU(),
            Conv2d(64, 96, 3, stride=2, padding=1),
            nn.GELU(),
            Conv2d(96, 128, 3, stride=2, padding=1),
            nn.GELU(),
            Conv2d(128, 128, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            Linear(128 * 16, 128),
            nn.GELU(),
        )


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


class QualityNet(nn.Module):
    """Pictures (B, 3, 128, 128) in [0, 1] -> quality (B,): 1 is as drawn, 0 is as damaged as training went.

    Damage is local and may be anywhere, so it looks at fine texture and pools: mean and spread of every feature.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texture = nn.Sequential(
            *_convolution(3, 24, 1), *_convolution(24, 48, 2), *_convolution(48, 64, 2), *_convolution(64, 64, 1)
        )
        self.head = nn.Sequential(nn.BatchNorm1d(128), Linear(128, 64), nn.ReLU(), Linear(64, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.texture(pictures * 2 - 1).flatten(2)
        pooled = torch.cat([features.mean(-1), features.std(-1)], dim=1)
        return 1 - self.head(pooled).squeeze(1)


class AttributeNet(nn.Module):
    """Pictures (B, 3, 128, 128) in [0, 1] -> logits per attribute; kept from every search, for honest judgement."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _Trunk()
        self.heads = nn.ModuleList(Linear(128, CARDINALITY[i]) for i in range(len(ATTRIBUTES)))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        features = self.trunk(pictures * 2 - 1)
        return [head(features) for head in self.heads]

    def texture(self, pictures: Tensor) -> Tensor:
        """(B, 192): mean and standard deviation over the picture of the first two layers' channels."""
        first, gelu, second = self.trunk[0], self.trunk[1], self.trunk[2]
        coarse = gelu(first(pictures * 2 - 1))
        maps = (coarse, gelu(second(coarse)))
        return torch.cat([part for m in maps for part in (m.mean((2, 3)), m.std((2, 3)))], dim=1)

    def read(self, pictures: Tensor) -> Tensor:
        """Attributes (B, 6) int64 as seen in the pictures."""
        return torch.stack([logits.argmax(1) for logits in self(pictures)], dim=1)
