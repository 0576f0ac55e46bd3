"""Pictures of several frames: one index of a calibration may make a video. Scores are averaged over its frames, and
where one picture is shown it is the one in the middle."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .core import CalibrationError

FRAMES = 8
"""Frames of a video that are scored, evenly spread: neighbours say the same, and a study keeps them all in memory."""


def decoded_pictures(output: Tensor, count: int) -> Tensor:
    """What a VAE made of ``count`` latents: (count, H, W, 3), of videos (count, F, H, W, 3) with FRAMES at most.

    Raises:
        CalibrationError: neither pictures nor videos, but sound for example.
    """
    shape = tuple(output.shape)
    if output.ndim not in (4, 5) or shape[-1] < 3 or not len(output) or len(output) % count:
        raise CalibrationError(
            f"the VAE made {shape} of {count} latents: these are no pictures.",
            "plug in an empty latent of a picture or video model, and its VAE",
            shape=shape,
        )
    frames = output.reshape(count, -1, *shape[-3:])
    if frames.shape[1] == 1:
        return frames[:, 0, ..., :3]
    places = torch.linspace(0, frames.shape[1] - 1, min(FRAMES, frames.shape[1])).round().long()
    return frames[:, places.to(frames.device), ..., :3]


def stills(pictures: Tensor) -> Tensor:
    """(B, H, W, 3): pictures as they are, of videos the frame in the middle."""
    return pictures[:, pictures.shape[1] // 2] if pictures.ndim == 5 else pictures


def over_frames(measure: Callable[..., dict[str, Tensor]], *pictures: Tensor) -> dict[str, Tensor]:
    """{name: (B,)} of a measure of pictures, for videos the mean over their frames; NaN where a frame has none."""
    if pictures[0].ndim == 4:
        return measure(*pictures)
    count = pictures[0].shape[1]
    values = measure(*(video.flatten(0, 1) for video in pictures))
    return {name: value.reshape(-1, count).mean(1) for name, value in values.items()}
