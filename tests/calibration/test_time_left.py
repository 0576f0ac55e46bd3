"""How long a run will still take, as it is said."""

from __future__ import annotations

from calibration.time_left import TimeLeft, rounded


def test_the_time_left_counts_down_and_is_set_anew_only_when_it_is_clearly_wrong():
    now = [0.0]
    estimate = TimeLeft(lambda: now[0])
    now[0] = 10.0
    assert estimate(10, 100) == 100
    now[0] = 11.0
    assert estimate(10, 95) == 99  # by itself 104.5: near enough to go on counting down
    now[0] = 20.0
    assert estimate(10, 200) == 400
    assert estimate(10, 0) == 0


def test_times_are_said_as_people_count_them():
    texts = [rounded(seconds) for seconds in (0.2, 12, 29, 44, 119, 125, 3600, 5430)]
    assert texts == ["5 s", "10 s", "30 s", "40 s", "120 s", "2 min", "1 h 00 min", "1 h 30 min"]


def test_two_minutes_are_no_seconds_any_more():
    assert [rounded(seconds) for seconds in (119.9, 120.0, 120.5)] == ["120 s", "2 min", "2 min"]


def test_time_counts_from_the_start_whatever_the_clock_says():
    """One picture in ten seconds, five to go; two seconds later as many are left, and two seconds less."""
    clock = iter((1000.0, 1010.0, 1012.0))
    left = TimeLeft(lambda: next(clock))
    assert [left(1, 5), left(1, 5)] == [50.0, 48.0]
