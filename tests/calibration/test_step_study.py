"""The plan of the steps: the solver against every plan there is, and studies of pictures whose losses are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from calibration.plots.step_losses import step_losses
from calibration.split import Split
from calibration.step_plan import AS_NEAR, StepOption, solve_steps
from calibration.step_rows import StepRows
from calibration.step_study import StepStudy
from qsched_core import CalibrationError

OPTIONS = (StepOption("1", 0, 4, 16, 10), StepOption("1a8", 0, 8, 32, 10), StepOption("2", 1, 4, 64, 30))
STEP_LOSSES = np.array([0.0004, 0.0005, 0.0003, 0.0010])
"""METHOD.md: what each of four steps costs in squared distance when it alone is W4A4."""
SHARE = np.array([1.0, 0.6, 0.0])


@pytest.mark.parametrize("seed", range(8))
def test_the_solver_is_as_good_as_trying_every_plan(seed):
    rng = np.random.default_rng(seed)
    distances, losses = rng.random((4, 3)) * [1, 0.5, 0], rng.normal(size=(4, 3))
    costs, budget, memory = np.array([0.25, 0.5, 1.0]), rng.uniform(0.3, 0.9), (35, 45)[seed % 2]
    plan = solve_steps(distances, losses, OPTIONS, costs, budget, memory)

    def fits(one):
        models = {OPTIONS[i].model: OPTIONS[i].bytes for i in one}
        return np.mean(costs[list(one)]) <= budget and sum(models.values()) <= memory

    def total(values, one):
        return sum(values[step, i] for step, i in enumerate(one))

    every = [one for one in itertools.product(range(3), repeat=4) if fits(one)]
    least = min(total(distances, one) for one in every)
    near = [one for one in every if total(distances, one) <= least * (1 + AS_NEAR)]
    assert fits(plan) and total(distances, plan) <= least * (1 + AS_NEAR) * (1 + 1e-6)
    assert total(losses, plan) == pytest.approx(min(total(losses, one) for one in near))


@pytest.mark.parametrize("plan", [(0, 0, 1, 2, 1, 0, 2), (1,) * 7, (0,) * 7, (2, 0, 0, 0, 0, 0, 0)])
@pytest.mark.parametrize("costs", [(0.1, 0.3, 1.0), (1 / 3, 0.7, 1.0)])
def test_a_budget_that_is_taken_to_the_last_bit_is_enough(plan, costs):
    """Sums are rounded: seven times a third are not seven thirds."""
    distances = 1.0 - np.eye(3)[list(plan)]
    assert solve_steps(distances, 0 * distances, OPTIONS, costs, np.mean([costs[i] for i in plan])) == plan
    memory = sum({OPTIONS[i].model: OPTIONS[i].bytes for i in plan}.values())
    assert solve_steps(distances, 0 * distances, OPTIONS, costs, np.inf, memory) == plan


def test_no_plan_within_the_budget_is_said(refused):
    with refused(CalibrationError, "no plan of the steps costs so little"):
        solve_steps(np.zeros((2, 3)), np.zeros((2, 3)), OPTIONS, [0.25, 0.5, 1.0], 0.2)


class Pictures:
    """Gray pictures that are off by the root of the summed needs, with a sign and a little noise of their own."""

    def __init__(self, losses=STEP_LOSSES, joint: float = 0.0):
        self.needed, self.joint, self.count, self.calls = np.asarray(losses), joint, 0, []

    def __call__(self, plan, indices):
        self.calls.append(plan)
        self.count += len(indices)
        error = sum(self.needed[step] * SHARE[i] for step, i in enumerate(plan))
        error += self.joint * sum(i != 2 for i in plan) * (sum(i != 2 for i in plan) - 1)
        pictures = []
        for index in indices:
            texture = torch.randn(8, 8, 1, generator=torch.Generator().manual_seed(index)).expand(8, 8, 3)
            wobble = 1 + 0.05 * np.sin(7 * index + len(self.calls))
            pictures.append(0.5 + texture / texture.square().mean().sqrt() * error**0.5 * wobble)
        return torch.stack(pictures)


def score(pictures, indices):
    off = (pictures - 0.5).square().flatten(1).mean(1).double().numpy()
    return {"tc": 0.9 - 100 * off, "iq": -off}


PARTS = Split(tuple(range(6)), tuple(range(6 + 12, 12 + 12)), 1)


def study(generate, **more) -> StepStudy:
    return StepStudy(generate, OPTIONS, len(STEP_LOSSES), PARTS, 12, **{"score": score, **more})


def test_the_needy_step_gets_the_bits_and_the_verdict_says_so():
    pictures = Pictures()
    result = study(pictures).run(0.5)
    assert result.adds
    assert np.allclose(result.distances[:, 0], STEP_LOSSES, rtol=0.15)
    assert result.accepted and result.plan[3] == 2  # the last step, which loses most
    assert result.mean_cost(result.plan) <= 0.5
    assert result.gains["distance to full"].high < 0
    assert pictures.count <= 3 * len(STEP_LOSSES) * len(OPTIONS) * 12
    picture = step_losses(result)
    assert picture.size == (1200, 460) and len(picture.getcolors(100000)) > 20


def test_where_nothing_is_won_the_single_format_stays():
    """Steps that all need the same: two widths far apart lose to the format between them."""
    result = study(Pictures(np.full(4, 0.0005))).run(0.5)
    assert result.plan == result.uniform == (1, 1, 1, 1)
    assert not result.accepted


@pytest.mark.parametrize("is_mixed", [True, False])
def test_a_plan_that_breaks_a_picture_is_not_taken_and_one_that_mends_it_is(is_mixed):
    pictures = Pictures()

    def breaking(rows, indices):
        scores = score(rows, indices)
        if tuple(indices) == PARTS.held_out and (len(set(pictures.calls[-1])) > 1) == is_mixed:
            scores["tc"][0] = np.nan
        return scores

    assert study(pictures, score=breaking).run(0.5).accepted == (not is_mixed)


def test_pictures_alone_are_enough():
    """Without prompts there is nothing to score."""
    result = study(Pictures(), score=None).run(0.5)
    assert result.plan[3] == 2 and "jaq" not in result.gains
    assert not result.losses.any()


def test_losses_that_do_not_add_are_not_believed():
    result = study(Pictures(joint=0.004), seed=1).run(0.5)
    assert not result.adds
    assert result.candidate in result.rows  # one that was measured


def test_a_study_goes_on_after_a_cancel_and_a_torn_line(tmp_path):
    class Stop(BaseException):
        pass

    class Stopping(Pictures):
        def __call__(self, plan, indices):
            if len(self.calls) == 9:
                raise Stop
            return super().__call__(plan, indices)

    path = tmp_path / "studies" / "rows.jsonl"
    with pytest.raises(Stop):
        study(Stopping(), rows=StepRows(path)).run(0.5)
    finished = len(StepRows(path))
    assert finished == 8  # one more call made the best option's pictures, to compare with
    with path.open("a") as file:
        file.write('{"plan": [0, 0, 0')
    second = Pictures()
    result = study(second, rows=StepRows(path)).run(0.5)
    whole = Pictures()
    other = study(whole).run(0.5)
    assert result.plan == other.plan
    assert len(second.calls) == len(whole.calls) - finished
    third = Pictures()
    assert study(third, rows=StepRows(path)).run(0.5).plan == other.plan
    assert third.count == 0
    assert study(third, rows=StepRows(path)).run(0.8).plan
    assert third.count <= 6 + 3 * 12  # another budget needs few pictures more


def test_a_file_of_rows_that_cannot_be_used_is_named(tmp_path, refused):
    (tmp_path / "latin.jsonl").write_bytes("Käse".encode("latin-1"))
    for path in (tmp_path, tmp_path / "latin.jsonl"):
        with refused(CalibrationError, "the study's file cannot be used: ", f"make room, or delete {path}"):
            StepRows(path)
    rows = StepRows(tmp_path / "latin.jsonl" / "rows.jsonl")
    with refused(CalibrationError, "the study's file cannot be used: ", str(tmp_path)):
        study(Pictures(), rows=rows).run(0.5)


@pytest.mark.parametrize("joint", [0.0, 0.004])
def test_progress_counts_up_to_the_most_pictures_there_may_be(joint):
    calls, pictures = [], Pictures(joint=joint)
    result = study(pictures, on_row=lambda done, total, now: calls.append((done, total, len(now)))).run(0.5)
    counts = [count for _, _, count in calls]
    assert [done for done, _, _ in calls] == np.cumsum(counts).tolist() and calls[-1][0] == result.pictures
    (total,) = {total for _, total, _ in calls}
    # Some plans are measured for the verdict too, and one comes out of the solver: not all of them may be new.
    assert result.pictures <= total <= result.pictures + len(PARTS.search) + 3 * len(PARTS.held_out)


def test_time_is_what_one_precision_took():
    timed = study(Pictures())
    for option, seconds in enumerate((1.0, 2.0, 4.0)):
        plan = timed.uniform(option)
        timed.rows.add(plan, timed.measured(plan, PARTS.search), seconds)
    assert timed.run(0.5, "time").costs.tolist() == [0.25, 0.5, 1.0]


def test_one_step_is_a_choice_of_one_format():
    pictures = Pictures([0.001])
    result = StepStudy(pictures, OPTIONS, 1, PARTS, 12, score).run(0.5)
    assert result.plan == result.uniform == (1,)
    # Nothing is left to judge: no picture of the held-out prompts but the best option's, to compare with.
    assert result.gains == {} and not result.accepted
    assert result.pictures == len(OPTIONS) * len(PARTS.search)


def test_memory_is_a_budget_of_weights():
    # The best option's model alone has 30 bytes, both have 40.
    assert set(study(Pictures()).run(1.0, "memory").plan) == {2}
    assert set(study(Pictures()).run(0.5, "memory").plan) == {1}


def test_one_precision_is_no_choice(refused):
    with refused(CalibrationError, "one precision"):
        StepStudy(Pictures(), OPTIONS[:1], 4, PARTS, 12)
