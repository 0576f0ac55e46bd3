"""The command line."""

import pytest

from scripts import dev


def test_arguments_of_other_programs_are_handed_on_untouched():
    args = dev.parse(["test", "-x", "-k", "a or b", "--", "--help", "tests/core"])
    assert (args.run, args.rest) == (dev.test, ["-x", "-k", "a or b", "--", "--help", "tests/core"])


def test_serve_has_options_of_its_own():
    args = dev.parse(["serve", "--port", "7000", "--gpu", "--", "--port", "1"])
    assert (args.run, args.port, args.gpu, args.rest) == (dev.serve, 7000, True, ["--port", "1"])
    assert dev.parse(["serve"]).rest == []


@pytest.mark.parametrize("argv", [[], ["unknown"], ["demo", "--fast"]])
def test_what_is_not_understood_is_refused(argv, capsys):
    with pytest.raises(SystemExit):
        dev.parse(argv)
    assert "usage: dev.py" in capsys.readouterr().err


def test_a_failure_is_explained_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setenv("QSCHED_PYTHON", "/no/such/python")
    assert dev.main(["env"]) == 1
    assert capsys.readouterr().err.startswith("\nerror: QSCHED_PYTHON=/no/such/python is not a program")
