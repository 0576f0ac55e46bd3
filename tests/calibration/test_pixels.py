"""Statistics of pictures whose pixels are known."""

from __future__ import annotations

import pytest
import torch

from calibration.metrics.pixels import pixel_statistics


def picture(*pixels: tuple[float, float, float]) -> torch.Tensor:
    """(1, 1, W, 3)"""
    return torch.tensor(pixels, dtype=torch.float64).view(1, 1, -1, 3)


@pytest.mark.parametrize(
    ("pixels", "contrast", "saturation"),
    [
        ([(0.5, 0.5, 0.5)] * 4, 0.0, 0.0),
        # Luminances 0 and 1 in equal parts: deviation 0.5·sqrt(4/3) of a sample of 4.
        ([(0, 0, 0), (1, 1, 1)] * 2, 0.5 * (4 / 3) ** 0.5, 0.0),
        ([(1, 0, 0)] * 4, 0.0, 1.0),
        ([(0.2, 0.5, 0.3), (0.4, 0.4, 0.4)], 0.5**0.5 * abs(0.4 - (0.2 * 0.2126 + 0.5 * 0.7152 + 0.3 * 0.0722)), 0.15),
        # Green weighs ten times as much as blue.
        ([(0, 1, 0), (0, 0, 1)], 0.5**0.5 * (0.7152 - 0.0722), 1.0),
    ],
    ids=["gray", "black and white", "red", "two", "green and blue"],
)
def test_known_answers(pixels, contrast, saturation):
    statistics = pixel_statistics(picture(*pixels))
    # 1e-7: the luminance's weights are decimals.
    assert statistics["contrast"].item() == pytest.approx(contrast, abs=1e-7)
    assert statistics["saturation"].item() == pytest.approx(saturation, abs=1e-7)


def test_one_value_per_picture():
    pictures = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    statistics = pixel_statistics(pictures)
    names = ("contrast", "saturation", "sharpness", "noise")
    assert {name: values.shape for name, values in statistics.items()} == dict.fromkeys(names, (3,))
    # 1e-6: float32 sums in another order.
    assert statistics["contrast"][1].item() == pytest.approx(
        pixel_statistics(pictures[1:2])["contrast"].item(), abs=1e-6
    )


def gray(luminance: torch.Tensor) -> torch.Tensor:
    """(H, W) -> (1, H, W, 3)"""
    return luminance[None, :, :, None].expand(-1, -1, -1, 3)


def test_sharpness_is_the_mean_step_to_the_next_pixel():
    """A ramp that rises 0.1 to the right and not at all downwards: 12 steps of 0.1 and 12 of 0."""
    ramp = torch.arange(4, dtype=torch.float64).expand(4, 4) / 10
    assert pixel_statistics(gray(ramp))["sharpness"].item() == pytest.approx(0.05, abs=1e-12)  # 1e-12: decimals


@pytest.mark.parametrize("deviation", [0.01, 0.05])
def test_noise_is_the_deviation_of_white_noise_whatever_smooth_thing_it_lies_on(deviation):
    generator = torch.Generator().manual_seed(1)
    slope = torch.linspace(0.2, 0.6, 256, dtype=torch.float64).expand(256, 256)
    white = torch.randn(256, 256, generator=generator, dtype=torch.float64) * deviation
    # 3 %: 64 516 overlapping windows estimate a deviation to about 1 %.
    assert pixel_statistics(gray(slope + white))["noise"].item() == pytest.approx(deviation, rel=0.03)
    # 1e-12: a slope leaves nothing but rounding.
    assert pixel_statistics(gray(slope))["noise"].item() == pytest.approx(0.0, abs=1e-12)
    assert pixel_statistics(gray(white[:2]))["noise"].item() == 0.0
