"""Pictures of several frames: which of them are scored and shown, and what is no picture at all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calibration.core import CalibrationError
from calibration.frames import FRAMES, decoded_pictures, over_frames, stills


def numbered(*shape: int) -> Tensor:
    """(…, H, W, channels): every value of a frame is the frame's number, its channels differ by a tenth."""
    frames = torch.arange(float(torch.tensor(shape[:-3]).prod())).reshape(*shape[:-3], 1, 1, 1)
    return frames.expand(shape) + torch.arange(shape[-1]) / 10


def numbers(pictures: Tensor) -> list:
    return pictures[..., 0, 0, 0].tolist()


@pytest.mark.parametrize("channels", [3, 4])
def test_of_a_long_video_frames_are_taken_evenly_from_the_first_to_the_last(channels):
    videos = decoded_pictures(numbered(2, 33, 4, 5, channels), 2)
    assert videos.shape == (2, FRAMES, 4, 5, 3) and FRAMES == 8
    first = [0, 5, 9, 14, 18, 23, 27, 32]  # i · 32 / 7, rounded
    assert numbers(videos) == [first, [33 + number for number in first]]
    torch.testing.assert_close(videos[0, 0, 0, 0], torch.tensor([0.0, 0.1, 0.2]))


@pytest.mark.parametrize("count", [2, 3, 7, 8])
def test_of_a_short_video_every_frame_is_taken_once(count):
    """Some VAEs put the frames of all videos behind each other."""
    expected = [[float(number) for number in range(start, start + count)] for start in (0, count)]
    assert numbers(decoded_pictures(numbered(2, count, 4, 5, 3), 2)) == expected
    assert numbers(decoded_pictures(numbered(2 * count, 4, 5, 3), 2)) == expected


def test_of_nine_frames_the_middle_one_is_left_out():
    assert numbers(decoded_pictures(numbered(1, 9, 4, 5, 3), 1)) == [[0, 1, 2, 3, 5, 6, 7, 8]]


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 4, 5, 4), (2, 1, 4, 5, 3)], ids=str)
def test_one_frame_is_a_picture_without_its_transparency(shape):
    pictures = decoded_pictures(numbered(*shape), 2)
    assert pictures.shape == (2, 4, 5, 3) and numbers(pictures) == [0, 1]


@pytest.mark.parametrize(
    ("shape", "count"),
    [((2, 4, 5, 2), 2), ((2, 1, 1, 4, 5, 3), 2), ((4, 5, 3), 2), ((0, 4, 5, 3), 2), ((3, 4, 5, 3), 2)],
    ids=str,
)
def test_what_is_no_picture_of_each_latent_is_refused(refused, shape, count):
    with refused(CalibrationError, f"the VAE made {shape} of {count} latents: these are no pictures.", "plug in"):
        decoded_pictures(torch.zeros(shape), count)


@pytest.mark.parametrize(("count", "middle"), [(2, 1), (3, 1), (8, 4)])
def test_of_a_video_the_frame_in_the_middle_is_shown(count, middle):
    assert numbers(stills(numbered(2, count, 4, 5, 3))) == [middle, count + middle]
    assert numbers(stills(numbered(7, 4, 5, 3))) == list(range(7))


def test_a_measure_of_videos_is_the_mean_over_the_frames_of_each():
    videos = numbered(2, 3, 4, 5, 3)
    others = torch.full_like(videos, 10.0)
    others[1, 2] = torch.nan

    def measure(pictures: Tensor, other: Tensor) -> dict[str, Tensor]:
        assert pictures.ndim == other.ndim == 4
        return {"sum": pictures[:, 0, 0, 0] + other[:, 0, 0, 0], "first": pictures[:, 0, 0, 0]}

    values = over_frames(measure, videos, others)
    assert values["first"].tolist() == [1, 4]
    assert values["sum"][0] == 11 and values["sum"][1].isnan()
    assert over_frames(measure, videos[0], others[0])["sum"].tolist() == [10, 11, 12]
