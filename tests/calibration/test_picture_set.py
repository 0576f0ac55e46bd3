"""A user's set of pictures: the distance is the definition's, and a set that says nothing is refused."""

from __future__ import annotations

import math

import pytest
import torch
from exactness import same_bits
from torch import Tensor

from calibration.core import CalibrationError
from calibration.metrics.base import Metric
from calibration.metrics.embeddings import CosineScore
from calibration.metrics.picture_set import PictureSet, energy_distance, set_row


def metric() -> CosineScore:
    """Its features are the mean colour and the contrast of each picture."""

    def features(pictures: Tensor) -> Tensor:
        flat = pictures.flatten(1, 2)
        return torch.cat([flat.mean(1), flat.std(1)], 1)

    return CosineScore(features, lambda prompts: torch.ones(len(prompts), 6))


def pictures(count: int, seed: int, shade: float = 0.0) -> Tensor:
    values = torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(seed))
    values[..., 0] *= 1 - shade
    return values


def test_the_values_of_a_set_have_its_distance_as_their_mean():
    """Against the definition, summed pair by pair."""
    features, reference = torch.randn(7, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)

    def mean(a, b, pairs):
        return torch.stack([(a[i] - b[j]).norm() for i, j in pairs]).mean()

    across = mean(features, reference, [(i, j) for i in range(7) for j in range(9)])
    own = mean(features, features, [(i, j) for i in range(7) for j in range(7) if i != j])
    other = mean(reference, reference, [(i, j) for i in range(9) for j in range(9) if i != j])
    torch.testing.assert_close(energy_distance(features, reference).mean(), 2 * across - own - other)


def test_pictures_of_the_sets_kind_are_near_and_others_are_not():
    own = PictureSet([metric()], pictures(40, 1))
    near, far = (set_row(own, row)["distance to set"] for row in (pictures(24, 2), pictures(24, 3, shade=0.5)))
    assert abs(near.mean()) < 3 * near.std() / len(near) ** 0.5
    assert far.mean() > 20 * abs(near.mean())


def test_the_first_metric_that_sees_pictures_tells_and_the_sets_own_features_are_made_once():
    class Blind(Metric):
        pass

    calls = []
    seeing = metric()
    embed = seeing.embed
    seeing.embed = lambda batch: (calls.append(len(batch)), embed(batch))[1]
    own = PictureSet([Blind(), seeing], pictures(20, 1))
    rows = [set_row(own, pictures(6, 2))["distance to set"] for _ in range(2)]
    assert same_bits(*rows)
    assert calls == [6, 8, 8, 4, 6]
    assert own.metric_name == seeing.name


def test_a_broken_picture_leaves_the_others_their_distance():
    own, row = PictureSet([metric()], pictures(20, 1)), pictures(6, 2)
    with_nan = torch.cat([row, torch.full((1, 8, 8, 3), math.nan)])
    values = set_row(own, with_nan)["distance to set"]
    assert values.isnan().tolist() == [False] * 6 + [True]
    torch.testing.assert_close(values[:6], set_row(own, row)["distance to set"])
    assert set_row(own, row[:2])["distance to set"].isnan().all()


@pytest.mark.parametrize(
    ("images", "texts"),
    [
        (pictures(7, 1), ("a set of 7 pictures is too small.", "plug in 8 or more")),
        (
            torch.full((12, 8, 8, 3), 0.5),
            ("this set of 12 has too few different pictures: 1.", "8 or more that are not alike"),
        ),
        (pictures(7, 1)[[0, 1, 2, 3, 4, 5, 6, 0]], ("this set of 8 has too few different pictures: 7.", "8 or more")),
        (torch.rand(9, 8, 8), ("a set of shape (9, 8, 8) is no set of pictures.", "give an IMAGE batch")),
        (torch.full((9, 8, 8, 3), math.nan), ("no set of pictures", "give an IMAGE batch")),
    ],
)
def test_a_set_that_says_nothing_is_refused(refused, images, texts):
    with refused(CalibrationError, *texts):
        PictureSet([metric()], images)


def test_without_a_metric_that_sees_pictures_there_is_no_distance(refused):
    with refused(CalibrationError, "none of these metrics can tell", "unplug picture_set"):
        PictureSet([Metric()], pictures(9, 1))


def test_transparency_is_left_out():
    four = torch.cat([pictures(9, 1), torch.rand(9, 8, 8, 1)], -1)
    assert PictureSet([metric()], four).pictures.shape == (9, 8, 8, 3)
