"""calibrate(): what it searches and what it judges on, what it accepts, and that no interruption changes the result.

The world is made of formulas: a "picture" is the pair (coefficients, index), and scores are functions of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from calibration import Progress, Result, Settings, calibrate
from calibration.search import strategies
from calibration.search.guard import Guard
from calibration.search.storage import open_storage
from calibration.split import split
from qsched_core import CalibrationError, Coefficients

N_PROMPTS, N_STEPS = 12, 4
Picture = tuple[Coefficients, int]


def quick(**changed) -> Settings:
    """Few trials, all of them scattered points (a search without the Gaussian process takes milliseconds), and each on
    all prompts at once. Most worlds here have no reference model: what they find is taken without one."""
    defaults = {"space": "last step", "radius": 0.2, "trials": 6, "seeds": 2, "race": False, "accept": "re-tuning"}
    return Settings(**{**defaults, **changed})


def own(index: int) -> float:
    """What a prompt and its noise bring of themselves: the same in every candidate's row."""
    return math.sin(12.9898 * index + 1.0)


def hill(coefficients: Coefficients) -> float:
    """0 at c_x = 0.95, c_eps = 1.1 in the last step, about -0.5 at the identity."""
    c_x, c_eps = coefficients.at(len(coefficients) - 1)
    return -40 * ((c_x - 0.95) ** 2 + (c_eps - 1.1) ** 2)


def better(picture: Picture) -> float:
    """A real gain, not the same on every prompt."""
    coefficients, index = picture
    return own(index) + hill(coefficients) * (1 + 0.3 * math.cos(index % N_PROMPTS))


def indifferent(picture: Picture) -> float:
    """Two identical models: the coefficients do nothing."""
    return own(picture[1])


def noisy(picture: Picture) -> float:
    """Pure noise, new for every candidate and picture, and the same when asked again."""
    coefficients, index = picture
    generator = np.random.default_rng(abs(hash((coefficients.c_x, coefficients.c_eps, index))))
    return generator.normal()


@dataclass
class World:
    """``value`` is the JAQ of a picture: half of it TC, the rest k·IQ."""

    value: Callable[[Picture], float] = better
    generated: list[tuple[Coefficients, tuple[int, ...]]] = field(default_factory=list)

    def generate(self, coefficients: Coefficients, indices: Sequence[int]) -> list[Picture]:
        self.generated.append((coefficients, tuple(indices)))
        return [(coefficients, index) for index in indices]

    def score(self, pictures: list[Picture], indices: Sequence[int]) -> dict[str, np.ndarray]:
        assert [index for _, index in pictures] == list(indices)
        values = np.array([self.value(picture) for picture in pictures])
        return {"tc": values / 2, "iq": values / 4}

    def calibrate(self, settings: Settings | None = None, n_steps: int = N_STEPS, **options) -> Result:
        return calibrate(self.generate, self.score, N_PROMPTS, n_steps, settings or quick(), **options)


# --- what may not be worsened


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


# --- what the verdict answers


REPAIRABLE = Settings(space="last step", radius=0.2, trials=6, seeds=2, race=False)


@dataclass
class Pair:
    """A quantised model with a gain to find, and a reference whose pictures have the JAQ ``reference`` gives them.

    A picture is (coefficients, index, whether the reference made it). ``order`` has (that, is it the identity?) of
    every call.
    """

    reference: Callable[[Picture], float] = indifferent
    order: list[tuple[bool, bool]] = field(default_factory=list)

    def calibrate(self, settings: Settings = REPAIRABLE, **options) -> Result:
        return calibrate(
            self.generate_with(False), self.score, N_PROMPTS, N_STEPS, settings,
            reference=self.generate_with(True), **options,
        )  # fmt: skip

    def generate_with(self, reference: bool):
        def generate(coefficients, indices):
            self.order.append((reference, coefficients.is_identity))
            return [(coefficients, index, reference) for index in indices]

        return generate

    def score(self, pictures, indices):
        values = np.array([(self.reference if on_reference else better)((c, i)) for c, i, on_reference in pictures])
        return {"tc": values / 2, "iq": values / 4}


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (indifferent, "repair"),  # the reference has nothing to gain
        (better, "re-tuning"),  # it gains as much: two models that are the same
        (lambda picture: 0.5 * better(picture), "repair"),  # half of the gain is left
    ],
    ids=["nothing to gain", "the same model", "half as much"],
)
def test_a_repair_is_what_the_reference_does_not_gain(reference, answer):
    pair = Pair(reference)
    result = pair.calibrate()
    assert result.answer == answer
    assert result.accepted == (answer == "repair")
    assert result.recommended.is_identity == (answer != "repair")
    # By hand: the net gain's mean is the difference of the two means.
    assert result.on_reference.net.gain == pytest.approx(result.gain.gain - result.on_reference.same.gain, abs=1e-12)
    assert [is_identity for on_reference, is_identity in pair.order if on_reference] == [True, False]


def test_without_a_reference_a_gain_may_be_retuning_and_is_taken_on_request_alone():
    """Regression: the default search signed gains that were none."""
    careful = World().calibrate(REPAIRABLE)
    assert (careful.answer, careful.accepted, careful.on_reference) == ("re-tuning", False, None)
    assert careful.recommended.is_identity
    willing = World().calibrate(quick())
    assert (willing.answer, willing.accepted) == ("re-tuning", True)
    assert willing.recommended == willing.coefficients == careful.coefficients


@pytest.mark.parametrize("accept", ["repair", "re-tuning"])
def test_nothing_is_accepted_with_a_drift(accept):
    def judge(pictures, indices):
        return {"contrast": np.array([1.0 if c.is_identity else 1.1 for c, *_ in pictures])}

    result = Pair().calibrate(quick(accept=accept), judge=judge)
    assert result.gain.low > 0
    assert (result.answer, result.accepted, result.drifts) == ("nothing found", False, ("contrast",))


def test_a_statistic_that_comes_nearer_to_the_reference_is_no_drift():
    def judge(pictures, indices):
        # 1.0 on the quantised model, 1.1 with a candidate and on the reference: what quantising took comes back.
        return {"contrast": np.array([1.0 if c.is_identity and not rest[-1] else 1.1 for c, *rest in pictures])}

    assert Pair().calibrate(judge=judge).answer == "repair"

    def alone(pictures, indices):
        return {"contrast": np.array([1.0 if c.is_identity else 1.1 for c, *_ in pictures])}

    assert World().calibrate(REPAIRABLE, judge=alone).drifts == ("contrast",)


def test_pictures_of_the_reference_are_made_before_the_search_and_once(tmp_path):
    pair = Pair()
    first = pair.calibrate(journal=tmp_path / "j")
    assert pair.order[0] == (True, True)
    assert [call for call in pair.order if call[0]] == [(True, True), (True, False)]
    assert pair.order[-1] == (True, False)
    pair.order.clear()
    again = pair.calibrate(journal=tmp_path / "j")
    assert pair.order == []
    assert (again.answer, again.gain, again.on_reference.net) == (first.answer, first.gain, first.on_reference.net)


# --- the split


@pytest.mark.parametrize("n_prompts", [4, 5, 12, 25, 256])
@pytest.mark.parametrize("holdout", [0.4, 0.5, 0.6])
@pytest.mark.parametrize("seeds", [1, 4])
def test_search_and_verdict_share_no_prompt_and_no_noise(n_prompts, holdout, seeds):
    parts = split(n_prompts, Settings(holdout=holdout, seeds=seeds))
    prompts = [{index % n_prompts for index in part} for part in (parts.search, parts.held_out)]
    noises = [{index // n_prompts for index in part} for part in (parts.search, parts.held_out)]
    assert prompts[0] & prompts[1] == set()
    assert prompts[0] | prompts[1] == set(range(n_prompts))
    assert noises == [{0}, set(range(1, 1 + seeds))]
    assert len(parts.search) == len(prompts[0])
    assert len(parts.held_out) == len(set(parts.held_out)) == len(prompts[1]) * seeds
    assert len(prompts[1]) == round(n_prompts * holdout)


@pytest.mark.parametrize(
    ("n_prompts", "search", "held_out", "noises"),
    [
        (4, 2, 2, 4),
        (12, 6, 6, 4),
        (24, 12, 12, 4),
        (36, 12, 24, 2),
        (60, 12, 48, 1),
        (96, 48, 48, 1),
        (256, 128, 128, 1),
    ],
)
def test_prompts_that_the_search_does_not_need_go_to_the_verdict(n_prompts, search, held_out, noises):
    parts = split(n_prompts, Settings())
    assert (len(parts.search), len(parts.held_out), parts.noises) == (search, held_out * noises, noises)


def test_the_split_depends_on_the_seed_alone():
    assert split(12, Settings(seed=1)) == split(12, Settings(seed=1, k=5, trials=3))
    assert split(12, Settings(seed=1)) != split(12, Settings(seed=2))


@pytest.mark.parametrize(("n_prompts", "holdout"), [(0, 0.5), (3, 0.5), (4, 0.2), (4, 0.8), (100, 0.01), (100, 0.99)])
def test_less_than_two_prompts_on_a_side_are_refused(refused, n_prompts, holdout):
    with refused(CalibrationError, f"{n_prompts} prompts leave ", n_prompts=n_prompts):
        split(n_prompts, Settings(holdout=holdout))
    with refused(CalibrationError, "for the search"):
        calibrate(World().generate, World().score, n_prompts, 4, Settings(holdout=holdout))


# --- what is generated


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


# --- what is accepted


def test_a_real_gain_is_accepted():
    world = World(better)
    result = world.calibrate(quick(trials=8))
    parts = split(N_PROMPTS, quick())
    best = max(world.generated[:-2], key=lambda item: np.mean([better((item[0], i)) for i in parts.search]))[0]
    assert result.coefficients == result.recommended == best
    assert result.accepted
    assert result.gain.low > 0
    assert result.gain.prompts == 6
    # 1e-12: the same sums in another order.
    held_out = [np.mean([better((c, i)) for i in parts.held_out]) for c in (best, Coefficients.identity(N_STEPS))]
    assert (result.jaq, result.baseline_jaq) == pytest.approx(held_out, abs=1e-12)
    assert result.gain.gain == pytest.approx(held_out[0] - held_out[1], abs=1e-12)
    assert result.candidate.mean("tc") == pytest.approx(held_out[0] / 2, abs=1e-12)


def test_the_gaussian_process_finds_the_gain_of_the_widest_space(monkeypatch):
    """The whole loop as it ships but for the number of random starts, which is 8."""
    monkeypatch.setattr(strategies, "scattered_points", lambda space: 6)
    result = World(better).calibrate(Settings(space="both ends", radius=0.2, trials=12, seeds=1))
    assert result.answer == "re-tuning"
    # Half of what can be gained at all (0.5 on average), with 12 points in 4 dimensions.
    assert result.gain.gain > 0.25


@pytest.mark.parametrize("seed", range(20))
def test_identical_models_gain_nothing(seed):
    """The coefficients do nothing: whatever the prompts and noises bring, no candidate may be accepted."""
    result = World(indifferent).calibrate(quick(seed=seed, trials=3))
    assert not result.accepted
    assert result.coefficients == result.recommended == Coefficients.identity(N_STEPS)
    assert (result.gain.low, result.gain.high) == (0.0, 0.0)


def test_the_best_of_pure_noise_is_accepted_no_more_often_than_promised():
    """The winner's curse: the best of 6 noises always looks like a gain on the search prompts."""
    results = [World(noisy).calibrate(quick(seed=seed)) for seed in range(100)]
    looked_good = sum(max(v for _, v in result.trace) > result.trace[0][1] for result in results)
    assert looked_good > 70
    # 2.5 % of 100 are expected; more than 8 would happen by chance once in a thousand.
    assert sum(result.accepted for result in results) <= 8
    for result in results:
        assert result.recommended == (result.coefficients if result.accepted else Coefficients.identity(N_STEPS))


def test_a_gain_on_the_search_prompts_alone_is_not_accepted():
    settings = quick()
    searched = {index % N_PROMPTS for index in split(N_PROMPTS, settings).search}

    def overfitted(picture: Picture) -> float:
        coefficients, index = picture
        sign = 1 if index % N_PROMPTS in searched else -1
        return own(index) + sign * hill(coefficients)

    result = World(overfitted).calibrate(settings)
    assert not result.coefficients.is_identity
    assert result.gain.high < 0
    assert not result.accepted
    assert result.recommended.is_identity


def test_an_identity_that_is_best_is_recommended():
    def worse(picture: Picture) -> float:
        return own(picture[1]) - sum(abs(value - 1) for value in picture[0].c_x + picture[0].c_eps)

    result = World(worse).calibrate()
    assert result.coefficients.is_identity
    assert not result.accepted
    assert result.on_border == ()


def test_an_optimum_outside_the_trust_region_is_reported(monkeypatch):
    monkeypatch.setattr(strategies, "scattered_points", lambda space: 4)

    def outward(picture: Picture) -> float:
        return own(picture[1]) + picture[0].c_eps[-1]

    result = World(outward).calibrate(quick(trials=8, radius=0.1))
    assert result.on_border == ("c_eps_last",)
    assert result.accepted


def test_k_weighs_image_quality():
    """TC falls and IQ rises with c_eps: what is best depends on k alone."""

    def score(pictures, indices):
        c_eps = np.array([coefficients.c_eps[-1] for coefficients, _ in pictures])
        return {"tc": -c_eps, "iq": c_eps}

    last = [
        calibrate(World().generate, score, N_PROMPTS, N_STEPS, quick(k=k)).coefficients.c_eps[-1] for k in (0.5, 2.0)
    ]
    assert last[0] < 1 < last[1]


# --- NaN


def broken_where(condition: Callable[[Picture], bool]) -> World:
    return World(lambda picture: math.nan if condition(picture) else better(picture))


def test_a_region_of_nan_never_wins():
    result = broken_where(lambda picture: picture[0].c_eps[-1] > 1.05).calibrate(quick(trials=8))
    assert any(math.isnan(value) for _, value in result.trace)
    assert result.coefficients.c_eps[-1] <= 1.05
    assert math.isfinite(result.jaq)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_broken_picture_is_enough_to_lose_a_trial(bad):
    first = split(N_PROMPTS, quick()).search[0]
    world = World(lambda p: bad if p[1] == first and not p[0].is_identity else better(p))
    result = world.calibrate()
    assert [math.isnan(value) for _, value in result.trace] == [False] + [True] * 6
    assert result.coefficients.is_identity
    assert not result.accepted


def test_a_candidate_that_breaks_a_held_out_picture_is_not_accepted():
    """Regression: the broken picture counted as no gain, and the others carried the candidate through."""
    held_out = split(N_PROMPTS, quick()).held_out
    result = broken_where(lambda p: p[1] == held_out[3] and not p[0].is_identity).calibrate(quick(trials=8))
    assert not result.coefficients.is_identity
    assert result.gain.low > 0
    assert not result.accepted
    assert result.recommended.is_identity


def test_a_picture_that_the_identity_breaks_too_does_not_stop_a_gain():
    held_out = split(N_PROMPTS, quick()).held_out
    result = broken_where(lambda picture: picture[1] == held_out[3]).calibrate(quick(trials=8))
    assert result.accepted


def test_an_identity_of_nan_is_no_crash_and_no_proof():
    result = broken_where(lambda picture: picture[0].is_identity).calibrate()
    assert math.isnan(result.trace[0][1])
    assert math.isnan(result.baseline_jaq)
    assert not result.coefficients.is_identity
    assert not result.accepted


def test_nothing_but_nan_is_refused(refused):
    with refused(CalibrationError, "not one candidate could be scored"):
        broken_where(lambda picture: True).calibrate()


def test_a_judge_that_knows_none_of_the_prompts_is_no_obstacle():
    result = World().calibrate(judge=lambda pictures, indices: {"accuracy": np.full(len(indices), np.nan)})
    assert math.isnan(result.identity.mean("accuracy"))
    assert result.gains["accuracy"].gain == 0.0
    assert result.accepted == World().calibrate().accepted


def test_scores_may_be_tensors():
    def score(pictures, indices):
        return {name: torch.from_numpy(values) for name, values in World().score(pictures, indices).items()}

    assert calibrate(World().generate, score, N_PROMPTS, N_STEPS, quick()).trace == World().calibrate().trace


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (lambda n: {"tc": np.zeros((n, 1)), "iq": np.zeros(n)}, "'tc' gave shape (6, 1) for 6 pictures"),
        (lambda n: {"tc": np.zeros(n), "iq": 0.5}, "'iq' gave shape () for 6 pictures"),
        (lambda n: {"tc": np.zeros(n - 1), "iq": np.zeros(n)}, "'tc' gave shape (5,)"),
        (lambda n: {"tc": ["good"] * n, "iq": np.zeros(n)}, "'tc' gave list"),
        (lambda n: {"tc": None, "iq": np.zeros(n)}, "'tc' gave shape ()"),
        (lambda n: {"tc": np.zeros(n)}, "gave no iq"),
        (lambda n: np.zeros(n), "a metric gave ndarray"),
    ],
)
def test_metrics_of_a_wrong_shape_are_named(refused, scores, text):
    """Regression: an error of numpy's, or a mean over the wrong axis."""
    with refused(CalibrationError, text):
        calibrate(World().generate, lambda pictures, indices: scores(len(indices)), N_PROMPTS, N_STEPS, quick())


def test_a_distance_of_a_wrong_shape_is_named(refused):
    with refused(CalibrationError, "'distance' gave shape (1,) for 6 pictures"):
        World().calibrate(guard=Guard(lambda pictures, indices: {"distance": [0.0]}))


def test_a_metric_that_sees_nothing_is_named_before_the_search(refused):
    """Regression: hours of search that ended in "no candidate beat the stock sampler"."""
    world = World(lambda picture: 0.75)
    with refused(CalibrationError, "the metric gives all pictures the same score, 0.75."):
        world.calibrate()
    assert len(world.generated) == 2, "the identity and one candidate"


def test_the_model_is_no_reference_of_itself(refused):
    world = World()
    generate = world.generate
    with refused(CalibrationError, "the reference is the model itself."):
        calibrate(generate, world.score, N_PROMPTS, N_STEPS, quick(), reference=generate)
    assert not world.generated


# --- progress


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


# --- interruptions


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
