"""The blind vote's arithmetic: exact intervals, and no claim that chance alone would make too often."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from calibration.votes import MIN_VOTES, Votes, wins_needed
from qsched_core import CalibrationError


@pytest.mark.parametrize("votes", [1, 5, 6, 12, 50, 200])
def test_the_interval_is_the_exact_one(votes):
    """scipy's own, which takes a second to import."""
    from scipy.stats import binomtest

    for wins in range(0, votes + 1, max(1, votes // 10)):
        exact = binomtest(wins, votes).proportion_ci(0.95, "exact")
        # 1e-9: two ways to invert the same function.
        assert Votes(wins, votes - wins).interval() == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_without_a_vote_nothing_is_counted():
    assert Votes() == Votes(wins=0, losses=0, skips=0) != Votes(skips=1)


def test_a_claim_is_made_exactly_where_a_two_sided_test_rejects():
    from scipy.stats import binomtest

    for votes in range(1, 41):
        for wins in range(votes + 1):
            claimed = Votes(wins, votes - wins).verdict in ("better", "worse")
            assert claimed == (binomtest(wins, votes).pvalue <= 0.05), (wins, votes)


def test_coins_are_taken_for_a_difference_no_more_often_than_promised():
    """5 % in all at most. 4000 draws: four standard errors are 1.4 %."""
    generator = np.random.default_rng(0)
    for votes in (6, 12, 30):
        wins = generator.binomial(votes, 0.5, size=4000)
        verdicts = [Votes(int(k), votes - int(k)).verdict for k in wins]
        assert sum(verdict in ("better", "worse") for verdict in verdicts) / 4000 < 0.05 + 0.014


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        (Votes(), "too few votes"),
        (Votes(0, 0, 9), "too few votes"),
        (Votes(5, 0), "too few votes"),
        (Votes(6, 0), "better"),
        (Votes(0, 6), "worse"),
        (Votes(7, 5), "no difference seen"),
        (Votes(10, 2), "better"),
        (Votes(2, 10, 30), "worse"),
    ],
)
def test_verdicts(votes, verdict):
    assert votes.verdict == votes.record()["verdict"] == verdict


def test_changing_sides_mirrors_the_interval():
    low, high = Votes(9, 4).interval()
    # 1e-12: subtractions from one.
    assert Votes(4, 9).interval() == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_the_table_of_the_help_page():
    """By the binomial distribution: the smallest k with 2 P(X >= k) <= 5 %."""
    table = {5: None, 6: 6, 8: 8, 10: 9, 12: 10, 20: 15, 30: 21, 50: 33, 100: 61, 200: 115}
    assert {votes: wins_needed(votes) for votes in table} == table
    assert wins_needed(MIN_VOTES - 1) is None
    assert wins_needed(MIN_VOTES) is not None


def test_the_sentence_says_what_was_seen_and_what_was_missing():
    assert str(Votes(10, 2, 1)) == (
        "Blind vote: better with the preset. The preset won 10 of 12 decided votes, 83.3 % [51.6 %, 97.9 %]; 1 skipped."
    )
    assert str(Votes(7, 5)).endswith("58.3 % [27.7 %, 84.8 %]. 10 of 12 would show a gain, 2 a loss.")
    assert "no difference seen" in str(Votes(7, 5))
    assert str(Votes(3, 1)).endswith("; at least 2 more are needed.")
    assert str(Votes(0, 0, 4)) == "Blind vote: nothing was decided; 4 skipped."


@pytest.mark.parametrize("count", range(1, 10))
def test_the_votes_that_are_said_to_be_needed_are_enough_for_a_claim(count):
    text = str(Votes(count, 0))
    match = re.search(r"at least (\d+) more are needed", text)
    assert (match is None) == (Votes(count, 0).verdict == "better")
    if match:
        more = int(match[1])
        assert Votes(count + more, 0).verdict == "better" and Votes(count + more - 1, 0).verdict == "too few votes"
    assert ("more are needed" in str(Votes(0, count))) == (match is not None)
    assert ("would show a gain" in str(Votes(count // 2, count - count // 2))) == (match is None)


def test_the_record_is_plain_json_even_without_votes():
    for votes in (Votes(), Votes(3, 4, 5)):
        assert json.loads(json.dumps(votes.record(), allow_nan=False)) == votes.record()


def test_counts_below_zero_are_refused(refused):
    with refused(CalibrationError, "-1"):
        Votes(-1, 2)
