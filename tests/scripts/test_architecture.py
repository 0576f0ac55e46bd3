"""The map for newcomers is the house as it stands."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from scripts import architecture
from scripts.layout import ROOT

PAGE = architecture.PAGE.read_text("utf-8")
OF_EACH_LANGUAGE_OR_NODE = {"web/docs", "locales", "demo/weights"}
"""Their own folders are alike."""


def folders() -> set[str]:
    """Those that hold tracked files, below the root."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    names_of_folders = {name.rpartition("/")[0] for name in names.split("\0")} - {""}
    for parent in OF_EACH_LANGUAGE_OR_NODE:
        names_of_folders = {parent if name.startswith(f"{parent}/") else name for name in names_of_folders}
    return {name for name in names_of_folders if not re.search(r"tests/host/test_nodes$", name)}


def test_every_folder_has_its_line_and_every_line_its_folder():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    rows = set(
        re.findall(r"^\| `([^`]+)` \| ", PAGE.partition("## The rooms")[2].partition("## Where")[0], re.MULTILINE)
    )
    assert folders() - rows == set()
    assert {row for row in rows if not (ROOT / row).is_dir()} == set()


def test_the_picture_is_that_of_the_imports():
    assert architecture.with_picture(PAGE, architecture.picture()) == PAGE, "run python -m scripts.architecture"


def test_arrows_go_down():
    order = {room: place for place, room in enumerate(architecture.ROOMS)}
    assert [(one, other) for one, other in architecture.arrows(ROOT) if order[one] > order[other]] == []


def test_only_the_nodes_know_the_wings():
    """A wing of nodes/ imports no node: what two of them share lies in a wing, too."""
    wings = [room for room in architecture.ROOMS if room.startswith("nodes/")]
    assert wings
    up = []
    for path in (path for wing in wings for path in (ROOT / wing).rglob("*.py")):
        here = path.relative_to(ROOT)
        names = architecture.imports(here, ast.parse(path.read_text("utf-8")))
        up += [(str(here), name) for name in names if re.match(r"nodes/\w+/?", name) and not name.startswith((*wings,))]
    assert up == []


def test_no_file_imports_itself_over_others():
    assert architecture.circles() == []


def test_a_circle_is_found(tmp_path):
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "a.py").write_text("from .b import x")
    (tmp_path / "nodes" / "b.py").write_text("from . import c")
    (tmp_path / "nodes" / "c.py").write_text("def late():\n    from . import a")
    assert architecture.circles(tmp_path) == []
    (tmp_path / "nodes" / "c.py").write_text("from ..nodes import a")
    assert [set(one) for one in architecture.circles(tmp_path)] == [{"nodes/a", "nodes/b", "nodes/c"}]


def test_an_import_is_an_arrow(tmp_path):
    for room in architecture.ROOMS:
        (tmp_path / room).mkdir(parents=True, exist_ok=True)
    (tmp_path / "qsched_core" / "errors.py").write_text("")
    (tmp_path / "demo" / "a.py").write_text("from ..qsched_core import errors\nimport calibration.x\nimport numpy")
    (tmp_path / "qsched_core" / "quant" / "b.py").write_text("from ..errors import QSchedError")
    assert architecture.arrows(tmp_path) == {("demo", "qsched_core"), ("demo", "calibration")}


def test_files_that_the_page_names_are_there():
    files = set(re.findall(r"`([\w/.]+\.(?:py|js|json))`", PAGE + (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    missing = {name for name in files if not (ROOT / name).is_file()}
    assert missing <= {"multistep.py", "catalog.py"}, missing
