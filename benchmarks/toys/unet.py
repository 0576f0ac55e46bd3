"""The noise-predicting toy: a small U-Net on the demo's latents, with Stable Diffusion's schedule."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from demo.networks import TEXT_WIDTH

UNET_CONFIG = {
    "sample_size": 16,
    "in_channels": 16,
    "out_channels": 16,
    "block_out_channels": (64, 128),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 4,  # diffusers' name for the number of heads: 32 of 4 channels took half of the time
    "norm_num_groups": 16,
}

TIMESTEPS = 1000
STUDENT_TIMESTEPS = (999, 749, 499, 249)
"""Where the student's four steps stand: LCM's spacing."""


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(**UNET_CONFIG)


def sigma_table() -> Tensor:
    """Sigmas (1000,) of the timesteps, ascending, in VE space: Stable Diffusion's scaled-linear betas."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64).square()
    signal = torch.cumprod(1 - betas, dim=0)
    return ((1 - signal) / signal).sqrt().float()


def predict_noise(unet: UNet2DConditionModel, x: Tensor, timesteps: Tensor, sigma: Tensor, states: Tensor) -> Tensor:
    """Noise (B, 16, 16, 16) in x = x0 + sigma·noise; ``sigma`` (B, 1, 1, 1), text states (B, 16, 128)."""
    return unet(x / (sigma.square() + 1).sqrt(), timesteps, states, return_dict=False)[0]
