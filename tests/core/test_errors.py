"""The shape of every message: what, then the way out, and a first line that the host's box shows whole."""

from __future__ import annotations

import pytest

import qsched_core as qs

KINDS = (
    qs.CalibrationError,
    qs.CoefficientError,
    qs.DependencyError,
    qs.PresetError,
    qs.QuantizationError,
    qs.SamplingError,
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
    assert first.endswith("…") == (9 + length > 90)
    assert error.what == "x" * length


def test_a_value_with_line_breaks_cannot_push_the_way_out_from_the_first_line():
    assert str(qs.QSchedError("file a\nb\r\nc is bad.", "delete it")) == "Q-Sched: file a b c is bad. Fix: delete it"
