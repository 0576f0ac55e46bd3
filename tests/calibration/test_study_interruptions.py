"""A study that is cancelled, fails or loses a part of its journal ends as if it had not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from study_world import N_PROMPTS, N_STEPS, World, quick

from calibration import Result, calibrate
from calibration.search import strategies
from calibration.search.storage import open_storage


class Cancelled(BaseException):
    """As the host's own: not an Exception."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Result:
    patch = pytest.MonkeyPatch()
    patch.setattr(strategies, "scattered_points", lambda space: 5)
    result = World().calibrate(journal=tmp_path_factory.mktemp("whole") / "study.jsonl")
    patch.undo()
    return result


def interrupting(world: World, call: int) -> Callable:
    def generate(coefficients, indices):
        if len(world.generated) == call:
            raise Cancelled
        return world.generate(coefficients, indices)

    return generate


def assert_same(result: Result, other: Result) -> None:
    assert result.trace == other.trace
    assert result.coefficients == other.coefficients
    assert (result.gain, result.jaq, result.nfe) == (other.gain, other.jaq, other.nfe)
    assert (result.accepted, result.on_border) == (other.accepted, other.on_border)


@pytest.mark.parametrize("call", range(9))
def test_a_run_that_was_cancelled_while_generating_ends_as_if_it_had_not(tmp_path, monkeypatch, uninterrupted, call):
    """Calls 0 … 6 are trials (the last asked for by the Gaussian process), 7 and 8 the verdict."""
    monkeypatch.setattr(strategies, "scattered_points", lambda space: 5)
    journal = tmp_path / "study.jsonl"
    first, second = World(), World()
    with pytest.raises(Cancelled):
        calibrate(interrupting(first, call), first.score, N_PROMPTS, N_STEPS, quick(), journal=journal)
    result = second.calibrate(journal=journal)
    assert_same(result, uninterrupted)
    assert len(second.generated) == 9 - call  # what is finished is not made again


def test_a_cancelled_trial_is_given_back_at_once(tmp_path):
    """Else other workers wait until its worker is taken for dead."""
    journal = tmp_path / "study.jsonl"
    world = World()
    with pytest.raises(Cancelled):
        calibrate(interrupting(world, 3), world.score, N_PROMPTS, N_STEPS, quick(), journal=journal)
    storage = open_storage(journal, read_only=True)
    states = [
        trial.state.name for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)
    ]
    assert states.count("COMPLETE") == 3
    assert "RUNNING" not in states


def test_a_run_that_is_cancelled_at_every_trial_still_arrives(tmp_path, monkeypatch, uninterrupted):
    monkeypatch.setattr(strategies, "scattered_points", lambda space: 5)
    journal = tmp_path / "study.jsonl"
    for _ in range(7):
        with pytest.raises(Cancelled):
            World().calibrate(journal=journal, on_progress=lambda progress: (_ for _ in ()).throw(Cancelled))
    assert_same(World().calibrate(journal=journal), uninterrupted)


def test_a_scorer_that_fails_loses_its_trial_only(tmp_path):
    journal, world = tmp_path / "study.jsonl", World()

    def score(pictures, indices):
        if len(world.generated) == 3:
            raise RuntimeError("out of memory")
        return world.score(pictures, indices)

    with pytest.raises(RuntimeError, match="out of memory"):
        calibrate(world.generate, score, N_PROMPTS, N_STEPS, quick(), journal=journal)
    assert_same(World().calibrate(journal=journal), World().calibrate())


@pytest.mark.parametrize("cut", [1, 20, 200, 900])
def test_a_torn_journal_costs_a_trial_and_not_the_study(tmp_path, cut):
    journal = tmp_path / "study.jsonl"
    with pytest.raises(Cancelled):
        calibrate(interrupting(World(), 5), World().score, N_PROMPTS, N_STEPS, quick(trials=4), journal=journal)
    content = journal.read_bytes()
    journal.write_bytes(content[:-cut])
    assert_same(World().calibrate(quick(trials=4), journal=journal), World().calibrate(quick(trials=4)))


def test_a_finished_study_is_only_read(tmp_path):
    journal, world = tmp_path / "study.jsonl", World()
    whole = World().calibrate(journal=journal)
    assert_same(world.calibrate(journal=journal), whole)
    assert world.generated == []
