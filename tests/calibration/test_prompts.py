"""Lists of prompts as people write them."""

from __future__ import annotations

import hashlib

import pytest

from calibration.prompts import read_prompts, select, select_as_given
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
    assert read_prompts(text).note == "3 comment lines skipped"


@pytest.mark.parametrize(
    "prompt", ["#1 fan of cats", "#12", "#ff0000 car", "#FFF dress", "#fff", "#abc123, a wall", "#aaaaaa sky", "#0f0"]
)
def test_a_number_or_a_colour_begins_a_prompt(prompt):
    """Regression: the line was taken for a comment, and vanished without a word."""
    prompts = read_prompts(f"{FOUR}\n{prompt}")
    assert prompts.texts[-1] == prompt
    assert prompts.note == ""


@pytest.mark.parametrize(
    "comment", ["# a cat", "#a cat", "#", "##", "#!x", "#facade of a house", "#add more", "#bad one"]
)
def test_other_lines_that_begin_with_a_hash_are_comments_and_counted(comment):
    prompts = read_prompts(f"{FOUR}\n{comment}")
    assert len(prompts) == 4
    assert prompts.note == "1 comment line skipped"


@pytest.mark.parametrize("letter", [*"\u2028\u2029\x85\v\f\x1c\x1d\x1e"], ids=ascii)
def test_only_line_ends_end_a_prompt(letter):
    """Regression: Python's splitlines splits a prompt at eight more characters, which are pasted with texts."""
    prompts = read_prompts(f"a cat,{letter}sitting\n{FOUR}")
    assert prompts.texts[0] == "a cat, sitting"
    assert len(prompts) == 5


def test_more_lines_than_any_list_of_prompts_has_are_refused(refused):
    with refused(CalibrationError, "there are more than 100000 lines of prompts."):
        read_prompts("#\n" * 100_001)


def test_a_hash_inside_a_prompt_is_part_of_it():
    assert "colour #ff0000" in read_prompts(FOUR + "\ncolour #ff0000").texts


def test_notepads_byte_order_mark_is_no_letter():
    """Regression: it became part of the first prompt, and made a prompt of a comment."""
    assert read_prompts("\ufeff" + FOUR).texts[0] == "a cat"
    assert len(read_prompts("\ufeff# animals\n" + FOUR)) == 4


def test_any_script_is_kept():
    texts = ("ein Käse", "\u4e00\u53ea\u732b", "\U0001f98a in snow", "\u0642\u0637\u0629")
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
    prompts = read_prompts(FOUR + "\na dog\n  a   dog \na cat")
    assert prompts.texts == ("a cat", "a dog", "a hen", "a cow")
    assert prompts.note == "3 repeated prompts left out"


def test_the_longest_prompt_is_2000_characters(refused):
    assert len(read_prompts(FOUR + "\n" + "x" * 2000)) == 5
    with refused(CalibrationError, "a prompt has 2001 characters.", start="x" * 80):
        read_prompts(FOUR + "\n" + "x" * 2001)


def test_256_prompts_are_all_kept():
    assert read_prompts(many(256)).texts == tuple(many(256).splitlines())
    assert read_prompts(many(256)).note == ""


def test_256_prompts_with_something_of_their_own_are_all_kept():
    assert len(select_as_given(many(256).splitlines())) == 256


def test_no_seed_is_seed_0():
    texts = many(300).splitlines()
    assert select(texts) == select(texts, seed=0) == read_prompts(many(300), 0) == read_prompts(many(300))


def test_a_longer_list_is_drawn_from_and_said():
    prompts = read_prompts(many(10_000), seed=5)
    assert len(prompts) == len(set(prompts.texts)) == 256
    assert prompts.note == "256 of 10000 prompts drawn with seed 5"
    numbers = [int(text.split()[-1]) for text in prompts.texts]
    assert numbers == sorted(numbers)
    # Drawn from all of it: the first and the last tenth are hit (each missed by chance once in 10^11).
    assert numbers[0] < 1000
    assert numbers[-1] >= 9000


def test_the_same_seed_draws_the_same_prompts():
    assert read_prompts(many(1000), seed=1) == read_prompts(many(1000), seed=1)
    assert read_prompts(many(1000), seed=1).texts != read_prompts(many(1000), seed=2).texts


def test_both_notes_are_given():
    note = "1 repeated prompt left out; 256 of 300 prompts drawn with seed 0"
    assert read_prompts(many(300) + "\nprompt number 7").note == note


def test_the_digest_names_the_list_without_telling_it():
    prompts = read_prompts(FOUR)
    assert prompts.digest == hashlib.sha256(b"a cat\na dog\na hen\na cow").hexdigest()
    assert prompts.digest == read_prompts("# other layout\n\n" + FOUR).digest
    assert prompts.digest != read_prompts(FOUR + "\na pig").digest


def numbered(name: str, count: int) -> list[str]:
    return [f"{name} {i}" for i in range(count)]


def test_a_second_set_comes_last_and_is_the_verdicts():
    prompts = select(FOUR.splitlines(), [" a  pig ", "a fox", "", "a pig"])
    assert prompts.texts == ("a cat", "a dog", "a hen", "a cow", "a pig", "a fox")
    assert prompts.verdict == (4, 5)
    assert prompts.note == "1 repeated prompt left out"
    assert read_prompts(FOUR).verdict == ()


def test_a_prompt_of_both_sets_is_kept_for_the_verdict_alone():
    prompts = select([*FOUR.splitlines(), "a pig"], ["a pig", "a fox"])
    assert prompts.texts == ("a cat", "a dog", "a hen", "a cow", "a pig", "a fox")
    assert prompts.verdict == (4, 5)
    assert prompts.note == "1 prompt of both sets kept for the verdict alone"


def test_the_digest_tells_a_second_set_apart():
    six = ["a cat", "a dog", "a hen", "a cow", "a pig", "a fox"]
    assert select(six).digest == hashlib.sha256("\n".join(six).encode()).hexdigest()
    assert (
        len({select(six).digest, select(six[:4], six[4:]).digest, select_as_given(six, six[3:4] + six[:1]).digest}) == 3
    )


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        (1000, 1000, (128, 128)),
        (1000, 20, (236, 20)),
        (4, 1000, (4, 252)),
        (200, 56, (200, 56)),
        (150, 200, (128, 128)),
    ],
)
def test_each_set_is_sure_of_half_the_places(first, second, counts):
    prompts = select(numbered("s", first), numbered("v", second), seed=3)
    assert (len(prompts) - len(prompts.verdict), len(prompts.verdict)) == counts
    assert {prompts.texts[i][0] for i in prompts.verdict} == {"v"}
    assert {text[0] for text in prompts.texts[: -len(prompts.verdict)]} == {"s"}
    assert [int(text[2:]) for text in prompts.texts[: counts[0]]] == sorted(
        int(text[2:]) for text in prompts.texts[: counts[0]]
    )
    assert prompts == select(numbered("s", first), numbered("v", second), seed=3)
    for name, total, count in (("to search on", first, counts[0]), ("for the verdict", second, counts[1])):
        assert (f"{count} of {total} prompts {name} drawn with seed 3" in prompts.note) == (count < total)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (FOUR.splitlines(), ["a pig"], "1 prompt for the verdict, at least 2"),
        (FOUR.splitlines(), ["a cat", "a dog"], "2 prompts to search on, at least 4"),
        ([], ["a cat", "a dog"], "0 prompts to search on"),
        (FOUR.splitlines(), ["x" * 2001, "y"], "a prompt has 2001 characters."),
        ([*FOUR.splitlines(), "\ud83e"], [], "half a character"),
    ],
    ids=["one verdict", "overlap", "no search", "long", "surrogate"],
)
def test_sets_from_which_nothing_can_be_learnt_are_refused(refused, first, second, text):
    with refused(CalibrationError, text):
        select(first, second)


def test_prompts_with_something_of_their_own_keep_their_places():
    """The same text twice is two prompts: each has another ControlNet picture."""
    prompts = select_as_given(["a", "b", "a", "c", "d", "e", "f"], ["b", " f "])
    assert prompts.texts == ("a", "b", "a", "c", "d", "e", "f")
    assert prompts.verdict == (1, 6)
    assert prompts.note == ""
    assert select_as_given(["a"] * 4).verdict == ()


@pytest.mark.parametrize(
    ("texts", "second", "text"),
    [
        (["a", "b", " ", "c", "d"], [], "text 3 is empty."),
        (["a", "b", "c", "d"], ["e"], "the verdict's 'e' is not among the prompts."),
        (numbered("p", 257), [], "257 conditionings, at most 256"),
        (["a", "b", "c"], [], "3 prompts, at least 4"),
        (["a", "b", "c", "d", "e"], ["a"], "1 prompt for the verdict"),
        (["a", "b", "c", "d", "e"], ["a", "b"], "3 prompts to search on"),
        (["a", "b", "c", "x" * 2001], [], "2001 characters"),
    ],
)
def test_prompts_that_cannot_be_used_as_given_are_refused(refused, texts, second, text):
    with refused(CalibrationError, text):
        select_as_given(texts, second)
