"""The demo's world: captions and scenes say the same, pictures show what their row says, and the split is honest."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import torch
from exactness import differ, same_bits
from torch import Tensor

from demo import files
from demo.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    CARDINALITY,
    CENTRES,
    FIELDS,
    LAYOUTS,
    PICTURE_SIZE,
    SIZES,
    caption_of,
    draw,
    is_held_out,
    parse_caption,
    places,
    relevant_attributes,
    sample_scenes,
)
from demo.things import THINGS, drawings

ONE, ROW, COLUMN = range(3)
SMALL, LARGE = range(2)
APPLE, CAR, DOG = (THINGS.index(word) for word in ("apple", "car", "dog"))
WHITE, NIGHT = list(BACKGROUNDS).index("white"), list(BACKGROUNDS).index("night")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(layout=ONE, a=(APPLE, LARGE), b=(0, 0), background=WHITE, order=0) -> Tensor:
    return torch.tensor([layout, *a, *b, background, order])


def pictures_of(*rows: Tensor, seed: int = 0) -> Tensor:
    """One picture a row, all in the same light."""
    return torch.cat([draw(row.unsqueeze(0), seeded(seed)) for row in rows])


# --- captions


@pytest.mark.parametrize(
    ("row", "caption"),
    [
        (scene(), "a large apple on a white background"),
        (scene(a=(DOG, SMALL), background=NIGHT), "a small dog on a night background"),
        (scene(ROW, (APPLE, LARGE), (CAR, SMALL)), "a large apple left of a small car on a white background"),
        (scene(ROW, (APPLE, LARGE), (CAR, SMALL), order=1), "a small car right of a large apple on a white background"),
        (scene(COLUMN, (DOG, LARGE), (CAR, SMALL)), "a large dog above a small car on a white background"),
        (scene(COLUMN, (DOG, LARGE), (CAR, SMALL), order=1), "a small car below a large dog on a white background"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_known_captions(row, caption):
    assert caption_of(row) == caption
    assert same_bits(parse_caption(caption), row)


def test_every_caption_of_one_thing_reads_back():
    counts = (len(THINGS), len(SIZES), len(BACKGROUNDS))
    rows = [
        scene(ONE, (thing, size), background=ground) for thing, size, ground in itertools.product(*map(range, counts))
    ]
    captions = [caption_of(row) for row in rows]
    assert len(set(captions)) == len(rows) == len(THINGS) * 2 * 6
    assert all(same_bits(parse_caption(caption), row) for caption, row in zip(captions, rows, strict=True))


def test_captions_of_two_things_read_back():
    for row in sample_scenes(1000, seeded()):
        assert same_bits(parse_caption(caption_of(row)), row)


def test_the_lists_agree_with_their_cardinalities():
    sizes = (len(LAYOUTS), *(len(THINGS), len(SIZES)) * 2, len(BACKGROUNDS), 2)
    assert sizes == CARDINALITY
    assert len(FIELDS) == len(CARDINALITY) == len(ATTRIBUTES) + 1


@pytest.mark.parametrize(
    "caption",
    [
        "A Large APPLE on a white background.",
        "  a  large apple   on a white background ",
        "a large apple, on a white background",
        "an large apple on a white background",
    ],
)
def test_captions_as_people_type_them(caption):
    assert same_bits(parse_caption(caption), scene())


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "an apple",
        "a large apple",
        "a large apple on a purple background",
        "a large unicorn on a white background",
        "a huge apple on a white background",
        "a large red apple on a white background",
        "an apple large on a white background",
        "a large apple beside a small car on a white background",
        "a large apple above a small unicorn on a white background",
        "two large apples on a white background",
        "a large apple on a white background, oil painting",
    ],
)
def test_sentences_outside_the_grammar_are_none(caption):
    assert parse_caption(caption) is None


# --- the split


def test_a_caption_is_held_out_by_its_hash():
    caption = "a large apple on a white background"
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
    assert rows.shape == (200, len(FIELDS))
    assert {is_held_out(caption_of(row)) for row in rows} == {held_out}


def test_samples_are_in_range_and_a_third_shows_one_thing():
    rows = sample_scenes(3000, seeded())
    assert (rows >= 0).all()
    assert (rows < torch.tensor(CARDINALITY)).all()
    single = rows[:, 0] == ONE
    # Four standard errors of 3000 draws are 3.4 %.
    assert single.float().mean().item() == pytest.approx(1 / 3, abs=0.035)
    assert (rows[single][:, [3, 4, 6]] == 0).all()
    assert [len(rows[~single][:, i].unique()) for i in range(1, 7)] == list(CARDINALITY[1:])


def test_the_same_seed_samples_the_same():
    assert same_bits(sample_scenes(50, seeded(1)), sample_scenes(50, seeded(1)))
    assert differ(sample_scenes(50, seeded(1)), sample_scenes(50, seeded(2)))


def test_slot_b_is_irrelevant_in_a_picture_of_one_thing():
    mask = relevant_attributes(torch.stack([scene(ONE), scene(ROW), scene(COLUMN)]))
    assert mask.tolist() == [[True] * 3 + [False] * 2 + [True], [True] * 6, [True] * 6]


# --- pictures


def test_pictures_have_their_shape_and_range():
    pictures = draw(sample_scenes(64, seeded()), seeded())
    assert pictures.shape == (64, 3, PICTURE_SIZE, PICTURE_SIZE)
    assert pictures.dtype == torch.float32
    assert (pictures >= 0).all()
    assert (pictures <= 1).all()


def test_the_same_seed_draws_the_same_and_another_turns_the_light():
    row = scene().unsqueeze(0)
    assert same_bits(draw(row, seeded(1)), draw(row, seeded(1)))
    assert differ(draw(row, seeded(1)), draw(row, seeded(2)))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_border_shows_the_background(background):
    """Its mean over the border is the background's colour: the light only tilts."""
    picture = pictures_of(scene(background=list(BACKGROUNDS).index(background)))[0]
    border = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], dim=1).mean(1)
    torch.testing.assert_close(border, torch.tensor(BACKGROUNDS[background]), rtol=0.03, atol=0)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=SIZES)
def test_where_a_drawing_is_solid_its_colours_stand_and_where_it_is_clear_the_ground_does(size):
    row = scene(a=(DOG, size))
    picture, empty = pictures_of(row)[0], pictures_of(scene(a=(DOG, SMALL)), seed=0)[0]
    [(thing, x, y, width)] = places(row.tolist())
    drawing, part = drawings(width)[thing], picture[:, y : y + width, x : x + width]
    solid, clear = drawing[3] == 1, drawing[3] == 0
    assert solid.any()
    assert clear.any()
    assert same_bits(part[:, solid], drawing[:3, solid])
    # Outside of the drawing both pictures have the same ground, whatever the size.
    assert same_bits(picture[:, :16], empty[:, :16])


def test_a_is_left_or_above_and_b_right_or_below():
    for layout, axis in ((ROW, 0), (COLUMN, 1)):
        for order in (0, 1):
            (_, *a, wide_a), (_, *b, wide_b) = places(scene(layout, (APPLE, SMALL), (CAR, LARGE), order=order).tolist())
            assert a[axis] + wide_a < b[axis]
            assert a[1 - axis] + wide_a / 2 == b[1 - axis] + wide_b / 2


def test_a_large_thing_is_larger_than_a_small_one_in_every_layout():
    for layout in (ONE, ROW, COLUMN):
        small = places(scene(layout, (APPLE, SMALL), (APPLE, SMALL)).tolist())
        large = places(scene(layout, (APPLE, LARGE), (APPLE, LARGE)).tolist())
        assert all(b[3] >= 1.4 * a[3] for a, b in zip(small, large, strict=True))


def test_one_thing_is_drawn_alone():
    assert same_bits(pictures_of(scene(b=(CAR, LARGE))), pictures_of(scene()))


def test_things_stand_apart_and_inside_the_picture():
    for row in sample_scenes(200, seeded(4)):
        boxes = [(x, y, x + width, y + width) for _, x, y, width in places(row.tolist())]
        assert all(0 <= edge <= PICTURE_SIZE for box in boxes for edge in box)
        for (left, top, right, bottom), (left2, top2, right2, bottom2) in itertools.combinations(boxes, 2):
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top


def test_a_thing_stands_the_same_in_the_grid_of_tokens_wherever_it_is():
    assert all(x % 16 == 0 and y % 16 == 0 for layout in CENTRES for x, y in layout)


# --- the shipped prompts


def test_the_demos_prompts_were_seen_by_no_net():
    lines = [line for line in files.PROMPTS.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert len(lines) >= 24
    assert [line for line in lines if parse_caption(line) is None or not is_held_out(line)] == []
