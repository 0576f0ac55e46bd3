"""The shape of every message: what, then the way out, and a first line that the host's box shows whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import qsched_core as qs

KINDS = (
    qs.CalibrationError,
    qs.CoefficientError,
    qs.DependencyError,
    qs.PresetError,
    qs.QuantizationError,
    qs.SamplingError,
    qs.VoteError,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_a_qsched_error(kind):
    error = kind("it broke.", "mend it", value=3)
    assert isinstance(error, qs.QSchedError)
    assert str(error) == "Q-Sched: it broke. Fix: mend it"
    assert (error.what, error.fix, error.fields) == ("it broke.", "mend it", {"value": 3})


def test_without_a_way_out_the_text_ends_with_what():
    assert str(qs.QSchedError("it broke.")) == "Q-Sched: it broke."


@pytest.mark.parametrize("length", [10, 60, 61, 62, 80, 81, 82, 500])
def test_the_first_line_never_exceeds_90_characters(length):
    error = qs.QSchedError("x" * length, "mend it, please")
    first, *rest = str(error).splitlines()
    assert len(first) <= 90
    assert str(error).endswith("Fix: mend it, please")
    # 9 for "Q-Sched: " and 21 for " Fix: mend it, please": it stays on one line as long as it fits.
    assert bool(rest) == (9 + length + 21 > 90)
    assert ("…" in first) == (9 + length > 90)
    assert error.what == "x" * length


def test_a_long_name_loses_its_middle_and_what_is_said_of_it_stays():
    """A file with a long name was "Q-Sched: bbbbbbbb…" and nothing else."""
    first, way_out = str(
        qs.QSchedError(f"{'b' * 200}.safetensors (0 bytes) is no preset.", "choose another")
    ).splitlines()
    assert first.startswith("Q-Sched: bbbb") and first.endswith("b.safetensors (0 bytes) is no preset.")
    assert (len(first), way_out) == (90, "Fix: choose another")


def test_a_text_of_many_words_is_cut_at_its_end():
    first, _ = str(qs.QSchedError("a " * 100, "mend it")).splitlines()
    assert len(first) == 90 and first.endswith("…")


def test_a_value_with_line_breaks_cannot_push_the_way_out_from_the_first_line():
    assert str(qs.QSchedError("file a\nb\r\nc is bad.", "delete it")) == "Q-Sched: file a b c is bad. Fix: delete it"


ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("calibration", "nodes", "qsched_core")
ROOM = 8
"""Characters that a value put into a text takes, at least."""


def raised() -> Iterator[tuple[str, str, bool]]:
    """(Where, what it says with X in place of values, whether it tells the way out) of every error in the code."""
    names = {kind.__name__ for kind in qs.QSchedError.__subclasses__()}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield where, text_of(node.args[0]), len(node.args) > 1


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "X" * ROOM


def test_every_text_in_the_code_fits_the_first_line_and_tells_the_way_out():
    errors = list(raised())
    assert len(errors) > 100
    assert [where for where, what, _ in errors if len(f"Q-Sched: {what}") > 90] == []
    assert [where for where, what, _ in errors if "X" * ROOM != what and what[-1] not in ".!?X"] == []
    assert [where for where, _, fix in errors if not fix] == []
