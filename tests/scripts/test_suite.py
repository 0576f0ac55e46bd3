"""Summing up runs of pytest: nothing that went wrong may look like success."""

import os
import sys
import time
from pathlib import Path

import pytest

from scripts import suite
from scripts.front_ends import NEWEST
from scripts.host import Host
from scripts.layout import ROOT
from scripts.suite import Job, Outcome, jobs, read_outcome, side_by_side

RESULTS = '<testsuites><testsuite tests="10" failures="{failures}" errors="{errors}" skipped="2"/></testsuites>'


def results(folder, failures=0, errors=0):
    path = folder / "results.xml"
    path.write_text(RESULTS.format(failures=failures, errors=errors), "utf-8")
    return path


def test_counts_are_read(tmp_path):
    assert read_outcome(0, results(tmp_path), may_be_empty=False) == Outcome(passed=8, skipped=2)
    assert read_outcome(1, results(tmp_path, 1, 2), may_be_empty=False) == Outcome(passed=5, failed=3, skipped=2)


def test_a_run_that_broke_off_is_a_failure(tmp_path):
    assert read_outcome(2, results(tmp_path), may_be_empty=False).failed == 1
    assert read_outcome(4, tmp_path / "none.xml", may_be_empty=True).failed == 1
    (tmp_path / "torn.xml").write_text(RESULTS[:40], "utf-8")
    assert read_outcome(0, tmp_path / "torn.xml", may_be_empty=True).failed == 1


def test_no_tests_are_a_failure_unless_a_selection_was_asked_for(tmp_path):
    assert read_outcome(5, tmp_path / "none.xml", may_be_empty=False) == Outcome(failed=1)
    assert read_outcome(5, tmp_path / "none.xml", may_be_empty=True) == Outcome()


def test_the_sum_is_one_line():
    assert str(Outcome(3, 0) + Outcome(4, 1, 2)) == "7 passed, 1 failed, 2 skipped"
    assert str(Outcome(3, 0)) == "3 passed, 0 failed"


# --- runs side by side

PYTHON = Path(sys.executable)
FILES = {
    "fine": "def test_one(): pass\ndef test_two(): pass\n",
    "wrong": "def test_one(): assert 'apples' == 'pears'\n",
    "gone": "import os\ndef test_one(): os._exit(0)\n",
    "empty": "",
    "broken": "import no_such_module\n",
}


@pytest.fixture
def job(tmp_path):
    def make(name: str) -> Job:
        (tmp_path / f"test_{name}.py").write_text(FILES[name], "utf-8")
        return Job(f"{name} tests", [str(tmp_path / f"test_{name}.py")])

    return make


def test_no_failure_is_lost_among_runs_side_by_side(job, capfd):
    """Neither that of a run which ends with status 0 and without results."""
    outcomes = list(side_by_side(PYTHON, [job(name) for name in FILES], most=3))
    assert sum(outcomes, Outcome()) == Outcome(passed=2, failed=4)
    printed = capfd.readouterr().out
    assert "assert 'apples' == 'pears'" in printed
    assert "No module named 'no_such_module'" in printed
    assert printed.count("=== gone tests") == 2
    for block in printed.split("\n=== ")[1:]:
        assert block.count("test session starts") <= 1, "each run's output stays in one piece"


@pytest.mark.parametrize(("cores", "gigabytes", "most"), [
    (2, 25, 4), (1, 64, 3), (2, 12, 3), (2, 8, 2), (8, 3, 1), (64, 256, 4), (2, None, 4),
])  # fmt: skip
def test_a_machine_gets_as_many_runs_as_it_has_room_for(cores, gigabytes, most):
    memory = None if gigabytes is None else gigabytes * 10**9
    assert suite.most_at_once(cores, memory) == most


class ShortRun:
    """Goes on for two looks."""

    at_once, most = 0, 0

    def __init__(self):
        self.looks, self.process = 0, self
        ShortRun.at_once += 1
        ShortRun.most = max(ShortRun.most, ShortRun.at_once)

    def poll(self) -> int | None:
        self.looks += 1
        return None if self.looks <= 2 else 0

    def outcome(self) -> Outcome:
        ShortRun.at_once -= 1
        return Outcome(passed=1)


@pytest.mark.parametrize(("head_start", "most"), [(60.0, 2), (0.0, 4)])
def test_at_first_no_more_runs_than_cores_go_on(job, monkeypatch, head_start, most):
    monkeypatch.setattr(suite, "HEAD_START", head_start)
    monkeypatch.setattr(suite.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(suite.Run, "start", lambda *_: ShortRun())
    monkeypatch.setattr(ShortRun, "most", 0)
    assert list(side_by_side(PYTHON, [job("fine")] * 6, most=4)) == [Outcome(passed=1)] * 6
    assert ShortRun.most == most


def test_runs_end_with_the_command(job, tmp_path, monkeypatch):
    note = f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))"
    slow = f"import os, pathlib, time\ndef test_one():\n    {note}\n    time.sleep(60)\n"
    monkeypatch.setitem(FILES, "slow", slow)
    runs = side_by_side(PYTHON, [job("slow"), job("fine")], most=2)
    assert next(runs) == Outcome(passed=2)
    while not (tmp_path / "pid").exists():
        time.sleep(0.05)
    time.sleep(0.1)
    runs.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_every_file_of_tests_is_in_one_run(tmp_path):
    hosts = [Host(tmp_path / name, "") for name in ("a", "b")]
    dealt = jobs(hosts)
    for host in hosts:
        runs = [one for one in dealt if one.host is host]
        files = [place for one in runs if one.marked != NEWEST for place in one.places]
        on_disk = [path for folder in (suite.HOST, suite.WEB) for path in (ROOT / folder).rglob("test_*.py")]
        assert sorted(files) == sorted(path.relative_to(ROOT).as_posix() for path in on_disk)
        in_a_browser = [one for one in runs if one.places[0].startswith(suite.WEB)]
        assert {one.marked for one in in_a_browser} == {NEWEST, f"not {NEWEST}"}
        assert [one.places for one in in_a_browser if one.marked == NEWEST] == [[suite.WEB]]
        assert not any(one.marked for one in runs if one not in in_a_browser)
    folders = {place for one in dealt if one.host is None for place in one.places} | {suite.HOST, suite.WEB}
    others = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert [name for name in others if not name.startswith(tuple(f"{folder}/" for folder in folders))] == []


def test_threads_are_shared_out_unless_the_user_says_how_many(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Job("", []).environ(2)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert Job("", []).environ(2)["OMP_NUM_THREADS"] == "5"
