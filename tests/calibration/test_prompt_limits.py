"""Limits of files of prompts: at the limit a file is read, one beyond it is refused or cut."""

from __future__ import annotations

import pytest

from calibration import prompt_lists, prompt_tables
from calibration.prompt_files import MAX_FILE_BYTES, parse_file, parse_sets
from calibration.prompt_lists import MAX_SLOW_YAML_BYTES
from qsched_core import CalibrationError


def test_a_file_of_4_mebibytes_is_read(refused):
    content = b"a cat\n" + b" " * (4 * 2**20 - 6)
    assert parse_file("a.txt", content).texts == ["a cat"] and len(content) == MAX_FILE_BYTES
    with refused(CalibrationError, "'a.txt' is larger than 4 MiB.", "give a part of it"):
        parse_file("a.txt", content + b" ")


def test_many_lines_may_stand_above_a_table(monkeypatch, refused):
    monkeypatch.setattr(prompt_tables, "MAX_VALUES", 9)
    for name in ("a.csv", "a.tsv"):
        assert parse_file(name, b"\n" * 9 + b"prompt\na cat\n").texts == ["a cat"]
        with refused(CalibrationError, f"'{name}' holds more than 9 lines above its first row.", "give a part of it"):
            parse_file(name, b"\n" * 10 + b"prompt\na cat\n")


def test_a_table_s_first_line_has_100_000_letters_at_most(refused):
    header = "prompt," + "a" * 99_993
    assert parse_file("a.csv", f"{header}\na cat,b\n".encode()).texts == ["a cat"]
    with refused(CalibrationError, "'a.csv' has a first line of 100001 characters.", "one prompt per line"):
        parse_file("a.csv", f"{header}a\na cat,b\n".encode())


def test_of_many_columns_forty_are_named_by_forty_letters_each(refused):
    names = [f"{number:02}" + "x" * 48 for number in range(50)]
    with pytest.raises(CalibrationError) as error:
        parse_file("a.csv", (",".join(names) + "\n").encode())
    listing = str(error.value).partition("rename one of its columns: ")[2]
    assert listing == ", ".join(name[:40] for name in names)[:400]
    assert error.value.fields["columns"] == names[:40]
    for count in (3, 40, 41):
        with pytest.raises(CalibrationError) as error:
            parse_file("a.csv", (",".join("abcdefgh"[i % 8] for i in range(count)) + "\n").encode())
        assert str(error.value).partition("columns: ")[2].count(",") == min(count, 40) - 1


def test_of_many_other_lists_forty_are_named_by_forty_letters_each():
    names = [f"{number:02}" + "x" * 48 for number in range(50)]
    for keys, listing in (
        (names, ", ".join(name[:40] for name in names)[:400]),
        ([f"{number:02}" for number in range(41)], ", ".join(f"{number:02}" for number in range(40))),
    ):
        with pytest.raises(CalibrationError, match="has no list named prompts") as error:
            parse_file("a.json", ("{" + ", ".join(f'"{key}": []' for key in keys) + "}").encode())
        assert str(error.value).partition("rename one of these: ")[2] == listing


@pytest.mark.parametrize(("count", "end"), [(1, "'b0'"), (8, "'b7'"), (9, "'b7', …")])
def test_of_what_is_not_read_eight_names_are_said(count, end):
    others = "".join(f"b{number}: 1\n" for number in range(count))
    assert parse_sets("a.yaml", f"prompts: [a]\n{others}".encode()).note.endswith(end)


def test_yaml_lists_stand_in_each_other_eight_deep(refused):
    with refused(CalibrationError, "'a.yaml': entry 1 of the file is a list, not a prompt."):
        parse_file("a.yaml", b"[" * 8 + b"a" + b"]" * 8)
    with refused(CalibrationError, "'a.yaml' is no plain list in line 1.", line=1):
        parse_file("a.yaml", b"[" * 9 + b"a" + b"]" * 9)


def test_a_yaml_file_may_have_eight_directives(refused):
    lines = [f"%TAG !{letter}! tag:{letter},2000:\n" for letter in "abcdefghi"]
    assert parse_file("a.yaml", "".join([*lines[:8], "---\n- a cat\n"]).encode()).texts == ["a cat"]
    with refused(CalibrationError, "'a.yaml' is no plain list: it has many % directives."):
        parse_file("a.yaml", "".join([*lines, "---\n- a cat\n"]).encode())


def test_a_yaml_number_has_a_hundred_digits_at_most(refused):
    assert parse_file("a.yaml", b"- " + b"1" * 101).texts == ["1" * 101]
    with refused(CalibrationError, "'a.yaml': entry 1 of the file is a number, not a prompt.", entry=1):
        parse_file("a.yaml", b"- " + b"1" * 100)


def test_a_slow_yaml_reads_half_a_mebibyte(monkeypatch, refused):
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader")
    content = b"- a cat\n#" + b" " * (512 * 1024 - 9)
    assert parse_file("a.yaml", content).texts == ["a cat"] and len(content) == MAX_SLOW_YAML_BYTES
    with refused(CalibrationError, "'a.yaml' is too long for this PyYAML.", "use a .txt"):
        parse_file("a.yaml", content + b" ")


@pytest.mark.parametrize("is_slow", [True, False])
def test_yaml_values_are_counted_with_what_stands_around_them(monkeypatch, refused, is_slow):
    """Begin and end of the file, its document and its list are six, and the first has the number 0."""
    import yaml

    if is_slow:
        monkeypatch.delattr(yaml, "CSafeLoader")
    monkeypatch.setattr(prompt_lists, "MAX_SLOW_YAML_VALUES" if is_slow else "MAX_VALUES", 10)
    assert parse_file("a.yaml", b"- a\n" * 5).texts == ["a"] * 5
    with refused(CalibrationError, "'a.yaml' holds more than 10 values."):
        parse_file("a.yaml", b"- a\n" * 6)
