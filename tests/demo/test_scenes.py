"""The demo's world: captions and scenes say the same, pictures show what their row says, and the split is honest."""

from __future__ import annotations

import hashlib
import itertools
import math

import pytest
import torch
from exactness import differ, same_bits
from torch import Tensor

from demo import files
from demo.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    CARDINALITY,
    COLOURS,
    FIELDS,
    LAYOUTS,
    PICTURE_SIZE,
    SHAPES,
    SIZES,
    caption_of,
    draw,
    is_held_out,
    parse_caption,
    relevant_attributes,
    sample_scenes,
)

ONE, ROW, COLUMN = range(3)
SMALL, LARGE = range(2)
RED, BLUE = list(COLOURS).index("red"), list(COLOURS).index("blue")
WHITE, BLACK = list(BACKGROUNDS).index("white"), list(BACKGROUNDS).index("black")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(layout=ONE, a=(0, RED, LARGE), b=(0, 0, 0), background=WHITE, order=0) -> Tensor:
    return torch.tensor([layout, *a, *b, background, order])


def covered(row: Tensor, seed: int = 0) -> Tensor:
    """(64, 64) bool: where the picture differs from an empty ground of the same shade."""
    picture = draw(row.unsqueeze(0), seeded(seed))[0]
    ground = torch.tensor(BACKGROUNDS[list(BACKGROUNDS)[row[7]]]).view(3, 1, 1)
    light = torch.linspace(1.04, 0.93, PICTURE_SIZE).view(1, -1, 1)
    return ((picture - (ground * light).clamp(0, 1)).abs().amax(0)) > 0.02


# --- captions


@pytest.mark.parametrize(
    ("row", "caption"),
    [
        (scene(), "a large red circle on a white background"),
        (scene(a=(3, BLUE, SMALL), background=BLACK), "a small blue star on a black background"),
        (
            scene(ROW, (1, RED, LARGE), (2, BLUE, SMALL)),
            "a large red square left of a small blue triangle on a white background",
        ),
        (
            scene(ROW, (1, RED, LARGE), (2, BLUE, SMALL), order=1),
            "a small blue triangle right of a large red square on a white background",
        ),
        (
            scene(COLUMN, (4, RED, LARGE), (5, BLUE, SMALL)),
            "a large red ring above a small blue cross on a white background",
        ),
        (
            scene(COLUMN, (4, RED, LARGE), (5, BLUE, SMALL), order=1),
            "a small blue cross below a large red ring on a white background",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_known_captions(row, caption):
    assert caption_of(row) == caption
    assert same_bits(parse_caption(caption), row)


def test_every_caption_of_one_thing_reads_back():
    rows = [
        scene(ONE, (shape, colour, size), background=ground)
        for shape, colour, size, ground in itertools.product(*map(range, (6, 6, 2, 4)))
    ]
    captions = [caption_of(row) for row in rows]
    assert len(set(captions)) == len(rows) == 288
    assert all(same_bits(parse_caption(caption), row) for caption, row in zip(captions, rows, strict=True))


def test_captions_of_two_things_read_back():
    for row in sample_scenes(1000, seeded()):
        assert same_bits(parse_caption(caption_of(row)), row)


def test_the_lists_agree_with_their_cardinalities():
    sizes = (len(LAYOUTS), *(len(SHAPES), len(COLOURS), len(SIZES)) * 2, len(BACKGROUNDS), 2)
    assert sizes == CARDINALITY
    assert len(FIELDS) == len(CARDINALITY) == len(ATTRIBUTES) + 1


@pytest.mark.parametrize(
    "caption",
    [
        "A Large RED circle on a white background.",
        "  a  large red circle   on a white background ",
        "a large red circle, on a white background",
        "an large red circle on a white background",
    ],
)
def test_captions_as_people_type_them(caption):
    assert same_bits(parse_caption(caption), scene())


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a cat",
        "a large red circle",
        "a large red circle on a pink background",
        "a large pink circle on a white background",
        "a huge red circle on a white background",
        "a large red hexagon on a white background",
        "a red large circle on a white background",
        "a large red circle beside a small blue star on a white background",
        "a large red circle above a small pink star on a white background",
        "two large red circles on a white background",
        "a large red circle on a white background, oil painting",
    ],
)
def test_sentences_outside_the_grammar_are_none(caption):
    assert parse_caption(caption) is None


# --- the split


def test_a_caption_is_held_out_by_its_hash():
    caption = "a large red circle on a white background"
    assert is_held_out(caption) == (hashlib.sha256(caption.encode()).digest()[0] < 26)


def test_one_caption_in_ten_is_held_out():
    rows = torch.stack([torch.randint(n, (4000,), generator=seeded(i)) for i, n in enumerate(CARDINALITY)], dim=1)
    captions = {caption_of(row) for row in rows}
    share = sum(map(is_held_out, captions)) / len(captions)
    # 26 of 256 are 10.2 %; four standard errors of about 3000 captions are 2.2 %.
    assert share == pytest.approx(26 / 256, abs=0.022)


@pytest.mark.parametrize("held_out", [False, True])
def test_samples_are_all_of_one_side(held_out):
    rows = sample_scenes(200, seeded(), held_out=held_out)
    assert rows.shape == (200, 9)
    assert {is_held_out(caption_of(row)) for row in rows} == {held_out}


def test_samples_are_in_range_and_a_third_shows_one_thing():
    rows = sample_scenes(3000, seeded())
    assert (rows >= 0).all()
    assert (rows < torch.tensor(CARDINALITY)).all()
    single = rows[:, 0] == ONE
    # Four standard errors of 3000 draws are 3.4 %.
    assert single.float().mean().item() == pytest.approx(1 / 3, abs=0.035)
    assert (rows[single][:, [4, 5, 6, 8]] == 0).all()
    assert [len(rows[~single][:, i].unique()) for i in range(1, 9)] == list(CARDINALITY[1:])


def test_the_same_seed_samples_the_same():
    assert same_bits(sample_scenes(50, seeded(1)), sample_scenes(50, seeded(1)))
    assert differ(sample_scenes(50, seeded(1)), sample_scenes(50, seeded(2)))


def test_slot_b_is_irrelevant_in_a_picture_of_one_thing():
    mask = relevant_attributes(torch.stack([scene(ONE), scene(ROW), scene(COLUMN)]))
    assert mask.tolist() == [[True] * 4 + [False] * 3 + [True], [True] * 8, [True] * 8]


# --- pictures


def test_pictures_have_their_shape_and_range():
    pictures = draw(sample_scenes(64, seeded()), seeded())
    assert pictures.shape == (64, 3, PICTURE_SIZE, PICTURE_SIZE)
    assert pictures.dtype == torch.float32
    assert (pictures >= 0).all()
    assert (pictures <= 1).all()


def test_the_same_seed_draws_the_same_and_another_moves_it():
    row = scene().unsqueeze(0)
    assert same_bits(draw(row, seeded(1)), draw(row, seeded(1)))
    assert differ(draw(row, seeded(1)), draw(row, seeded(2)))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_corners_show_the_background(background):
    picture = draw(scene(background=list(BACKGROUNDS).index(background)).unsqueeze(0), seeded())[0]
    wanted = torch.tensor(BACKGROUNDS[background])
    # The light falls from 1.04 at the top to 0.93 at the bottom. 1e-6: float32.
    torch.testing.assert_close(picture[:, 0, 0], (wanted * 1.04).clamp(max=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(picture[:, -1, -1], wanted * 0.93, rtol=0, atol=1e-6)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_middle_of_a_disc_shows_its_colour(colour):
    picture = draw(scene(a=(0, list(COLOURS).index(colour), LARGE)).unsqueeze(0), seeded())[0]
    # The paint falls from 1.12 to 0.88: at the middle row, 32 of 63, it is 1.12 - 0.24·32/63.
    wanted = torch.tensor(COLOURS[colour]) * (1.12 - 0.24 * 32 / 63)
    torch.testing.assert_close(picture[:, 32, 32], wanted.clamp(max=1), rtol=0, atol=1e-5)


# Areas in units of radius², from the signed distances by elementary geometry.
AREAS = {
    "circle": math.pi * 0.95**2,
    "square": (2 * 0.82) ** 2,
    "triangle": 3 * math.sqrt(3) * 0.55**2,  # equilateral, inradius 0.55
    "star": 10 * 0.5 * 1.1 * 0.5 * math.sin(math.pi / 5),  # ten triangles from the centre, tip 1.1, notch 0.5
    "ring": math.pi * (0.96**2 - 0.48**2),
    "cross": 2 * 1.9 * 0.6 - 0.6**2,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=SIZES)
def test_every_shape_has_the_area_of_its_formula(shape, size):
    """White on black, so that the sum of the pixels is the area."""
    rows = scene(a=(SHAPES.index(shape), RED, size), background=BLACK).repeat(64, 1)
    covered_pixels = torch.stack([covered(row, seed).sum() for seed, row in enumerate(rows)]).float().mean().item()
    radius = (22.0, 11.0)[size == SMALL]
    # Thresholding counts the antialiased edge as a whole pixel: half a pixel all around, at most 8·radius long.
    expected = AREAS[shape] * radius**2
    assert expected * 0.97 < covered_pixels < expected * 1.03 + 8 * radius


def centre(mask: Tensor) -> tuple[float, float]:
    rows, columns = mask.nonzero(as_tuple=True)
    return columns.float().mean().item(), rows.float().mean().item()


def test_a_is_left_or_above_and_b_right_or_below():
    """Red a and blue b on black: whichever channel is brighter tells them apart."""
    for layout, axis in ((ROW, 0), (COLUMN, 1)):
        for order in (0, 1):
            row = scene(layout, (0, RED, SMALL), (0, BLUE, SMALL), BLACK, order)
            picture = draw(row.unsqueeze(0), seeded())[0]
            red, blue = picture[0] > picture[2] + 0.2, picture[2] > picture[0] + 0.2
            assert centre(red)[axis] < 32 < centre(blue)[axis]
            # The other axis: both in the middle, but for 2 pixels of jitter each.
            assert abs(centre(red)[1 - axis] - centre(blue)[1 - axis]) < 5


def test_one_thing_is_drawn_alone():
    row = scene(ONE, (0, RED, SMALL), (0, BLUE, LARGE), BLACK)
    picture = draw(row.unsqueeze(0), seeded())[0]
    assert not (picture[2] > picture[0] + 0.2).any()


def test_no_thing_is_cut_off_by_the_edge():
    """Else size and place could not be read off the picture. Tips of large stars and triangles may just touch it."""
    for i, row in enumerate(sample_scenes(200, seeded(4))):
        mask = covered(row, seed=i)
        assert mask.any()
        assert max(edge.sum() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])) <= 3


# --- the shipped prompts


def test_the_demos_prompts_were_seen_by_no_net():
    lines = [line for line in files.PROMPTS.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert len(lines) >= 24
    assert [line for line in lines if parse_caption(line) is None or not is_held_out(line)] == []
