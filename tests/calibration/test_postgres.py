"""A study in a real PostgreSQL: several workers start at once, share the trials, and find what one would find."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from calibration import Settings, calibrate
from calibration.cli.show import show_study
from calibration.search.storage import open_storage
from qsched_core import CalibrationError

sys.path.append(str(Path(__file__).parent))

from workforce import N_PROMPTS, N_STEPS, Job, assert_every_trial_once, quick, soon, trials_per_minute  # noqa: E402
from workforce import score as formula  # noqa: E402

PACKAGE = "postgresql"
"""Debian's; the tests are skipped without it, unless the variable below is set."""

REQUIRE = "QSCHED_REQUIRE_POSTGRES"
SETTINGS = quick(race=False)
SHORT = quick(race=False, trials=2)
TRIALS, PICTURES = 7, 6
PICTURE = 0.08
"""Seconds, so that a trial takes longer than its rows in the database."""


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    """The folder with the socket of a server that is started for this file; it listens nowhere else."""
    programs = _programs()
    if programs is None:
        message = f"no PostgreSQL server here: apt-get install {PACKAGE}"
        pytest.fail(message) if os.environ.get(REQUIRE) else pytest.skip(message)
    if not os.environ.get(REQUIRE):
        pytest.importorskip("psycopg", reason='no driver for PostgreSQL: pip install "psycopg[binary]"')
    # Not pytest's folder: the name of a socket has 107 bytes at most, and the server must be able to get there.
    with tempfile.TemporaryDirectory(prefix="qsched-pg-") as name:
        folder = Path(name)
        user = _unprivileged(folder)
        data = folder / "data"
        _run(user, programs / "initdb", "-D", data, "-U", "qsched", "-A", "trust", "--no-sync", "-E", "UTF8")
        _start(folder)
        try:
            yield folder
        finally:
            _stop(folder)


@pytest.fixture
def database(socket: Path) -> Callable[[], str]:
    """Makes an empty database and gives its URL."""
    import psycopg

    def create() -> str:
        name = f"study_{time.time_ns()}"
        with psycopg.connect(host=str(socket), user="qsched", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://qsched@/{name}?host={socket}"

    return create


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """What one worker finds, in a journal file."""
    folder = tmp_path_factory.mktemp("alone")
    return Job(str(folder / "study.jsonl"), folder, settings=SETTINGS).run()


def test_two_workers_share_a_database(database, tmp_path, alone):
    shared = database()
    single = Job(database(), tmp_path, "single", SETTINGS, PICTURE)
    assert single.run() == alone
    pair = [Job(shared, tmp_path, name, SETTINGS, PICTURE, at=soon()) for name in "ab"]
    processes = [job.start() for job in pair]
    assert [job.outcome(process) for job, process in zip(pair, processes, strict=True)] == [alone, alone]
    assert_every_trial_once(shared, TRIALS)
    shares = [sum(len(indices) == PICTURES for _, indices in job.made()) for job in pair]
    assert sum(shares) == TRIALS
    assert min(shares) > 1
    ratio = trials_per_minute(shared) / trials_per_minute(single.study)
    print(f"two workers made {ratio:.2f} times as many trials per minute as one ({shares[0]} + {shares[1]})")

    late = Job(shared, tmp_path, "late", SETTINGS)
    assert late.run() == alone
    assert late.made() == []


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_start_at_once_on_an_empty_database_do_not_trip(database, tmp_path, alone, workers):
    """All of them make the tables."""
    study, at = database(), soon()
    jobs = [Job(study, tmp_path, f"{number}", SHORT, at=at) for number in range(workers)]
    processes = [job.start() for job in jobs]
    outcomes = [job.outcome(process) for job, process in zip(jobs, processes, strict=True)]
    assert outcomes == [outcomes[0]] * len(jobs)
    assert outcomes[0]["trace"] == alone["trace"][:3]
    assert_every_trial_once(study, 3)


def test_the_gaussian_process_of_two_workers_finds_as_much(database, tmp_path):
    study, settings = database(), quick(strategy="guided", trials=10, race=False)
    jobs = [Job(study, tmp_path, name, settings) for name in "ab"]
    processes = [job.start() for job in jobs]
    one, other = (job.outcome(process) for job, process in zip(jobs, processes, strict=True))
    assert one == other
    assert_every_trial_once(study, 11)
    # As for one worker in test_study_acceptance: half of what can be gained at all.
    assert one["gain"]["gain"] > 0.25


def test_the_trial_of_a_dead_worker_is_made_by_the_other(database, tmp_path, alone):
    study = database()
    doomed = Job(study, tmp_path, "a", SETTINGS, 0.02, dies=("picture", 9), at=soon())
    other = Job(study, tmp_path, "b", SETTINGS, 0.02, at=doomed.at)
    victim, survivor = doomed.start(), other.start()
    victim.join(60)
    assert other.outcome(survivor) == alone
    assert_every_trial_once(study, TRIALS)
    assert doomed.made()[-1][0] in {point for point, _ in other.made()}


@pytest.mark.parametrize("row", [3, 8])
def test_a_database_that_is_stopped_in_the_midst_of_a_study_is_our_error_and_the_study_goes_on(
    socket, database, refused, row
):
    """Rows 0 to 6 are trials, which are told of one way, 7 and 8 the verdict, another. Regression: a raw error of
    sqlalchemy's."""
    url, rows = database(), []

    def generate(coefficients, indices):
        if len(rows) == row:
            rows.append(None)
            _stop(socket)
        rows.append(indices)
        return [(coefficients, index) for index in indices]

    def run():
        return calibrate(generate, formula, N_PROMPTS, N_STEPS, Settings(**SETTINGS), journal=url)

    expected = calibrate(generate_all, formula, N_PROMPTS, N_STEPS, Settings(**SETTINGS))
    try:
        with refused(CalibrationError, "the study's database stopped answering.", "postgresql+psycopg:///study"):
            run()
    finally:
        _start(socket)
    result = run()
    assert (result.trace, result.gain, result.nfe) == (expected.trace, expected.gain, expected.nfe)
    assert len(rows) == 9 + 2  # the row of that moment twice
    assert "7 trials finished" in show_study(url)


def generate_all(coefficients, indices):
    return [(coefficients, index) for index in indices]


def test_a_database_that_is_not_there_is_named_without_its_password(socket, refused):
    url = f"postgresql+psycopg://qsched:secret@/nowhere?host={socket}"
    # The address is cut in its middle where the socket's folder has a long name.
    with refused(CalibrationError, "no study can be kept at postgresql+psycopg:///") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


def _start(folder: Path) -> None:
    options = f"-c listen_addresses='' -k '{folder}' -F"
    arguments = ("-D", folder / "data", "-l", folder / "log", "-o", options, "-w", "start")
    _run(_unprivileged(folder), _programs() / "pg_ctl", *arguments)


def _stop(folder: Path) -> None:
    _run(_unprivileged(folder), _programs() / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl: Debian keeps them out of PATH, one folder per version."""
    program = shutil.which("pg_ctl")
    places = [Path(program).resolve().parent] if program else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


def _unprivileged(folder: Path) -> dict:
    """Options of ``subprocess``: the server refuses to run as root, so it runs as the user of its package."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    import pwd

    name = next((name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}), None)
    if name is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
    account = pwd.getpwnam(name)
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": folder}


def _run(user: dict, program: Path, *arguments: object) -> None:
    # To files, not pipes: the server inherits them, and a pipe would stay open as long as it runs.
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.run([program, *map(str, arguments)], stdout=log, stderr=log, timeout=60, **user)
        log.seek(0)
        assert done.returncode == 0, log.read()
