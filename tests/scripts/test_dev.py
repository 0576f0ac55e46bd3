"""The command line."""

import re
import subprocess

import pytest

from scripts import dev
from scripts.layout import ROOT

ROOT_FILES = {
    ".comfyignore", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "__init__.py",
    "pyproject.toml", "requirements-dev.txt", "requirements-tools.txt", "requirements.txt",
}  # fmt: skip
"""All that a user finds at the top of the checkout; a file more is one that a tool left there."""


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


def test_each_function_is_a_command_and_has_its_short_name_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    recipes = dict(re.findall(r"^(\w+): ##.*\n\t@\$\(DEV\) (\w+) \$\(ARGS\)", makefile, re.M))
    phony = re.search(r"^\.PHONY: help (.*)", makefile, re.M)[1].split()
    names = [command.__name__ for command in dev.COMMANDS]
    assert [recipes.pop(name) for name in names] == phony == names
    assert recipes == {}
    assert all(dev.parse([name]).run is command for name, command in zip(names, dev.COMMANDS, strict=True))


def test_no_file_lies_at_the_top_that_no_one_knows():
    tracked = subprocess.run(["git", "ls-files", "-z", ":(glob)*"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout: an archive, or no git")
    assert set(tracked.stdout.strip("\0").split("\0")) == ROOT_FILES
