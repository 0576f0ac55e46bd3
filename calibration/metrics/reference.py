"""How far pictures moved from those of the reference model: shown, never optimised."""

from __future__ import annotations

from torch import Tensor

from ..core import CalibrationError

DISTANCE = "distance to full"
"""The metric's name, in reports and in presets."""


def distance(pictures: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """{"distance to full"}, (B,): root mean square pixel difference, in [0, 1]; lower is nearer.

    Both are (B, H, W, 3) in [0, 1], the same prompt and seed at the same index.

    Raises:
        CalibrationError: the shapes differ.
    """
    if pictures.shape != reference.shape:
        raise CalibrationError(
            f"pictures {tuple(pictures.shape)} and reference {tuple(reference.shape)} differ in shape.",
            "sample both with the same prompts, seeds and size",
        )
    difference = pictures.float() - reference.to(pictures.device).float()
    return {DISTANCE: difference.square().flatten(1).mean(1).sqrt()}
