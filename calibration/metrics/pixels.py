"""What pixels say without a net: never optimised, so a drift that scores do not see shows here."""

from __future__ import annotations

from torch import Tensor


def pixel_statistics(pictures: Tensor) -> dict[str, Tensor]:
    """{"contrast", "saturation"}, (B,) each, of pictures (B, H, W, 3) in [0, 1].

    Contrast is the standard deviation of luminance; saturation the mean spread between a pixel's channels.
    """
    luminance = pictures @ pictures.new_tensor([0.2126, 0.7152, 0.0722])
    spread = pictures.amax(-1) - pictures.amin(-1)
    return {"contrast": luminance.flatten(1).std(1), "saturation": spread.flatten(1).mean(1)}
