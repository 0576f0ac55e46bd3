"""Files of prompts as people keep them, and as those make them who want to stall the server."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from benchmarks.attack.hostile_prompts import HOSTILE
from calibration import prompt_lines
from calibration.prompt_files import MAX_FILE_BYTES, PromptTexts, parse_file, parse_sets, read_lines
from qsched_core import CalibrationError, DependencyError

FILES = {
    "one.txt": "# animals\na cat\n\n a  dog, sitting\n",
    "one.TXT": "a cat\r\na dog, sitting",
    "only.csv": 'Prompt\na cat\n"a dog, sitting"\n',
    "bare.csv": 'a cat\n"a dog, sitting"\n',
    "quoted.csv": '"a cat"\n"a dog, sitting"\n',
    "bare.tsv": "a cat\na dog, sitting\n",
    "excel.csv": "sep=;\r\nid;prompt\r\n1;a cat\r\n2;a dog, sitting\r\n",
    "tab sep.csv": "sep=\t\nid\tprompt\n1\ta cat\n2\ta dog, sitting",
    "quoted sep.csv": '"sep=;"\nprompt;id\na cat;1\na dog, sitting;2',
    "bare sep.csv": "SEP=|\na cat\na dog, sitting",
    "mixed.csv": 'id;"a, b";prompt\n1;2;a cat\n1;2;a dog, sitting',
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
    assert parse_file(name, FILES[name].encode(encoding)).texts == ["a cat", "a dog, sitting"]


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", "{}"), ("a.csv", "prompt\n{}"), ("a.yaml", "- {}"), ("a.json", '["{}"]')]
)
def test_any_script_survives_a_file(name, text):
    for prompt in ("ein Käse", "\u4e00\u53ea\u732b", "\U0001f98a in snow", "\u0642\u0637\u0629"):
        assert parse_file(name, text.format(prompt).encode()).texts == [prompt]
        assert parse_file(name, b"\xfe\xff" + text.format(prompt).encode("utf-16-be")).texts == [prompt]
    assert parse_file("a.json", b'["\\ud83e\\udd8a in snow"]').texts == ["\U0001f98a in snow"]


def test_repeated_prompts_of_a_file_are_kept_for_the_selection_to_tell():
    for name, content in (("a.txt", b"a\nb\na"), ("a.json", b'["a", "b", "a"]')):
        assert parse_file(name, content).texts == ["a", "b", "a"]


@pytest.mark.parametrize("key", ["verdict", "held_out"])
def test_a_list_file_may_hold_both_sets(refused, key):
    text = f"prompts: [a, b]\n{key}: [{{prompt: c}}, d]"
    assert parse_sets("a.yaml", text.encode())[:2] == (["a", "b"], ["c", "d"])
    assert parse_sets("a.json", f'{{"prompts": ["a"], "{key}": ["c"]}}'.encode())[:2] == (["a"], ["c"])
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
    "no column": ("a.csv", b"id,words\n1,a", "Fix: rename one of its columns: id, words"),
    "no header": ("a.csv", b"a cat, sitting\na dog, running", "Fix: rename one of its columns: a cat, sitting"),
    "unquoted comma": ("a.csv", b"# x\nprompt\na cat\na dog, sitting", "more cells than columns in line 4."),
    "open quote": ("a.csv", b'prompt\n"a cat\na dog', "'a.csv' is no table in line 3"),
    "endless cell": ("a.csv", b"prompt\n" + b"x" * 200_000, "is no table in line 2"),
    "text, no list": ("a.yaml", b"a cat", "the file holds a text, not a list."),
    "empty yaml": ("a.yaml", b"", "the file holds nothing, not a list."),
    "other keys": ("a.yaml", b"words: [a]\nseed: 3", "Fix: rename one of these: words, seed"),
    "text as prompts": ("a.yaml", b"prompts: a cat", "prompts holds a text, not a list."),
    "text as verdict": ("a.yaml", b"prompts: [a]\nverdict: b", "verdict holds a text, not a list."),
    "a colon": ("a.yaml", b"- a\n- photo: a cat", "entry 2 of the file is a mapping, not a prompt."),
    "yes": ("a.yaml", b"- yes", "entry 1 of the file is yes or no"),
    "a number": ("a.json", b'[{"prompt": 3}]', "entry 1 of the file is a number"),
    "a date": ("a.yaml", b"- 2024-01-01", "entry 1 of the file is no text"),
    "no date": ("a.yaml", b"- 2024-99-99", "entry 1 of the file is no text"),
    "sexagesimals": ("a.yaml", b"- 1:1:1:1:1:1:1:1", "entry 1 of the file is a number"),
    "a merge": ("a.yaml", b"prompts: [a]\n<<: {verdict: [b]}\n- c", "'a.yaml' is no YAML"),
    "a name twice": ("a.yaml", b"prompts: [a]\nprompts: [b]", "'a.yaml' has two values named 'prompts'."),
    "a json name twice": ("a.json", b'{"prompts": ["a"], "prompts": ["b"]}', "has two values named 'prompts'."),
    "a list as a name": ("a.yaml", b"? [a]\n: b", "'a.yaml' has a list for a name."),
    "a long first line": ("a.csv", b"," * 100_001, "'a.csv' has a first line of 100001 characters."),
    "many lines": ("a.txt", b"a\n" * 100_001, "'a.txt' holds more than 100000 lines."),
    "many rows": ("a.csv", b"a\n" * 100_001, "'a.csv' holds more than 100000 rows."),
    "many entries": ("a.json", b"[" + b'"",' * 100_000 + b'""]', "'a.json' holds more than 100000 prompts."),
    "many values": ("a.yaml", b"- a\n" * 100_001, "'a.yaml' holds more than 100000 values."),
    "lists in lists": ("a.yaml", b"- [a, b]", "entry 1 of the file is a list"),
    "broken yaml": ("a.yaml", b"- a\n- 'b\n", "'a.yaml' is no YAML in line"),
    "two documents": ("a.yaml", b"- a\n---\n- b", "'a.yaml' is no YAML in line 2: a second document."),
    "broken json": ("a.json", b'["a",\n"b"', "'a.json' is no JSON in line 2."),
    "deep json": ("a.json", b"[" * 1_000_000, "'a.json' is no JSON"),
    "endless number": ("a.json", b"[" + b"1" * 10_000 + b"]", "entry 1 of the file is a number"),
    "deep yaml": ("a.yaml", b"[" * 1_000_000, "'a.yaml' is no YAML in line 1."),
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


@pytest.mark.parametrize(("name", "text"), [("a.txt", "a\n"), ("a.csv", "a\n"), ("a.tsv", "a\n"), ("a.json", '"a",')])
def test_as_many_prompts_as_may_be_are_read(name, text):
    """One more is in ``BAD_FILES``."""
    content = text * prompt_lines.MAX_VALUES
    content = f"[{content[:-1]}]" if name == "a.json" else content
    assert len(parse_file(name, content.encode()).texts) == prompt_lines.MAX_VALUES


def test_a_slow_yaml_reads_less(refused, monkeypatch):
    """Without libyaml PyYAML reads 70 000 values, or a megabyte, in a second."""
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader")
    assert parse_file("a.yaml", b"- a\n- 'b\n  c'\n").texts == ["a", "b c"]
    with refused(CalibrationError, "'a.yaml' holds more than 30000 values."):
        parse_file("a.yaml", b"- a\n" * 30_001)
    with refused(CalibrationError, "'a.yaml' is too long for this PyYAML.", "use a .txt"):
        parse_file("a.yaml", b"- " + b"a" * 600_000)


def test_json_and_text_need_no_yaml(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert parse_file("a.json", b'["a"]').texts == parse_file("a.txt", b"a").texts == ["a"]
    with refused(DependencyError, "YAML files need PyYAML.", "pip install pyyaml"):
        parse_file("a.yml", b"- a")


# --- what was skipped is counted


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.txt", "a\n# b\n\n#c\n#1 d", "2 prompts read from a .txt file, 2 comment lines skipped"),
        ("a.csv", "# x\nid,prompt\n1,a\n2,\n,\n3,b",
         "2 prompts read from a .csv file, 1 comment line skipped, 1 empty prompt skipped"),
        ("a.csv", "a cat\na dog",
         "2 prompts read from a .csv file, the first line is read as a prompt (a header would be named \"prompt\")"),
        ("a.csv", "id;prompt\n1\n2;b", "1 prompt read from a .csv file, 1 empty prompt skipped"),
        # Regression: of the fox alone was said that it was read.
        ("a.yaml", "# foxes\n- a fox #1 fan\n- b#c\n- 'd # e' # f\n- |\n  g # h",
         "4 prompts read from a .yaml file, 3 comments skipped"),
        ("a.json", '["a", "", " "]', "1 prompt read from a .json file, 2 empty prompts skipped"),
        ("a.yaml", "prompts: [a, '']\nnegative: [b]\nseed: 3\nverdict: [c]",
         "2 prompts read from a .yaml file, not read: 'negative', 'seed', 1 empty prompt skipped"),
    ],
)  # fmt: skip
def test_the_note_counts_what_was_read_and_what_was_not(name, text, note):
    """Regression: prompts were lost, and nothing said so."""
    assert parse_sets(name, text.encode()).note == note


def test_a_first_prompt_without_a_header_is_no_header():
    """Regression: the first prompt of a table of one column was lost."""
    assert parse_file("a.csv", b"a cat\na dog\n").texts == ["a cat", "a dog"]
    assert parse_file("a.csv", b"#1 cat\n#ff0000 dog\n").texts == ["#1 cat", "#ff0000 dog"]


@pytest.mark.parametrize("letter", [*"\u2028\u2029\x85\v\f\x1c\x1d\x1e"], ids=ascii)
@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "{}"), ("a.csv", "prompt\n{}"), ("a.tsv", "prompt\n{}"), ("a.yaml", "- {}"), ("a.json", '["{}"]')],
)
def test_no_letter_inside_a_prompt_splits_it(name, text, letter):
    assert parse_file(name, text.format(f"a{letter}cat").encode()).texts == ["a cat"]


# --- bounded work


def calls(name: str, content: bytes) -> int:
    """How many functions are called, Python's and C's, to read a file or to refuse it."""
    count = Counter()

    def profile(_frame, event, _argument):
        count[event in ("call", "c_call")] += 1

    sys.setprofile(profile)
    try:
        parse_sets(name, content)
    except CalibrationError:
        pass
    finally:
        sys.setprofile(None)
    return count[True]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", HOSTILE)
def test_the_work_for_a_byte_is_bounded(case):
    """Eight times the bytes are at most eight times the calls, and never more than ten for each byte."""
    name, text = HOSTILE[case]
    small, large = (calls(name, text(n).encode()) for n in (4_000, 32_000))
    assert large <= 8 * small + 100
    assert large <= 10 * 32_000


@pytest.mark.timeout(6)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_large_hostile_file_is_read_or_refused(case):
    """A loop inside C counts as one call above: one that goes back and forth over a quarter of what a file may hold
    would not come back in a few seconds; this takes a tenth of one at most."""
    name, text = HOSTILE[case]
    content = text(MAX_FILE_BYTES // 4).encode()
    assert len(content) <= MAX_FILE_BYTES
    try:
        read = parse_sets(name, content)
    except CalibrationError as error:
        assert len(str(error).splitlines()[0]) <= 90
    else:
        assert len(read.texts) <= prompt_lines.MAX_VALUES


def test_an_empty_line_ends_no_table():
    assert parse_file("a.csv", b"prompt\na cat\n\n\na dog\n").texts == ["a cat", "a dog"]
    assert parse_file("a.csv", b"a cat\n\na dog\n").texts == ["a cat", "a dog"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_table_s_errors_count_the_lines_above_it(refused, name):
    """Lines of the file, as an editor numbers them; a cell may hold several."""
    table = "# mine\n\nid,prompt\n1,a\n".replace(",", "," if name == "a.csv" else "\t")
    row = "2,b,c\n".replace(",", "," if name == "a.csv" else "\t")
    with refused(CalibrationError, f"'{name}' has more cells than columns in line 5.", "in quotes", line=5):
        parse_file(name, (table + row).encode())
    with refused(CalibrationError, f"'{name}' is no table in line 5: ", "check the quotes", line=5):
        parse_file(name, (table + '"2"x\n').encode())


def test_the_text_of_a_node_is_read_like_a_file():
    assert read_lines("a\n#1 b\n# c") == PromptTexts(["a", "#1 b"], [], "1 comment line skipped")
