"""Names of variables say what a thing is, not what was done to it: ``rows``, ``report``, ``layers``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PARTICIPLES = set(
    """
    found shown seen made told kept asked held wanted known taken lent said handed drawn chosen named lost gone spoiled
    given got began took moved tried judged measured written decided compared decoded offered promised guarded fallen
    raced swept reached broken needed driven patched stored
    """.split()
)

ALLOWED = {
    ("calibration/result.py", "guarded"): "field of Result: the record's word for what no winner may worsen",
    ("qsched_core/quant/observation.py", "judged"): "field of LayerInputs, and its name in files of observations",
    ("qsched_core/quant/input_recorder.py", "seen"): "field of Calls: how many went by",
    ("qsched_core/quant/input_recorder.py", "kept"): "field of Calls: those that can be repeated",
}
"""(file, name): why it stays. Nothing else is allowed."""


def variables(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(name, line) of every parameter and of every name that is bound, fields of dataclasses included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@pytest.mark.parametrize("package", ["nodes", "calibration", "qsched_core", "demo", "scripts", "benchmarks", "tests"])
def test_no_variable_is_a_participle(package):
    offenders = []
    for path in sorted((ROOT / package).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for name, line in variables(ast.parse(path.read_text("utf-8"))):
            word = name.strip("_").lower()
            if word in PARTICIPLES and (file, name) not in ALLOWED:
                offenders.append(f"{file}:{line} {name}")
    assert offenders == []
