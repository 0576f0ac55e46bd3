"""The reference model's pictures: thumbnails, made once, and the distance that a new seed makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from calibration.reference_pictures import ReferencePictures, thumbnails
from qsched_core import Coefficients


def test_a_thumbnail_is_the_mean_of_each_block():
    pictures = torch.rand(2, 512, 1024, 3, generator=torch.Generator().manual_seed(0))
    small = thumbnails(pictures)
    blocks = pictures.reshape(2, 128, 4, 256, 4, 3).mean((2, 4))
    assert torch.allclose(small, blocks, atol=1e-6)
    video = thumbnails(pictures.reshape(1, 2, 512, 1024, 3))
    assert torch.equal(video[0], small)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(256, 256, (256, 256)), (40, 256, (40, 256)), (257, 100, (256, 100)), (300, 600, (128, 256)), (1, 1024, (1, 256))],
)
def test_only_large_pictures_are_made_smaller_and_no_side_grows(height, width, expected):
    assert thumbnails(torch.zeros(1, height, width, 3)).shape == (1, *expected, 3)


class Model:
    """Grey pictures, as bright as their index says; it notes what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, coefficients, indices):
        self.calls.append(list(indices))
        return torch.stack([torch.full((4, 4, 3), 0.01 * index) for index in indices])


def test_a_picture_is_made_once_and_those_with_coefficients_are_not_kept():
    model = Model()
    reference = ReferencePictures(model, [3, 1, 4], 2)
    reference.generate(Coefficients.constant(2, c_x=0.9, c_eps=1.0), [1])
    assert model.calls == [[1]]
    reference.generate(Coefficients.identity(2), [1, 9])
    assert model.calls[1:] == [[1, 9], [3, 4]], "all that is missing at one go"
    assert reference([4, 9, 1])[:, 0, 0, 0].tolist() == pytest.approx([0.04, 0.09, 0.01])
    assert np.allclose(reference.distance(torch.zeros(2, 4, 4, 3), [3, 4]), [0.03, 0.04])
    assert len(model.calls) == 3


def test_another_seed_s_distance_is_between_neighbours_of_one_prompt():
    """Two prompts: 0, 2 and 6 are of the first, 1 and 5 of the second."""
    reference = ReferencePictures(Model(), range(7), 2)
    assert reference.reseed_distance([0, 1, 2, 5, 6], 2) == pytest.approx((0.02 + 0.04 + 0.04) / 3)
    assert math.isnan(reference.reseed_distance([0, 1], 2))
