"""Workers that are processes: they share a study, die at any moment, and the result is the one of a calm run."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from calibration.search.workers import Worker

sys.path.append(str(Path(__file__).parent))

from workforce import Job, assert_every_trial_once, quick, soon, trials  # noqa: E402

TRIALS, PICTURES, VERDICT = 7, 6, 2 * 12
"""Of ``quick()``: the identity and 6 candidates on 6 pictures each at most, and two rows of 12."""

WHOLE = quick(race=False)


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> dict:
    """The result of one worker that nothing happens to."""
    folder = tmp_path_factory.mktemp("calm")
    return Job(str(folder / "study.jsonl"), folder, settings=quick()).run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The same, every candidate on all prompts: how far a race goes depends on what others have finished."""
    folder = tmp_path_factory.mktemp("whole")
    return Job(str(folder / "study.jsonl"), folder, settings=WHOLE).run()


def made(*jobs: Job) -> int:
    return sum(len(indices) for job in jobs for _, indices in job.made())


# --- one worker that dies and comes back


MOMENTS = [
    *[("picture", n) for n in (1, 10, 17)],
    *[("write", n) for n in (3, 6, 7, 8, 16, 35, 61)],
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]} {moment[1]}")
def test_a_worker_that_was_killed_loses_the_running_trial_at_most(tmp_path, calm, moment):
    study = str(tmp_path / "study.jsonl")
    killed, heir = (Job(study, tmp_path, name, quick(), dies=dies) for name, dies in (("a", moment), ("b", None)))
    process = killed.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert heir.run() == calm
    assert_every_trial_once(study, TRIALS)
    assert made(killed, heir) <= calm["nfe"] // 4 + PICTURES


@pytest.mark.parametrize("picture", [2, VERDICT // 2 + 3])
def test_a_verdict_that_was_killed_is_made_again(tmp_path, calm, picture):
    """The first row in its midst, or the second: then the first is not made again."""
    study = str(tmp_path / "study.jsonl")
    searched = calm["nfe"] // 4 - VERDICT
    killed = Job(study, tmp_path, "a", quick(), dies=("picture", searched + picture))
    heir = Job(study, tmp_path, "b", quick())
    killed.start().join(60)
    assert heir.run() == calm
    assert made(heir) == (VERDICT if picture == 2 else VERDICT // 2)


def test_a_worker_that_is_killed_again_and_again_still_arrives(tmp_path, calm):
    """Each time a few lines further than the time before."""
    study, deaths = str(tmp_path / "study.jsonl"), 0
    while True:
        job = Job(study, tmp_path, f"{deaths}", quick(), dies=("write", 25))
        process = job.start()
        process.join(60)
        if process.exitcode == 0:
            break
        deaths += 1
    assert deaths >= 3
    assert job.outcome(process) == calm
    assert_every_trial_once(study, TRIALS)


def test_the_gaussian_process_goes_on_as_if_nothing_had_happened(tmp_path):
    """Places 9 and 10 are its; the worker dies at the tenth."""
    settings = quick(strategy="guided", trials=10, race=False)
    (tmp_path / "calm").mkdir()
    calm = Job(str(tmp_path / "calm.jsonl"), tmp_path / "calm", settings=settings).run()
    study = str(tmp_path / "study.jsonl")
    killed = Job(study, tmp_path, "a", settings, dies=("picture", 10 * PICTURES + 3))
    killed.start().join(60)
    heir = Job(study, tmp_path, "b", settings)
    assert heir.run() == calm
    assert made(heir) == PICTURES + VERDICT


# --- two workers


def test_two_workers_share_the_trials_and_agree(tmp_path, whole):
    study = str(tmp_path / "study.jsonl")
    jobs = [Job(study, tmp_path, name, WHOLE, pause=0.02, at=soon()) for name in "ab"]
    processes = [job.start() for job in jobs]
    outcomes = [job.outcome(process) for job, process in zip(jobs, processes, strict=True)]
    assert outcomes == [whole, whole]
    assert_every_trial_once(study, TRIALS)
    assert {len({point for point, _ in job.made()}) > 1 for job in jobs} == {True}
    # Nothing was made twice but the verdict, which each may make.
    assert made(*jobs) <= whole["nfe"] // 4 + VERDICT


@pytest.mark.parametrize("moment", [("picture", 3), ("picture", 9), ("write", 4), ("write", 5), ("write", 6)], ids=str)
def test_the_trial_of_a_dead_worker_is_made_by_the_other(tmp_path, whole, moment):
    """After four lines a trial is begun, after five it is signed, after six it has a place. Regression: the other one
    waited a minute for it, or left it out where it was the last."""
    study = str(tmp_path / "study.jsonl")
    doomed = Job(study, tmp_path, "a", WHOLE, pause=0.02, dies=moment, at=soon())
    other = Job(study, tmp_path, "b", WHOLE, pause=0.02, at=doomed.at)
    victim, survivor = doomed.start(), other.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    survivor.join(30)
    assert survivor.exitcode == 0
    assert other.outcome(survivor) == whole
    assert_every_trial_once(study, TRIALS)
    assert "FAIL" in {trial.state.name for trial in trials(study)}
    if moment[0] == "picture":
        assert doomed.made()[-1][0] in {point for point, _ in other.made()}


def test_a_worker_that_comes_late_only_reads(tmp_path, whole):
    study = str(tmp_path / "study.jsonl")
    first, second = (Job(study, tmp_path, name, WHOLE) for name in "ab")
    assert first.run() == second.run() == whole
    assert second.made() == []


# --- who is dead


def process_of(process: subprocess.Popen) -> Worker:
    return Worker(platform.node(), process.pid, psutil.Process(process.pid).create_time())


def test_a_worker_is_dead_when_its_process_ended_or_its_number_belongs_to_another():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    worker = process_of(process)
    try:
        assert not worker.is_dead()
        assert Worker(worker.machine, worker.process, worker.started - 100).is_dead()
        assert not Worker("another machine", worker.process, worker.started - 100).is_dead()
    finally:
        process.kill()
        process.wait()
    assert worker.is_dead()


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="processes leave no remains here")
def test_a_worker_whose_parent_has_not_looked_yet_is_dead_all_the_same():
    """Regression: a process that was killed keeps its number until its parent asks; containers have parents that never
    do, and the other workers waited for it for ever."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    worker = process_of(process)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert worker.is_dead()
    finally:
        process.wait()


@pytest.mark.parametrize("hours", [-3, 3])
@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_a_clock_that_is_set_does_not_kill_a_worker(monkeypatch, hours, system):
    """Regression: Linux counts a process's start from the boot by the clock of now, and all others were taken for
    dead. Windows keeps the start, and moves the boot."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started, boot = psutil.Process(process.pid).create_time(), psutil.boot_time()
        worker = Worker.read(Worker(platform.node(), process.pid, started, boot).text())
        monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600 * hours)
        shift = 3600 * hours if system == "Linux" else 0
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: started + shift)
        assert not worker.is_dead()
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: started + shift + 100)
        assert worker.is_dead(), "another process with the same number"
    finally:
        process.kill()
        process.wait()


def test_a_worker_of_another_version_is_read():
    old = '{"machine": "a", "process": 3, "started": 5.0}'
    assert Worker.read(old) == Worker.read(old[:-1] + ', "colour": "red"}') == Worker("a", 3, 5.0)


def test_own_process_is_not_mistaken_for_a_dead_one():
    own = Worker.own()
    assert own.started <= time.time()
    assert Worker.read(own.text()) == own
