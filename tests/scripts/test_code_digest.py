"""Rows of a benchmark that are kept: those that other code made are left out."""

import json

import pytest

from benchmarks.code_digest import FOLDERS, code_digest

SOURCE = '"""What it does."""\n\n\ndef double(x):\n    """Of x."""\n    return 2 * x\n'


@pytest.fixture
def checkout(tmp_path):
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.py").write_text(SOURCE, "utf-8")
    return tmp_path


@pytest.mark.parametrize("folder", FOLDERS)
def test_another_constant_anywhere_is_other_code(checkout, folder):
    before = code_digest(checkout)
    (checkout / folder / "a.py").write_text(SOURCE.replace("2 * x", "3 * x"), "utf-8")
    assert code_digest(checkout) != before


def test_a_comment_or_a_docstring_is_no_other_code(checkout):
    before = code_digest(checkout)
    text = SOURCE.replace("Of x.", "Twice x.").replace("return", "# why\n    return")
    (checkout / FOLDERS[0] / "a.py").write_text(text, "utf-8")
    assert code_digest(checkout) == before


def test_rows_of_other_code_are_left_out(tmp_path, capsys):
    verdict_pictures = pytest.importorskip("benchmarks.verdict_pictures")
    place = {"kind": "flow", "setting": "w4a8"}
    lines = [{**place, "seed": seed, "code": code, "row": {"x": seed}} for seed, code in enumerate("ab")]
    old = {**place, "seed": 2, "row": {}}  # of before rows said what made them
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [*lines, old])) + "\n", "utf-8")
    assert verdict_pictures.kept_rows(path, "a") == {("flow", "w4a8", 0): {"x": 0}}
    assert "2 rows of other code" in capsys.readouterr().err
