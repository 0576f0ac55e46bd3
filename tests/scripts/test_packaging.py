"""The published package: what it declares, and what it leaves out."""

import re
import subprocess
import sys

import pytest

from scripts.layout import PACK_NAME, ROOT
from scripts.requirements import lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own dependency there


@pytest.fixture(scope="module")
def metadata():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_both_lists_of_dependencies_are_equal(metadata):
    assert metadata["project"]["dependencies"] == lines((ROOT / "requirements.txt").read_text("utf-8"))


def test_torch_is_never_touched(metadata):
    assert not [name for name in metadata["project"]["dependencies"] if name.startswith("torch")]


def test_names_that_the_registry_accepts(metadata):
    assert metadata["project"]["name"] == PACK_NAME
    assert re.fullmatch(r"[a-z][a-z0-9-]*", PACK_NAME)
    assert re.fullmatch(r"[a-z][a-z0-9-]*", metadata["tool"]["comfy"]["PublisherId"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["project"]["version"])


def test_addresses_that_nobody_has_registered_stand_in_one_place():
    """Whoever publishes changes them there; nothing that a user sees may lead to them."""
    git = ["git", "grep", "-lE", r"github(usercontent)?\.com/q-sched"]
    output = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert output == ["pyproject.toml"]


def test_the_license_is_there_in_full(metadata):
    text = (ROOT / metadata["project"]["license"]["file"]).read_text("utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("folder", ["tests/", "scripts/", "benchmarks/", ".ci/", ".github/"])
def test_what_starts_programs_stays_out(folder):
    assert folder in (ROOT / ".comfyignore").read_text("utf-8").splitlines()


def test_what_the_host_loads_stays_in():
    """Regression: "docs/" without a leading slash dropped the help pages in web/docs too."""
    git = ["git", "-c", f"core.excludesFile={ROOT / '.comfyignore'}", "check-ignore", "--no-index"]
    files = ["web/docs/QSchedSampler.md", "web/docs/QSchedSampler/zh.md", "locales/zh/nodeDefs.json", "demo/weights"]
    output = subprocess.run(
        [*git, "docs/sensitivity.png", *files], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["docs/sensitivity.png"]


def test_ci_runs_the_test_command():
    assert (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1] == "make test"
