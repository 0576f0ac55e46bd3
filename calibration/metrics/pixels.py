"""What pixels say without a net: never optimised, so a drift that scores do not see shows here."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_NOISE_MASK = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))
"""Blind to constant, linear and edge-like structure (J. Immerkaer, "Fast noise variance estimation", 1996)."""


def pixel_statistics(pictures: Tensor) -> dict[str, Tensor]:
    """{"contrast", "saturation", "sharpness", "noise"}, (B,) each, of pictures (B, H, W, 3) in [0, 1].

    Contrast is the standard deviation of luminance; saturation the mean spread between a pixel's channels; sharpness
    the mean step of luminance to the next pixel, right and below; noise the standard deviation of white noise that
    would explain what ``_NOISE_MASK`` leaves of the luminance (0 for pictures below 3 x 3).
    """
    luminance = pictures @ pictures.new_tensor([0.2126, 0.7152, 0.0722])
    chroma = pictures.amax(-1) - pictures.amin(-1)
    return {
        "contrast": luminance.flatten(1).std(1),
        "saturation": chroma.flatten(1).mean(1),
        "sharpness": _mean_step(luminance),
        "noise": _noise(luminance),
    }


def _mean_step(luminance: Tensor) -> Tensor:
    steps = [luminance.diff(dim=axis).abs().flatten(1) for axis in (1, 2)]
    return torch.cat(steps, dim=1).mean(1) if luminance[0].numel() > 1 else luminance.new_zeros(len(luminance))


def _noise(luminance: Tensor) -> Tensor:
    if min(luminance.shape[1:]) < 3:
        return luminance.new_zeros(len(luminance))
    left = F.conv2d(luminance.unsqueeze(1), luminance.new_tensor(_NOISE_MASK)[None, None])
    # The mask's weights square to 36; a normal variable's mean magnitude is sqrt(2/pi) of its deviation.
    return left.abs().flatten(1).mean(1) * (math.sqrt(math.pi / 2) / 6)
