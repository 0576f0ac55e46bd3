"""The prompts and noises of the search, and those of the verdict: nothing is in both."""

from __future__ import annotations

import pytest
from study_world import World

from calibration import Settings, calibrate
from calibration.split import Split, split
from qsched_core import CalibrationError


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


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (40, [10, 10, 20]),
        (13, [4, 3, 6]),
        (12, [3, 3, 6]),
        (10, [3, 7]),
        (6, [3, 3]),
        (5, [5]),
        (2, [2]),
    ],
)
def test_a_race_s_first_groups_are_quarters_of_three_pictures_or_more(count, sizes):
    groups = Split(tuple(range(count)), (), 1).rungs()
    assert [len(group) for group in groups] == sizes
    assert sum(groups, ()) == tuple(range(count))


def test_a_verdict_s_prompts_may_be_any_that_there_are(refused):
    parts = split(5, Settings(seeds=1), (4, 0, 4))
    assert (parts.search, parts.held_out) == ((1, 2, 3), (5, 9))
    for prompts, ends in (((-1, 2), "-1 to 2"), ((0, 5), "0 to 5")):
        with refused(CalibrationError, f"the verdict's prompts are {ends} of 5.", "count from 0", n_prompts=5):
            split(5, Settings(), prompts)
