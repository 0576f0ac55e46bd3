"""Lists of prompts as people write them."""

from __future__ import annotations

import hashlib

import pytest

from calibration.prompts import read_prompts
from qsched_core import CalibrationError

FOUR = "a cat\na dog\na hen\na cow"


def many(count: int) -> str:
    return "\n".join(f"prompt number {i}" for i in range(count))


def test_one_prompt_per_line_in_order():
    assert read_prompts(FOUR).texts == ("a cat", "a dog", "a hen", "a cow")
    assert read_prompts(FOUR).note == ""
    assert len(read_prompts(FOUR)) == 4


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_every_kind_of_line_end(end):
    assert read_prompts(FOUR.replace("\n", end) + end).texts == read_prompts(FOUR).texts


def test_blank_lines_comments_and_stray_spaces_are_left_out():
    text = f"\n# animals\n   \n{FOUR}\n\t# more\n  a   red\tfox  \n#\n"
    assert read_prompts(text).texts == ("a cat", "a dog", "a hen", "a cow", "a red fox")
    assert read_prompts(text).note == ""


def test_a_hash_inside_a_prompt_is_part_of_it():
    assert "colour #ff0000" in read_prompts(FOUR + "\ncolour #ff0000").texts


def test_notepads_byte_order_mark_is_no_letter():
    """Regression: it became part of the first prompt, and made a prompt of a comment."""
    assert read_prompts("\ufeff" + FOUR).texts[0] == "a cat"
    assert len(read_prompts("\ufeff# animals\n" + FOUR)) == 4


def test_any_script_is_kept():
    texts = ("ein Käse", "一只猫", "🦊 in snow", "قطة")
    assert read_prompts("\n".join(texts)).texts == texts


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("\n\n# only a comment\n", 0), ("a cat\na dog\na hen", 3), ("a cat\n" * 50 + "a dog\na hen", 3)],
    ids=["empty", "comments", "three", "three distinct"],
)
def test_fewer_than_four_distinct_prompts_are_refused(refused, text, count):
    with refused(CalibrationError, f"{count} prompts, at least 4 are needed.", "one prompt per line"):
        read_prompts(text)


def test_repeated_prompts_are_left_out_and_said():
    made = read_prompts(FOUR + "\na dog\n  a   dog \na cat")
    assert made.texts == ("a cat", "a dog", "a hen", "a cow")
    assert made.note == "3 repeated prompts left out"


def test_the_longest_prompt_is_2000_characters(refused):
    assert len(read_prompts(FOUR + "\n" + "x" * 2000)) == 5
    with refused(CalibrationError, "a prompt has 2001 characters.", start="x" * 80):
        read_prompts(FOUR + "\n" + "x" * 2001)


def test_256_prompts_are_all_kept():
    assert read_prompts(many(256)).texts == tuple(many(256).splitlines())
    assert read_prompts(many(256)).note == ""


def test_a_longer_list_is_drawn_from_and_said():
    made = read_prompts(many(10_000), seed=5)
    assert len(made) == len(set(made.texts)) == 256
    assert made.note == "256 of 10000 prompts drawn with seed 5"
    numbers = [int(text.split()[-1]) for text in made.texts]
    assert numbers == sorted(numbers)
    # Drawn from all of it: the first and the last tenth are hit (each missed by chance once in 10^11).
    assert numbers[0] < 1000
    assert numbers[-1] >= 9000


def test_the_same_seed_draws_the_same_prompts():
    assert read_prompts(many(1000), seed=1) == read_prompts(many(1000), seed=1)
    assert read_prompts(many(1000), seed=1).texts != read_prompts(many(1000), seed=2).texts


def test_both_notes_are_given():
    note = "1 repeated prompts left out; 256 of 300 prompts drawn with seed 0"
    assert read_prompts(many(300) + "\nprompt number 7").note == note


def test_the_digest_names_the_list_without_telling_it():
    made = read_prompts(FOUR)
    assert made.digest == hashlib.sha256(b"a cat\na dog\na hen\na cow").hexdigest()
    assert made.digest == read_prompts("# other layout\n\n" + FOUR).digest
    assert made.digest != read_prompts(FOUR + "\na pig").digest
