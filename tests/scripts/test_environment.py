"""The stamp, and which interpreter is used."""

import sys

import pytest

from scripts.environment import (
    STAMP_NAME,
    EnvironmentSetupError,
    digest,
    interpreter_of,
    is_stamped,
    named_interpreter,
    write_stamp,
)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "host.txt", tmp_path / "own.txt"]
    for path in paths:
        path.write_text("numpy\n", "utf-8")
    return paths


@pytest.fixture
def venv(tmp_path):
    path = tmp_path / "venv"
    interpreter_of(path).parent.mkdir(parents=True)
    interpreter_of(path).touch()
    return path


def test_the_digest_depends_on_everything_that_is_installed(files):
    before = digest(files)
    assert before == digest(files)
    assert before != digest(files, ["torch==1.0"])
    files[1].write_text("numpy\nscipy\n", "utf-8")
    assert before != digest(files)


def test_the_digest_keeps_files_apart(files):
    before = digest(files)
    files[0].write_text("numpy\nnumpy\n", "utf-8")
    files[1].write_text("", "utf-8")
    assert before != digest(files)


def test_a_stamp_holds_for_its_digest_only(venv):
    assert not is_stamped(venv, "a")
    write_stamp(venv, "a")
    assert is_stamped(venv, "a")
    assert not is_stamped(venv, "b")
    assert [path.name for path in venv.glob(".*")] == [STAMP_NAME]


def test_a_stamp_is_worth_nothing_without_its_interpreter(venv):
    write_stamp(venv, "a")
    interpreter_of(venv).unlink()
    assert not is_stamped(venv, "a")


def test_a_named_interpreter_is_used_as_it_is():
    assert str(named_interpreter({"QSCHED_PYTHON": sys.executable})) == sys.executable
    assert named_interpreter({}) is None
    assert named_interpreter({"QSCHED_PYTHON": ""}) is None


def test_a_wrong_named_interpreter_is_refused_with_its_name(tmp_path):
    wrong = str(tmp_path / "no-python")
    with pytest.raises(EnvironmentSetupError) as caught:
        named_interpreter({"QSCHED_PYTHON": wrong})
    assert f"QSCHED_PYTHON={wrong}" in str(caught.value)
