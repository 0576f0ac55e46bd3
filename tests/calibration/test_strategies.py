"""Beyond the plain search: racing, the paper's grid, greedy steps, budgets, starts, units, a second prompt set.

The same world of formulas as in ``study_world``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from calibration import Objective, Settings, calibrate
from calibration.search import place_sampler, strategies
from calibration.search.guard_rule import GuardRule
from calibration.search.search import Search
from calibration.search.space import Space
from calibration.search.storage import import_optuna
from calibration.search.trials import Trials
from calibration.split import split
from qsched_core import CalibrationError, Coefficients, DependencyError

N_PROMPTS, N_STEPS = 24, 4


class World:
    """Pictures are (coefficients, index); JAQ is a hill over the last step's pair, the same shape for every prompt."""

    def __init__(self, top=(0.95, 1.1), spread: float = 0.3, unscorable=lambda coefficients, index: False):
        self.top, self.spread, self.broken = top, spread, unscorable
        self.asked: list[tuple[Coefficients, tuple[int, ...]]] = []

    def generate(self, coefficients: Coefficients, indices: Sequence[int]):
        self.asked.append((coefficients, tuple(indices)))
        return [(coefficients, index) for index in indices]

    def jaq(self, coefficients: Coefficients, index: int) -> float:
        if self.broken(coefficients, index):
            return math.nan
        hill = sum(
            -40 * ((c_x - self.top[0]) ** 2 + (c_eps - self.top[1]) ** 2)
            for c_x, c_eps in zip(coefficients.c_x[-1:], coefficients.c_eps[-1:], strict=True)
        )
        return math.sin(12.9898 * index + 1) + hill * (1 + self.spread * math.cos(index % N_PROMPTS))

    def score(self, pictures, indices):
        values = np.array([self.jaq(*picture) for picture in pictures])
        return {"tc": values / 2, "iq": values / 4}

    def calibrate(self, settings: Settings, **options):
        return calibrate(self.generate, self.score, N_PROMPTS, N_STEPS, settings, **options)

    @property
    def searched(self) -> list[tuple[Coefficients, tuple[int, ...]]]:
        return self.asked[:-2]


def quick(**changed) -> Settings:
    return Settings(**{"space": "last step", "radius": 0.2, "trials": 12, "seeds": 1, "strategy": "random", **changed})


# --- racing


def test_a_race_asks_for_a_quarter_then_another_quarter_then_the_rest():
    groups = split(N_PROMPTS, quick()).rungs()
    assert [len(group) for group in groups] == [3, 3, 6]
    assert sum(groups, ()) == split(N_PROMPTS, quick()).search


@pytest.mark.parametrize("n_prompts", range(4, 40))
def test_no_group_of_a_race_is_too_small_to_tell_anything(n_prompts):
    parts = split(n_prompts, quick())
    assert sum(parts.rungs(), ()) == parts.search
    assert len(parts.rungs()) == 1 or min(map(len, parts.rungs())) >= 3


def test_a_race_finds_the_same_best_for_fewer_pictures():
    settings = {race: quick(trials=30, race=race) for race in (True, False)}
    worlds = {race: World() for race in settings}
    results = {race: worlds[race].calibrate(settings[race]) for race in settings}
    assert results[True].coefficients == results[False].coefficients
    counts = {race: sum(len(indices) for _, indices in world.searched) for race, world in worlds.items()}
    assert counts[True] < 0.7 * counts[False]
    assert results[True].nfe == N_STEPS * sum(len(indices) for _, indices in worlds[True].asked)


def test_a_candidate_that_is_dropped_ranks_below_the_best_and_never_wins():
    result = World(spread=0.9).calibrate(quick(trials=30))
    dropped = [trial for trial in result.finished if not trial.whole]
    best = max(trial.value for trial in result.finished if trial.whole)
    assert dropped
    assert all(trial.value <= best and trial.pictures < 12 for trial in dropped)
    assert all(math.isfinite(trial.value) for trial in dropped)


def test_every_candidate_is_asked_for_the_same_groups():
    """Ancestral noise depends on a batch's composition: the same pictures must share a batch in every candidate."""
    world, groups = World(), split(N_PROMPTS, quick()).rungs()
    world.calibrate(quick())
    assert {indices for _, indices in world.searched} <= set(groups)


def test_a_picture_that_cannot_be_scored_ends_its_candidate_at_once():
    parts = split(N_PROMPTS, quick())
    world = World(unscorable=lambda coefficients, index: coefficients.c_eps[-1] > 1.05 and index == parts.search[0])
    result = world.calibrate(quick())
    unscorable = [trial for trial in result.finished if math.isnan(trial.value)]
    assert result.failed == len(unscorable) > 0
    assert all(trial.pictures == 3 and not trial.whole for trial in unscorable)
    assert result.coefficients.c_eps[-1] <= 1.05


# --- the paper's grid


def test_the_grid_is_exhaustive_and_in_order():
    world = World()
    result = world.calibrate(quick(strategy="grid", grid=3, trials=1))
    values = (0.8, 1.0, 1.2)
    points = [(trial.point["c_x_last"], trial.point["c_eps_last"]) for trial in result.finished]
    assert points == [(1.0, 1.0), *((x, e) for x in values for e in values)]
    assert all(trial.whole for trial in result.finished)
    assert result.trace == World().calibrate(quick(strategy="grid", grid=3, seed=0)).trace


# --- what asks


def test_each_strategy_has_its_own_way_after_the_same_scattered_points():
    space, samplers = Space(quick(), 4), import_optuna().samplers
    fixed, scattered = [space.identity()], strategies.scattered_points(space)
    kinds = {"guided": samplers.GPSampler, "tpe": samplers.TPESampler, "random": samplers.RandomSampler}
    for strategy, kind in kinds.items():
        asks = [strategies.sampler_for(n, space, quick(strategy=strategy), fixed) for n in range(scattered + 2)]
        expected = [samplers.PartialFixedSampler, *[samplers.RandomSampler] * scattered, kind]
        assert [type(one) for one in asks] == expected


def test_the_tree_of_estimators_goes_on_from_the_scattered_points():
    results = [World().calibrate(quick(strategy=strategy, trials=5)) for strategy in ("tpe", "random")]
    tree, scattered = ([trial.point for trial in result.finished] for result in results)
    assert tree[:5] == scattered[:5] and tree[5] != scattered[5]


# --- greedy


def test_greedy_steps_build_on_each_other():
    """Each step's own optimum is known: (0.95, 1.1) at every one. No two prompts agree on how much is gained there: on
    ties the race's test goes through all signs, fifty times as long."""

    def score(pictures, indices):
        values = np.array(
            [-sum((x - 0.95) ** 2 + (e - 1.1) ** 2 for x, e in zip(c.c_x, c.c_eps, strict=True)) for c, _ in pictures]
        ) * (1 + 0.3 * np.cos(indices))
        return {"tc": values, "iq": values}

    world = World()
    settings = Settings(space="table", strategy="greedy", trials=40, seeds=1)
    result = calibrate(world.generate, score, N_PROMPTS, 2, settings)
    assert len(result.finished) == 2 * (20 + 1)
    assert all(set(trial.point) == set(result.finished[0].point) for trial in result.finished)
    # A step's pair is searched while the later one is still 1.
    first = result.finished[1:21]
    assert all(trial.point["c_x_2"] == trial.point["c_eps_2"] == 1.0 for trial in first)
    # 20 trials of a Gaussian process on a smooth hill of two numbers.
    assert result.coefficients.c_x == pytest.approx([0.95] * 2, abs=0.03)
    assert result.coefficients.c_eps == pytest.approx([1.1] * 2, abs=0.03)


def test_greedy_steps_share_their_units_and_the_first_tries_the_starts():
    """Units are measured once, with a noise of their own; a start says something of the first step's pair alone once
    the later steps build on what was found."""
    world = World()
    settings = quick(space="table", strategy="greedy", trials=8, normalised=True, race=False)
    result = world.calibrate(settings, starts=[Coefficients.constant(N_STEPS, c_x=0.95, c_eps=1.1)])
    assert result.objective.tc_unit == pytest.approx(2 * result.objective.iq_unit) != 1.0
    assert sum({index // N_PROMPTS for index in indices} == {2} for _, indices in world.asked) == 1
    points = [trial.point for trial in result.finished]
    assert len(points) == 1 + N_STEPS * (2 + 1)
    first = {"c_x_1": 0.95, "c_eps_1": 1.1}
    # 1e-12: the nearest point is computed by least squares.
    assert points[1] == pytest.approx({**dict.fromkeys(points[0], 1.0), **first}, abs=1e-12)
    assert all(trial.point["c_x_2"] == 1.0 for trial in result.finished[:4])


@pytest.mark.parametrize(("trials", "per_step"), [(1, 1), (3, 1), (4, 1), (8, 2), (11, 2)])
def test_greedy_steps_share_the_trials_evenly_and_say_how_many_there_will_be(trials, per_step):
    progress = []
    settings = quick(space="table", strategy="greedy", trials=trials, race=False)
    result = World().calibrate(settings, on_progress=progress.append)
    assert len(result.finished) == N_STEPS * (per_step + 1)
    assert {step.trials for step in progress} == {len(result.finished)}
    # All on the whole of the search's prompts: what is foretold at the start is what it was at the end.
    assert {step.total for step in progress} == {progress[-1].done}


def test_greedy_on_several_machines_is_refused(refused):
    with refused(CalibrationError, "the greedy strategy is for one machine."):
        World().calibrate(Settings(space="table", strategy="greedy"), journal="postgresql://nowhere/none")


# --- never twice


def test_a_point_that_was_tried_is_not_asked_for_again():
    """Regression: optuna names the axes in alphabetical order, and a point was compared with its own mirror image."""
    space = Space(quick(space="both ends"), 4)
    best = dict(zip(space.axes, (0.9, 0.95, 1.1, 1.15), strict=True))
    points = [tuple(best.values())]
    shuffled = {axis: best[axis] for axis in sorted(space.axes)}
    instead = strategies.fresh(shuffled, points, best, space, 0, 7)
    assert instead != best
    assert all(abs(instead[axis] - best[axis]) < 0.2 and 0.8 <= instead[axis] <= 1.2 for axis in space.axes)
    assert instead == strategies.fresh(shuffled, points, best, space, 0, 7)
    assert instead != strategies.fresh(shuffled, points, best, space, 0, 8)
    new = {**shuffled, "c_x_last": 1.0}
    assert strategies.fresh(new, points, best, space, 0, 7) == new


def test_a_guided_search_on_rough_ground_tries_another_point_every_time(monkeypatch):
    """Regression: with every value taken for exact, the process asked for its best point forty times."""
    monkeypatch.setattr(strategies, "scattered_points", lambda space: 4)

    class Rough(World):
        def jaq(self, coefficients, index):
            steps = [round(value, 2) for value in (coefficients.c_x[-1], coefficients.c_eps[-1])]
            return super().jaq(coefficients, index) + 0.05 * math.sin(1e4 * steps[0] + 3e4 * steps[1])

    result = Rough().calibrate(quick(strategy="guided", trials=24))
    points = np.array([list(trial.point.values()) for trial in result.finished])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + np.eye(len(points))
    assert apart.min() > 1e-4


def test_two_workers_that_the_model_guides_at_once_are_given_two_points(monkeypatch):
    """Regression: knowing the same trials, both were given the same point, and one's pictures told nothing."""
    optuna = import_optuna()
    space, proposal = Space(quick(), 4), (0.92, 1.07)

    class OnePoint(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study, trial):
            return distributions

        def sample_relative(self, study, trial, search_space):
            return dict(zip(space.axes, proposal, strict=True))

    distributions = {axis: optuna.distributions.FloatDistribution(space.low, space.high) for axis in space.axes}
    proposals = place_sampler.Proposals(space, quick(), [])
    study = optuna.create_study(sampler=place_sampler.sampler_by_place(proposals))
    proposals.trials = Trials(study, "study", 40, GuardRule(None))
    monkeypatch.setattr(place_sampler, "sampler_for", lambda *_: OnePoint())

    def next_point() -> tuple[float, ...]:
        params = study.ask(distributions).params
        return tuple(params[axis] for axis in space.axes)

    assert next_point() == proposal
    assert math.dist(next_point(), proposal) > 0.01 * (space.high - space.low)
    for number in range(2):
        study.tell(number, state=optuna.trial.TrialState.FAIL)  # their workers died: the point may be asked for again
    assert next_point() == proposal


# --- budgets


@pytest.mark.parametrize("pictures", [1, 30, 60])
def test_a_budget_of_pictures_ends_the_search(pictures):
    world = World()
    result = world.calibrate(quick(trials=100, race=False, pictures=pictures))
    counts = sum(len(indices) for _, indices in world.searched)
    # The identity and one candidate are always tried; then it stops with the trial that reaches the budget.
    assert max(24, pictures) <= counts < max(25, pictures + 12)
    assert len(result.trace) == counts / 12


def test_a_budget_of_time_ends_the_search(monkeypatch):
    monkeypatch.setattr(Search, "seconds", lambda self: 10.0 * len(self.finished()))
    assert len(World().calibrate(quick(trials=100, minutes=1)).trace) == 6


# --- starts from elsewhere


def test_starts_are_tried_after_the_identity_and_the_best_of_all_wins():
    top = Coefficients.ramp(N_STEPS, c_x=(1.0, 0.95), c_eps=(1.0, 1.1))
    bad = Coefficients.constant(N_STEPS, c_x=1.15, c_eps=0.85)
    world = World()
    result = world.calibrate(quick(trials=3), starts=[bad, top])
    points = [trial.point for trial in result.finished]
    assert points[0] == {"c_x_last": 1.0, "c_eps_last": 1.0}
    assert points[2] == pytest.approx({"c_x_last": 0.95, "c_eps_last": 1.1}, abs=1e-12)
    assert len(points) == 1 + 2 + 3
    # 1e-12: the nearest line to a line is computed by least squares.
    assert result.coefficients.c_eps == pytest.approx(top.c_eps, abs=1e-12)


# --- units


def test_units_are_what_the_noise_alone_moves_a_metric_by():
    noise = np.random.default_rng(0)
    one, other = noise.normal(0, [[0.5], [2.0]], (2, 5000)), noise.normal(0, [[0.5], [2.0]], (2, 5000))
    units = Objective.normalised(3.0, *({"tc": row[0], "iq": row[1]} for row in (one, other)))
    # Four standard errors of 5000 draws.
    assert (units.tc_unit, units.iq_unit) == pytest.approx((0.5, 2.0), rel=0.04)
    assert units({"tc": np.array([1.0]), "iq": np.array([2.0])}) == pytest.approx(
        [1 / units.tc_unit + 6 / units.iq_unit]
    )


def test_a_metric_that_does_not_vary_or_is_not_there_keeps_its_own_unit():
    rows = ({"tc": np.ones(4), "iq": np.full(4, np.nan)} for _ in range(2))
    assert Objective.normalised(2.0, *rows) == Objective(2.0)


def test_normalised_studies_measure_units_once_and_keep_them(tmp_path):
    journal, settings = tmp_path / "study.jsonl", quick(normalised=True, trials=3)
    world, again = World(), World()
    result = world.calibrate(settings, journal=journal)
    assert result.objective.tc_unit == pytest.approx(2 * result.objective.iq_unit)
    assert again.calibrate(settings, journal=journal).objective == result.objective
    assert again.asked == []
    # A noise of their own: neither the verdict's nor the search's.
    assert {index // N_PROMPTS for index in world.asked[1][1]} == {2}


# --- a second set of prompts


def test_a_second_set_is_for_the_verdict_alone():
    world, verdict = World(), (3, 4, 5, 20)
    result = world.calibrate(quick(seeds=2), verdict_prompts=verdict)
    searched = {index for _, indices in world.searched for index in indices}
    assert searched == set(range(N_PROMPTS)) - set(verdict)
    assert result.identity.indices == (27, 28, 29, 44, 51, 52, 53, 68)


@pytest.mark.parametrize(
    ("verdict", "text"), [((3,), "24 prompts leave 1 for the verdict"), ((3, 24), "the verdict's prompts")]
)
def test_a_second_set_that_is_too_small_or_not_there_is_refused(refused, verdict, text):
    with refused(CalibrationError, text):
        World().calibrate(quick(), verdict_prompts=verdict)


# --- journals


def test_a_journal_of_another_calibration_is_refused(tmp_path, refused):
    journal = tmp_path / "study.jsonl"
    World().calibrate(quick(trials=2), journal=journal)
    with refused(CalibrationError, "this journal belongs to a calibration with other inputs."):
        World().calibrate(quick(trials=2, k=3.0), journal=journal)


def test_an_address_without_a_database_is_a_clear_error():
    with pytest.raises(CalibrationError, match="no study can be kept at sqlite:///") as caught:
        Search(Space(quick(), 4), quick(), "sqlite:////nowhere/at/all.db")
    assert "Fix: check the address" in str(caught.value)


def test_no_password_is_shown_in_an_error():
    with pytest.raises((CalibrationError, DependencyError)) as caught:
        Search(Space(quick(), 4), quick(), "postgresql+psycopg://me:secret@127.0.0.1:9/none")
    assert "secret" not in str(caught.value)


def test_starts_of_the_model_are_scattered_by_seed():
    """Guided search: the first points after the identity are not a line or a corner."""
    world = World()
    world.calibrate(quick(strategy="guided", trials=strategies.scattered_points(Space(quick(), 4)), race=False))
    pairs = np.array([(c.c_x[-1], c.c_eps[-1]) for c, _ in world.searched[1:]])
    assert np.linalg.matrix_rank(pairs - pairs.mean(0)) == 2
