"""Indices and seeds: the same in the node, on the command line and in every journal there is."""

from __future__ import annotations

import numpy as np

from calibration.indices import index_of, noise_of, noise_seed, prompt_of


def test_an_index_is_a_prompt_with_a_noise_number():
    indices = [index_of(prompt, noise, 7) for noise in range(3) for prompt in range(7)]
    assert indices == list(range(21))
    assert [(prompt_of(i, 7), noise_of(i, 7)) for i in (0, 6, 7, 20)] == [(0, 0), (6, 0), (0, 1), (6, 2)]
    np.testing.assert_array_equal(prompt_of(np.array([3, 10, 17]), 7), [3, 3, 3])


def test_seeds_stay_as_they_are():
    """Golden: another seed would change every picture, and a resumed journal would hold scores of other pictures."""
    assert [noise_seed(0, i, 24) for i in (0, 23, 24, 47, 48)] == [0, 23, 1_000_003, 1_000_026, 2_000_006]
    assert noise_seed(7, 25, 24) == 1_000_011
    assert noise_seed(2**63 - 1, 1, 24) == 0, "ComfyUI's largest seed does not overflow"


def test_no_two_pictures_of_a_study_start_from_the_same_noise():
    seeds = {noise_seed(5, i, 256) for i in range(256 * 40)}
    assert len(seeds) == 256 * 40
