"""What is printed while a prompt runs."""

import io

from scripts.feed import Progress
from scripts.ticker import LOG_SECONDS, Ticker, titles_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_titles_are_preferred_to_types():
    prompt = {"1": {"class_type": "A", "_meta": {"title": "First"}}, "2": {"class_type": "B"}}
    assert titles_of(prompt) == {"1": "First", "2": "B"}


def test_a_log_gets_a_line_for_a_new_node_and_then_now_and_then():
    time, log = Time(), io.StringIO()
    with Ticker({"1": "Calibrate"}, log, time) as tick:
        tick(Progress("1", fraction=0.0))
        tick(Progress("1", text="trial 1/4"))
        time.now = LOG_SECONDS
        tick(Progress("1", fraction=0.25))
        tick(Progress())
    assert log.getvalue() == "  0:00    0%  Calibrate\n  0:10   25%  Calibrate: trial 1/4\n"


def test_a_terminal_has_one_line_that_is_rewritten():
    time, terminal = Time(), Terminal()
    with Ticker({}, terminal, time) as tick:
        tick(Progress("9", fraction=0.5, text="two\nlines"))
        time.now = 75.0
        tick(Progress())
    assert terminal.getvalue() == "\r\x1b[2K  0:00   50%  9: two lines\r\x1b[2K  1:15   50%  9: two lines\n"


def test_before_the_first_news_it_waits():
    log = io.StringIO()
    with Ticker({}, log, Time()) as tick:
        tick(Progress())
    assert log.getvalue() == "  0:00        waiting\n"
