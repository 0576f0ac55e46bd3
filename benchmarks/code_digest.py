"""Which code a kept row was made by: rows of other code are not mixed with this code's."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path

FOLDERS = ("qsched_core", "calibration", "demo", "benchmarks/toys")
"""Whose code decides what a study on the small models comes to."""

MEASURES = ("qsched_core", "demo", "benchmarks/toys", "calibration/metrics")
"""Whose code decides what is measured of a picture; how a search goes about it does not."""

ROOT = Path(__file__).resolve().parents[1]


def code_digest(root: Path = ROOT, folders: Sequence[str] = FOLDERS) -> str:
    """Of the Python in ``folders`` without comments and docstrings, which decide nothing."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(getattr(node, "body", None), list):
                node.body = [statement for statement in node.body if not _is_text(statement)]
        digest.update(f"{path.relative_to(root).as_posix()}: {ast.dump(tree)}".encode())
    return digest.hexdigest()[:16]


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
