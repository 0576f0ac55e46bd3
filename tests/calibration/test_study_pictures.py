"""Which pictures a study makes and shows to its judge, and how it counts them."""

from __future__ import annotations

import numpy as np
import pytest
from study_world import N_PROMPTS, N_STEPS, World, quick

from calibration import Progress
from calibration.split import split
from qsched_core import Coefficients


def test_the_search_sees_its_prompts_and_the_verdict_the_others():
    world, settings = World(), quick()
    result = world.calibrate(settings)
    parts = split(N_PROMPTS, settings)
    search_calls, verdict_calls = world.generated[:-2], world.generated[-2:]
    assert [indices for _, indices in search_calls] == [parts.search] * (settings.trials + 1)
    assert verdict_calls == [(Coefficients.identity(N_STEPS), parts.held_out), (result.coefficients, parts.held_out)]


@pytest.mark.parametrize("space", ["both ends", "first step", "last step", "constant"])
@pytest.mark.parametrize("n_steps", [1, 4])
def test_the_identity_is_always_the_first_trial(space, n_steps):
    world = World()
    result = world.calibrate(quick(space=space, trials=2), n_steps)
    assert world.generated[0][0] == Coefficients.identity(n_steps)
    assert set(result.trace[0][0].values()) == {1.0}
    assert len(result.coefficients) == n_steps


@pytest.mark.parametrize("trials", [1, 5])
def test_the_trials_are_the_identity_and_as_many_candidates_as_asked_for(trials):
    world = World()
    result = world.calibrate(quick(trials=trials))
    assert len(result.trace) == trials + 1
    assert len(world.generated) == trials + 1 + 2


@pytest.mark.parametrize("n_steps", [1, 4])
def test_nfe_counts_every_picture_times_its_steps(n_steps):
    world = World()
    result = world.calibrate(quick(), n_steps)
    assert result.nfe == n_steps * sum(len(indices) for _, indices in world.generated)


def test_the_judge_is_asked_for_the_verdict_alone():
    world, calls = World(), []

    def judge(pictures, indices):
        calls.append((pictures[0][0], tuple(indices)))
        return {"accuracy": np.array([0.1 if c.is_identity else 0.3 for c, _ in pictures])}

    result = world.calibrate(judge=judge)
    assert calls == world.generated[-2:]
    assert set(result.gains) == {"tc", "iq", "jaq", "accuracy"}
    # 1e-12: a mean of equal differences.
    assert result.gains["accuracy"].gain == pytest.approx(0.2, abs=1e-12)
    assert result.trace == World().calibrate().trace


def test_progress_counts_pictures_to_the_end():
    events: list[Progress] = []
    result = World().calibrate(on_progress=events.append)
    assert [item.phase for item in events] == ["search"] * 7 + ["verdict"] * 2
    assert [item.done for item in events] == [6, 12, 18, 24, 30, 36, 42, 54, 66]
    assert {item.total for item in events} == {66}
    assert [len(item.pictures) for item in events] == [6] * 7 + [12] * 2
    assert [item.identity_jaq for item in events] == [result.trace[0][1]] * 9
    best = [max(value for _, value in result.trace[: i + 1]) for i in range(7)]
    assert [item.best_jaq for item in events] == best + [best[-1]] * 2
    assert events[0].best.is_identity
    assert events[-1].best == result.coefficients


@pytest.mark.parametrize(("n_steps", "trials"), [(4, 8), (3, 10), (1, 2)])
def test_a_greedy_study_tells_from_the_first_how_many_trials_its_steps_have_together(n_steps, trials):
    """At each step the identity of that step and an equal share of the candidates."""
    events: list[Progress] = []
    settings = quick(space="table", strategy="greedy", trials=trials)
    result = World().calibrate(settings, n_steps, on_progress=events.append)
    together = n_steps * (trials // n_steps + 1)
    assert {event.trials for event in events} == {together}
    assert len(events[-1].finished) == len(result.finished) == together
    # Every candidate is tried on all prompts at once: the first guess of the whole is right.
    assert {event.total for event in events} == {events[-1].done}
