"""What a guard measures may not be worsened: no candidate wins that does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from study_world import N_STEPS, Picture, World, hill, own, quick

from calibration.search.guard import Guard
from qsched_core import CalibrationError, Coefficients


def away(pictures: list[Picture], indices: Sequence[int]) -> dict[str, list[float]]:
    """Something that grows as c_x falls: the top of the hill is out of bounds. A little different on every prompt."""
    values = [(1 - coefficients.at(N_STEPS - 1)[0]) * (2 + own(index)) + own(index) for coefficients, index in pictures]
    return {"distance": values}


@pytest.mark.parametrize("settings", [quick(trials=24), quick(trials=24, race=True)], ids=["whole", "raced"])
def test_no_candidate_wins_that_raises_a_guarded_distance(settings):
    free, guarded_result = World().calibrate(settings), World().calibrate(settings, guard=Guard(away))
    assert free.coefficients.c_x[-1] < 0.99
    assert guarded_result.coefficients.c_x[-1] >= 1.0
    assert guarded_result.accepted
    assert 0 < guarded_result.gain.gain < free.gain.gain


def test_the_identity_wins_where_everything_is_raised():
    def anywhere(pictures, indices):
        return {"distance": [abs(hill(c) - hill(Coefficients.identity(N_STEPS))) for c, _ in pictures]}

    result = World().calibrate(guard=Guard(anywhere))
    assert result.coefficients.is_identity
    assert not result.accepted
    assert sum(trial.whole for trial in result.finished) == 1


def test_a_distance_that_is_no_number_never_wins():
    def broken(pictures, indices):
        return {"distance": [0.0 if coefficients.is_identity else math.nan for coefficients, _ in pictures]}

    assert World().calibrate(guard=Guard(broken)).coefficients.is_identity


def test_a_study_with_a_guard_is_another_one(tmp_path):
    World().calibrate(journal=tmp_path / "j", guard=Guard(away))
    again = World()
    assert again.calibrate(journal=tmp_path / "j", guard=Guard(away)).coefficients.c_x[-1] >= 1.0
    assert again.generated == []
    with pytest.raises(CalibrationError, match="other inputs"):
        World().calibrate(journal=tmp_path / "j")
