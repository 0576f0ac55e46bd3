"""Three floors, arrows only downwards: what each package may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "execution", "server"}
FORBIDDEN = {
    "qsched_core": HOST | {"calibration", "demo", "optuna", "open_clip"},
    "calibration": HOST | {"demo", "diffusers"},
    "demo": HOST | {"calibration"},
}


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports; a relative import that leaves the package counts by its first name."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    return modules


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_downwards(package):
    """But for the command line, which opens pipelines: nobody imports it."""
    files = [path for path in (ROOT / package).rglob("*.py") if not {"training", "cli"}.intersection(path.parts)]
    assert files
    wrong = {str(path.relative_to(ROOT)): sorted(imports(path) & FORBIDDEN[package]) for path in files}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_the_two_lines_of_q_sched_stand_once():
    """Wherever c_x or c_eps is multiplied with something, it is in precondition.py."""
    products = []
    for path in [*(ROOT / "qsched_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
                if names & {"c_x", "c_eps"}:
                    products.append(path.name)
    assert products
    assert set(products) == {"precondition.py"}
