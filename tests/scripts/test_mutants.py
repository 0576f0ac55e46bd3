"""Mutation testing's own rules: which faults are put in, which tests are asked, and what is not asked twice."""

import os
import subprocess
import sys

import pytest

from scripts.mutants import mutants, sample

SOURCE = '''"""Module: 1 + 1."""


def damage(content: int = 1, quality: "a < b" = 2):
    """Twice 2."""
    if content < 0 and not quality:
        raise ValueError(f"{content + 1} is less", "give more")
    note(content, quality)
    return content**2 + quality
'''

FAULTS = [
    ("1", "2", ""),  # of the default
    ("content < 0", "(content <= 0)", "damage"),
    ("content < 0 and not quality", "(content < 0 or not quality)", "damage"),
    ("not quality", "(quality)", "damage"),
    ("note(content, quality)", "(note(quality, content))", "damage"),
    ("note(content, quality)", "pass", "damage"),
    ("content**2", "(content * 2)", "damage"),
    ("content**2 + quality", "(content ** 2 - quality)", "damage"),
    ("return content**2 + quality", "return None", "damage"),
]


@pytest.mark.parametrize(("old", "new", "function"), FAULTS)
def test_faults_of_each_kind_are_put_in(old, new, function):
    faults = {(mutant.old, mutant.new): mutant for mutant in mutants("a.py", SOURCE)}
    mutant = faults[old, new]
    assert mutant.function in (function, "damage")
    assert mutant.applied(SOURCE) == SOURCE[: mutant.begin] + new + SOURCE[mutant.begin + len(old) :]
    assert SOURCE.splitlines()[mutant.line - 1].find(old.splitlines()[0]) >= 0


def test_an_errors_message_and_its_fix_change_places():
    (swapped,) = [m for m in mutants("a.py", SOURCE) if m.new.startswith("(ValueError('give more'")]
    assert swapped.old == 'ValueError(f"{content + 1} is less", "give more")'


def test_texts_and_annotations_stay():
    olds = [mutant.old for mutant in mutants("a.py", SOURCE)]
    assert not any("Module" in old or "Twice" in old or old in ("a < b", "content + 1") for old in olds)


def test_the_same_seed_draws_the_same(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text(SOURCE, "utf-8")
    mutants_1 = sample(tmp_path, ["room"], 5, seed=1)
    assert mutants_1 == sample(tmp_path, ["room/a.py"], 5, seed=1) != sample(tmp_path, ["room"], 5, seed=2)
    for mutant in sample(tmp_path, ["room"], 1000, seed=1):
        compile(mutant.applied(SOURCE), "a.py", "exec")


mutate = pytest.importorskip("scripts.mutate", reason="needs to fork", exc_type=ImportError)


def test_the_quickest_tests_of_a_function_come_first_and_are_not_too_many():
    seconds = {"t.py::slow": 9.0, "t.py::quick": 0.1, "t.py::other": 0.2, "t.py::usual": 2.0}
    calls = {"a.py": {"damage": ["t.py::slow", "t.py::usual", "t.py::quick", "t.py::failed"]}}
    reach = mutate.Reach(seconds, calls, most_seconds=3.0)
    inside = next(m for m in mutants("a.py", SOURCE) if m.old == "content < 0")
    assert reach.tests_of(inside) == ["t.py::quick", "t.py::usual"]
    assert mutate.Reach(seconds, {}).tests_of(inside) == []


def test_two_equal_pieces_of_a_line_are_two_mutants():
    ones = [m for m in mutants("a.py", "x = [1, 1]\n") if (m.old, m.new) == ("1", "2")]
    assert len({one.key for one in ones}) == 2


def test_what_stands_in_the_journal_is_not_run_again(tmp_path, monkeypatch):
    one, other, third = mutants("a.py", SOURCE)[:3]
    answers = {one: "failed", other: "survived", third: "untested"}
    calls = []
    monkeypatch.setattr(mutate.Workplace, "outcome", lambda self, m, reach: calls.append(m) or answers[m])
    place = mutate.Workplace(tmp_path)
    assert dict(mutate.run(place, [one, other], None)) == {one: "failed", other: "survived"}
    assert dict(mutate.run(place, [one, other, third], None)) == answers
    assert calls == [one, other, third]
    assert dict(mutate.run(place, [one, other, third], None, again=True)) == answers
    assert calls[3:] == [other, third]
    summary = mutate.summary(["room"], 1, list(answers.items()))
    assert (summary["noticed"], summary["mutants"], summary["rate"]) == (1, 3, 0.333)


def test_calls_of_a_process_that_a_test_starts_are_known(tmp_path):
    """A server's: threads of it too, and each function once."""
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "a.py").write_text("def one(): ...\n\ndef other(): ...\n", "utf-8")
    program = "import threading; from pack import a; a.one(); a.one(); t = threading.Thread(target=a.other); t.start()"
    notes = tmp_path / "notes.txt"
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(mutate.CALL_NOTES), str(tmp_path)]),
        "QSCHED_NOTE_CALLS": os.pathsep.join([f"{tmp_path}{os.sep}", str(notes)]),
    }
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
    lines = notes.read_text("utf-8").splitlines()
    assert sorted(lines) == [f"pack/a.py\t{name}" for name in ("<module>", "one", "other")]
    tracer = mutate.Tracer(tmp_path)
    tracer._seconds["t.py::test"] = 0.1
    tracer.add_shared("t.py", lines)
    assert tracer.records()["t.py"]["calls"]["pack/a.py"]["other"] == ["t.py::test"]
