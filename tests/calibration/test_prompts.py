"""Lists of prompts as people write them."""

from __future__ import annotations

import hashlib
import sys

import pytest

from calibration.prompts import parse_file, parse_sets, read_prompts, select, select_as_given
from qsched_core import CalibrationError, DependencyError

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


def numbered(name: str, count: int) -> list[str]:
    return [f"{name} {i}" for i in range(count)]


def test_a_second_set_comes_last_and_is_the_verdicts():
    made = select(FOUR.splitlines(), [" a  pig ", "a fox", "", "a pig"])
    assert made.texts == ("a cat", "a dog", "a hen", "a cow", "a pig", "a fox")
    assert made.verdict == (4, 5)
    assert made.note == "1 repeated prompts left out"
    assert read_prompts(FOUR).verdict == ()


def test_a_prompt_of_both_sets_is_kept_for_the_verdict_alone():
    made = select([*FOUR.splitlines(), "a pig"], ["a pig", "a fox"])
    assert made.texts == ("a cat", "a dog", "a hen", "a cow", "a pig", "a fox")
    assert made.verdict == (4, 5)
    assert made.note == "1 prompts of both sets kept for the verdict alone"


def test_the_digest_tells_a_second_set_apart():
    six = ["a cat", "a dog", "a hen", "a cow", "a pig", "a fox"]
    assert select(six).digest == hashlib.sha256("\n".join(six).encode()).hexdigest()
    assert (
        len({select(six).digest, select(six[:4], six[4:]).digest, select_as_given(six, six[3:4] + six[:1]).digest}) == 3
    )


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (1000, 1000, (128, 128)),
        (1000, 20, (236, 20)),
        (4, 1000, (4, 252)),
        (200, 56, (200, 56)),
        (150, 200, (128, 128)),
    ],
)
def test_each_set_is_sure_of_half_the_places(first, second, kept):
    made = select(numbered("s", first), numbered("v", second), seed=3)
    assert (len(made) - len(made.verdict), len(made.verdict)) == kept
    assert {made.texts[i][0] for i in made.verdict} == {"v"}
    assert {text[0] for text in made.texts[: -len(made.verdict)]} == {"s"}
    assert [int(text[2:]) for text in made.texts[: kept[0]]] == sorted(int(text[2:]) for text in made.texts[: kept[0]])
    assert made == select(numbered("s", first), numbered("v", second), seed=3)
    for name, given, count in (("to search on", first, kept[0]), ("for the verdict", second, kept[1])):
        assert (f"{count} of {given} prompts {name} drawn with seed 3" in made.note) == (count < given)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (FOUR.splitlines(), ["a pig"], "1 prompts for the verdict, at least 2"),
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
    made = select_as_given(["a", "b", "a", "c", "d", "e", "f"], ["b", " f "])
    assert made.texts == ("a", "b", "a", "c", "d", "e", "f")
    assert made.verdict == (1, 6)
    assert made.note == ""
    assert select_as_given(["a"] * 4).verdict == ()


@pytest.mark.parametrize(
    ("texts", "second", "text"),
    [
        (["a", "b", " ", "c", "d"], [], "text 3 is empty."),
        (["a", "b", "c", "d"], ["e"], "the verdict's 'e' is not among the prompts."),
        (numbered("p", 257), [], "257 conditionings, at most 256"),
        (["a", "b", "c"], [], "3 prompts, at least 4"),
        (["a", "b", "c", "d", "e"], ["a"], "1 prompts for the verdict"),
        (["a", "b", "c", "d", "e"], ["a", "b"], "3 prompts to search on"),
        (["a", "b", "c", "x" * 2001], [], "2001 characters"),
    ],
)
def test_prompts_that_cannot_be_used_as_given_are_refused(refused, texts, second, text):
    with refused(CalibrationError, text):
        select_as_given(texts, second)


FILES = {
    "one.txt": "# animals\na cat\n\n a  dog, sitting\n",
    "one.TXT": "a cat\r\na dog, sitting",
    "only.csv": 'Beschreibung\na cat\n"a dog, sitting"\n',
    "comma.csv": '\n# animals\nid,Prompt,seed\n1,a cat,7\n2,"a dog,\nsitting",8\n\n3, ,9\n4\n',
    "semicolon.csv": "id;TEXT\r\n1;a cat\r\n2;a dog, sitting\r\n",
    "spaces.csv": 'id, "caption"\n1, a cat\n2, "a dog, sitting"',
    "tab.csv": "a\tpositive\n\ta cat\n\ta dog, sitting",
    "two.csv": 'text,prompt\nno,a cat\nno,"a dog, sitting"',
    "number.csv": "#;prompt\n1;a cat\n2;a dog, sitting",
    "one.tsv": "id\tprompt\n1\ta cat\n2\ta dog, sitting",
    "list.yaml": "# animals\n- a cat\n- 'a dog,\n  sitting'\n- ''\n",
    "flow.yml": "[a cat, 'a dog, sitting']",
    "mappings.yaml": "- prompt: a cat\n  seed: 3\n- Caption: |\n    a dog,\n    sitting\n",
    "prompts.yaml": "author: me\nprompts:\n- text: a cat\n- a dog, sitting\nverdict:\n",
    "list.json": '["a cat", "a dog, sitting"]',
    "mappings.json": '{"prompts":\t[{"positive": "a cat"}, {"text": "a\\n\\u0064og, sitting", "caption": "no"}]}',
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_as_people_keep_them(name, encoding):
    assert parse_file(name, FILES[name].encode(encoding)) == ["a cat", "a dog, sitting"]


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", "{}"), ("a.csv", "prompt\n{}"), ("a.yaml", "- {}"), ("a.json", '["{}"]')]
)
def test_any_script_survives_a_file(name, text):
    for prompt in ("ein Käse", "\u4e00\u53ea\u732b", "\U0001f98a in snow", "\u0642\u0637\u0629"):
        assert parse_file(name, text.format(prompt).encode()) == [prompt]
        assert parse_file(name, b"\xfe\xff" + text.format(prompt).encode("utf-16-be")) == [prompt]
    assert parse_file("a.json", b'["\\ud83e\\udd8a in snow"]') == ["\U0001f98a in snow"]


def test_repeated_prompts_of_a_file_are_kept_for_the_selection_to_tell():
    assert parse_file("a.txt", b"a\nb\na") == parse_file("a.json", b'["a", "b", "a"]') == ["a", "b", "a"]


@pytest.mark.parametrize("key", ["verdict", "held_out"])
def test_a_list_file_may_hold_both_sets(refused, key):
    text = f"prompts: [a, b]\n{key}: [{{prompt: c}}, d]"
    assert parse_sets("a.yaml", text.encode()) == (["a", "b"], ["c", "d"])
    assert parse_sets("a.json", f'{{"prompts": ["a"], "{key}": ["c"]}}'.encode()) == (["a"], ["c"])
    with refused(CalibrationError, "'a.yaml' has a second set, too."):
        parse_file("a.yaml", text.encode())


LAUGHS = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {ha: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
BAD_FILES = {
    "another kind": ("a.docx", b"PK", "'a.docx' is no list of prompts."),
    "no suffix": ("prompts", b"a", "'prompts' is no list of prompts."),
    "a long name": ("x" * 200 + ".exe", b"a", "xxx.exe' is no list of prompts."),
    "large": ("a.txt", b"a" * (4 * 1024**2 + 1), "'a.txt' is larger than 4 MiB."),
    "latin": ("a.txt", "Käse".encode("latin-1"), "'a.txt' is no UTF-8 text."),
    "a picture": ("a.txt", b"a\0b", "'a.txt' is no text."),
    "half a utf-16": ("a.csv", b"\xff\xfea", "'a.csv' is no UTF-8 text."),
    "no column": ("a.csv", b"id,words\n1,a", "rename one of its columns: id, words"),
    "no header": ("a.csv", b"a cat, sitting\na dog, running", "rename one of its columns: a cat, sitting"),
    "unquoted comma": ("a.csv", b"# x\nprompt\na cat\na dog, sitting", "more cells than columns in line 4."),
    "open quote": ("a.csv", b'prompt\n"a cat\na dog', "'a.csv' is no table in line 3"),
    "endless cell": ("a.csv", b"prompt\n" + b"x" * 200_000, "is no table in line 2"),
    "text, no list": ("a.yaml", b"a cat", "the file holds a text, not a list."),
    "empty yaml": ("a.yaml", b"", "the file holds nothing, not a list."),
    "other keys": ("a.yaml", b"words: [a]\nseed: 3", "rename one of these: words, seed"),
    "text as prompts": ("a.yaml", b"prompts: a cat", "prompts holds a text, not a list."),
    "text as verdict": ("a.yaml", b"prompts: [a]\nverdict: b", "verdict holds a text, not a list."),
    "a colon": ("a.yaml", b"- a\n- photo: a cat", "entry 2 of the file is a mapping, not a prompt."),
    "yes": ("a.yaml", b"- yes", "entry 1 of the file is yes or no"),
    "a number": ("a.json", b'[{"prompt": 3}]', "entry 1 of the file is a number"),
    "a date": ("a.yaml", b"- 2024-01-01", "entry 1 of the file is no text"),
    "no date": ("a.yaml", b"- 2024-99-99", "'a.yaml' is no YAML"),
    "lists in lists": ("a.yaml", b"- [a, b]", "entry 1 of the file is a list"),
    "broken yaml": ("a.yaml", b"- a\n- 'b\n", "'a.yaml' is no YAML in line"),
    "two documents": ("a.yaml", b"- a\n---\n- b", "'a.yaml' is no YAML in line 2"),
    "broken json": ("a.json", b'["a",\n"b"', "'a.json' is no JSON in line 2."),
    "deep json": ("a.json", b"[" * 1_000_000, "'a.json' is no JSON"),
    "endless number": ("a.json", b"[" + b"1" * 10_000 + b"]", "'a.json' "),
    "deep yaml": ("a.yaml", b"[" * 1_000_000, "'a.yaml' is no plain list in line 1."),
    "deep yaml blocks": ("a.yaml", b"- " * 1_000_000, "'a.yaml' is no plain list in line 1."),
    "a billion laughs": ("a.yaml", LAUGHS.encode(), "'a.yaml' is no plain list in line 2."),
    "merged laughs": ("a.yaml", MERGES.encode(), "'a.yaml' is no plain list in line 2."),
    "itself": ("a.yaml", b"&a [*a]", "'a.yaml' is no plain list in line 1."),
    "an object": ("a.yaml", b"- !!python/object/apply:os.system ['true']", "'a.yaml' is no plain list in line 1."),
    "an empty int": ("a.yaml", b"- !!int ''", "'a.yaml' is no plain list in line 1."),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_cannot_be_read_are_refused(refused, case):
    name, content, text = BAD_FILES[case]
    with refused(CalibrationError, text):
        parse_sets(name, content)


def test_a_yaml_file_of_too_many_values_is_refused_early(refused, monkeypatch):
    """PyYAML would take minutes for 4 MiB of short ones."""
    monkeypatch.setattr("calibration.prompts.MANY", 20)
    assert len(parse_file("a.yaml", b"- a\n" * 10)) == 10
    with refused(CalibrationError, "'a.yaml' holds more than 20 values."):
        parse_file("a.yaml", b"- a\n" * 20)


def test_json_and_text_need_no_yaml(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert parse_file("a.json", b'["a"]') == parse_file("a.txt", b"a") == ["a"]
    with refused(DependencyError, "YAML files need PyYAML.", "pip install pyyaml"):
        parse_file("a.yml", b"- a")
