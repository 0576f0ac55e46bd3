"""Journals that a disk, a power cut, an editor or a clock has harmed: the same inputs run to the same end, or the
answer names the file and the way out. Nothing ends in another result without a word.

The world is made of formulas, as in study_world.
"""

from __future__ import annotations

import builtins
import errno
import json
import math
import os
import random
import signal
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from benchmarks.attack.journals import KINDS, N_PROMPTS, N_STEPS, figures, mutant, score
from calibration import Result, Settings, calibrate
from calibration.cli.show import show_study
from calibration.report import remarks, verdict
from calibration.search.journal import CheckedJournal
from calibration.search.storage import import_optuna, open_storage
from qsched_core import CalibrationError


class World:
    """``broken``: every picture is NaN. ``stop``: raises before its so-many-th row of pictures."""

    def __init__(self, unscorable: bool = False, stop: int | None = None):
        self.broken, self.stop, self.rows = unscorable, stop, 0

    def generate(self, coefficients, indices):
        if self.rows == self.stop:
            raise Stopped
        self.rows += 1
        return [(coefficients, index) for index in indices]

    def score(self, pictures, indices):
        scores = score(pictures, indices)
        return {name: values * math.nan for name, values in scores.items()} if self.broken else scores

    def run(self, journal: object, **changed) -> Result:
        options = {"space": "last step", "trials": 6, "seeds": 2, "strategy": "random", "race": False, **changed}
        return calibrate(self.generate, self.score, N_PROMPTS, N_STEPS, Settings(**options), journal=journal)


class Stopped(BaseException):
    """As the host's cancel: not an Exception."""


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[int]:
    """Nothing waits for the disk here; a file's number for each time that something would have."""
    numbers = []
    monkeypatch.setattr(os, "fsync", numbers.append)
    return numbers


def test_every_line_is_on_the_disk_before_the_study_goes_on(tmp_path, waits):
    journal = tmp_path / "study.jsonl"
    World().run(journal)
    assert len(waits) == len(journal.read_bytes().splitlines())


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> tuple[tuple, bytes]:
    """(What a study finds that nothing happens to, its journal)"""
    journal = tmp_path_factory.mktemp("calm") / "study.jsonl"
    return figures(World().run(journal)), journal.read_bytes()


# --- damage


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_journal_comes_to_the_same_end_or_names_the_way_out(tmp_path, calm, kind, refused):
    """Regression: 335 of 5200 such journals ended in another result, and others in a JSON error."""
    expected, content = calm
    draw = random.Random(kind)
    for number in range(12):
        journal = tmp_path / f"{number}.jsonl"
        journal.write_bytes(mutant(content, kind, draw))
        try:
            assert figures(World().run(journal)) == expected
        except CalibrationError as error:
            assert str(journal) in str(error)
            assert "damaged at line 1" in str(error)
            journal.unlink()
            assert figures(World().run(journal)) == expected


def test_what_is_damaged_is_copied_before_the_study_goes_on(tmp_path, calm, caplog):
    expected, content = calm
    journal = tmp_path / "study.jsonl"
    lines = content.splitlines(keepends=True)
    lines[40] = lines[40].replace(b"0", b"1")
    journal.write_bytes(b"".join(lines))
    world = World()
    result = world.run(journal)
    assert figures(result) == expected
    assert 0 < world.rows < 9
    # Regression: it was said on the console alone.
    (remark,) = remarks(result)
    assert "damaged at line 41" in remark
    assert "study.jsonl.damaged1" in remark
    assert remark not in verdict(result)
    assert (tmp_path / "study.jsonl.damaged1").read_bytes() == b"".join(lines)
    assert f"{journal} {remark}" in caplog.text
    again = World(stop=0).run(journal)
    assert figures(again) == expected
    assert remarks(again) == []


@pytest.mark.parametrize(
    "content", [b"a fox\na hare\n", b"PK\x03\x04\n\xff\n", b"[1]\n", b'{"op_code": 0}\n', b"\xef\xbb\xbf{}\n"]
)
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path, refused, content):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with refused(CalibrationError, "damaged at line 1", str(path), line=1):
        World().run(path)
    with refused(CalibrationError, "damaged at line 1", str(path), line=1):
        show_study(str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\0", bytes(8192)], ids=["empty", "one zero", "zeros"])
def test_a_journal_that_a_power_cut_left_empty_is_a_new_one(tmp_path, calm, content):
    journal = tmp_path / "study.jsonl"
    journal.write_bytes(content)
    assert figures(World().run(journal)) == calm[0]


def test_a_journal_of_before_there_were_checksums_goes_on(tmp_path, calm):
    """And the first checksum is one of all its lines: they may not change any more."""
    expected, content = calm
    lines = [json.loads(line) for line in content.splitlines()]
    old = [json.dumps({key: value for key, value in line.items() if key != "check"}) + "\n" for line in lines]
    journal = tmp_path / "study.jsonl"
    journal.write_text("".join(old[:60]))
    assert figures(World().run(journal)) == expected
    mixed = journal.read_bytes()
    assert mixed.startswith("".join(old[:60]).encode())
    assert figures(World(stop=0).run(journal)) == expected
    journal.write_bytes(mixed.replace(b'"pictures":', b'"picturez":', 1))
    with pytest.raises(CalibrationError, match="damaged at line 1"):
        World().run(journal)


def test_a_line_that_is_changed_while_the_study_runs_stops_it(tmp_path, refused):
    journal = tmp_path / "study.jsonl"

    class Other(World):
        def generate(self, coefficients, indices):
            if self.rows == 3:
                content = bytearray(journal.read_bytes())
                content[-20] ^= 1
                journal.write_bytes(content)
            return super().generate(coefficients, indices)

    with refused(CalibrationError, "damaged at line", str(journal)):
        Other().run(journal)


class Lock:
    """Which its holder must not ask for again: a lock that is held is waited for, half a minute long."""

    def __init__(self):
        self.is_held, self.count = False, 0

    def acquire(self):
        assert not self.is_held
        self.is_held, self.count = True, self.count + 1

    def release(self):
        assert self.is_held
        self.is_held = False


def test_the_lock_is_asked_for_once_where_damage_is_seen_while_writing(tmp_path, calm, refused):
    journal, lock = tmp_path / "study.jsonl", Lock()
    journal.write_bytes(calm[1])
    log = CheckedJournal(journal, lock)
    record = list(log.read_logs(0))[-1]
    log.append_logs([record, record])
    journal.write_bytes(journal.read_bytes()[:-9] + b"damaged}\n")
    count = lock.count
    with refused(CalibrationError, "while in use."):
        log.append_logs([record])
    assert (lock.count, lock.is_held) == (count + 1, False)
    with refused(CalibrationError, "while in use."):
        list(log.read_logs(9999))
    # Read without the lock, then with it: another worker may have been writing.
    assert (lock.count, lock.is_held) == (count + 2, False)


def test_show_tells_of_damage_and_writes_nothing(tmp_path, calm):
    journal = tmp_path / "study.jsonl"
    lines = calm[1].splitlines(keepends=True)
    del lines[50]
    journal.write_bytes(b"".join(lines))
    text = show_study(str(journal))
    assert f"{journal} is damaged at line 51; what stands before it:" in text
    assert "trials finished" in text
    assert [path.name for path in tmp_path.iterdir()] == ["study.jsonl"]
    journal.write_bytes(calm[1] + bytes(100))
    assert "7 trials finished" in show_study(str(journal))


@pytest.mark.parametrize("kind", KINDS)
def test_show_never_ends_in_an_error_that_is_not_ours(tmp_path, calm, kind):
    draw = random.Random(kind)
    for number in range(30):
        journal = tmp_path / f"{number}.jsonl"
        journal.write_bytes(mutant(calm[1], kind, draw))
        try:
            assert "trials finished" in show_study(str(journal))
        except CalibrationError as error:
            assert "Fix: " in str(error)


# --- the disk


@pytest.mark.parametrize("size", [0, 300, 2_000, 5_001, 9_000])
def test_a_disk_that_is_full_in_the_midst_of_a_line_costs_nothing(tmp_path, calm, refused, size):
    """A limit on file sizes fails as a full disk does: a part of the line is written, then comes the error."""
    resource = pytest.importorskip("resource", reason="no limit of file sizes here")
    journal, before = tmp_path / "study.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with refused(CalibrationError, "the study's journal cannot be written: ", "make room", str(journal)):
            World().run(journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    content = journal.read_bytes()
    assert len(content) <= size
    assert content == b"" or content.endswith(b"\n")
    assert figures(World().run(journal)) == calm[0]
    assert not list(tmp_path.glob("*.damaged*"))


@pytest.fixture
def read_only(tmp_path, monkeypatch) -> Callable[[], None]:
    """Makes ``tmp_path`` a disk that is only read: permissions would not stop root."""

    def refuse(name, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)

    def is_there(name) -> bool:
        return isinstance(name, (str, Path)) and str(name).startswith(str(tmp_path))

    def lock() -> None:
        plain_open, low_open = builtins.open, os.open

        def opened(name, mode="r", *args, **kwargs):
            return (refuse if is_there(name) and set(mode) & set("wax+") else plain_open)(name, mode, *args, **kwargs)

        def low(name, flags, *args, **kwargs):
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return (refuse if is_there(name) and writes else low_open)(name, flags, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr("io.open", opened)
        monkeypatch.setattr(os, "open", low)
        for name in ("truncate", "mkdir", "rename", "replace", "unlink"):
            monkeypatch.setattr(os, name, refuse)

    return lock


@pytest.mark.parametrize("tail", [b"", b'{"op_code":5,"wor', bytes(100)], ids=["whole", "torn", "zeros"])
def test_a_finished_study_is_read_from_a_disk_that_is_only_read(tmp_path, calm, read_only, tail):
    journal = tmp_path / "study.jsonl"
    journal.write_bytes(calm[1] + tail)
    read_only()
    assert figures(World(stop=0).run(journal)) == calm[0]
    assert "7 trials finished" in show_study(str(journal))


def test_a_study_that_is_not_finished_says_that_the_disk_is_only_read(tmp_path, calm, read_only, refused):
    journal = tmp_path / "study.jsonl"
    journal.write_bytes(b"".join(calm[1].splitlines(keepends=True)[:70]))
    read_only()
    with refused(CalibrationError, "cannot be written: Read-only file system", str(journal)):
        World().run(journal)


# --- the clock


@pytest.mark.parametrize("hours", [-30, 30])
@pytest.mark.parametrize("moment", range(9))
def test_a_clock_that_is_set_in_the_midst_of_a_study_changes_nothing(tmp_path, monkeypatch, calm, moment, hours):
    """Regression: a trial that was lost before the clock was set back kept its place for ever; the identity's place
    among them, and the study ended without its baseline."""
    journal = tmp_path / "study.jsonl"
    with pytest.raises(Stopped):
        World(stop=moment).run(journal)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr("optuna.storages.journal._storage.datetime", Clock)
    world = World()
    result = world.run(journal)
    assert figures(result) == calm[0]
    assert set(result.trace[0][0].values()) == {1.0}
    assert world.rows == 9 - moment


def test_minutes_are_counted_by_no_clock_that_can_be_set(tmp_path):
    """Regression: a trial that ended before it began took a day off the study's time."""
    journal = tmp_path / "study.jsonl"
    World().run(journal)
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    early = (datetime.now(timezone.utc) - timedelta(days=1)).isoformat(timespec="microseconds")
    for line in lines:
        line.pop("check")
        line |= {"datetime_complete": early} if "datetime_complete" in line else {}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    world = World(stop=0)
    assert world.run(journal, minutes=60.0).trace == World().run(None).trace


# --- a study without a baseline


def lose(journal: Path, order: int) -> None:
    """Marks a finished trial as lost, as a worker that died in it leaves it. Without checksums: as of before."""
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    for line in lines:
        line.pop("check")
        if line.get("trial_id") == order and "state" in line:
            line |= {"state": 3, "values": None}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("order", [0, 3, 6])
@pytest.mark.parametrize("limits", [{}, {"pictures": 20}], ids=["trials", "pictures"])
def test_a_lost_trial_is_made_again_and_the_identity_always(tmp_path, order, limits):
    expected = World().run(None, **limits)
    journal = tmp_path / "study.jsonl"
    World().run(journal, **limits)
    lose(journal, order)
    world = World()
    result = world.run(journal, **limits)
    assert set(result.trace[0][0].values()) == {1.0}
    assert math.isfinite(result.optimism)
    assert figures(result) == figures(expected)
    assert world.rows <= 1


def test_a_trial_that_does_not_say_what_it_is_is_no_raw_error(tmp_path, refused):
    journal = tmp_path / "study.jsonl"
    World().run(journal)
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    remaining = [line for line in lines if "order" not in line.get("user_attr", {}) or line["trial_id"] != 2]
    journal.write_text(
        "".join(json.dumps({**line, "check": ""}).replace(', "check": ""', "") + "\n" for line in remaining)
    )
    with refused(CalibrationError, "trial 2 of the study qsched is incomplete"):
        World().run(journal)
    assert "6 trials finished" in show_study(str(journal))


# --- pictures that were all NaN


@pytest.mark.parametrize("changed", [{}, {"normalised": True}], ids=["plain", "normalised"])
@pytest.mark.parametrize("stop", [None, 1, 3])
def test_a_study_of_nothing_but_nan_begins_anew_when_the_cause_is_gone(tmp_path, stop, changed):
    """Regression: the trials of a driver that gave black pictures stood in the journal for ever."""
    journal = tmp_path / "study.jsonl"
    with pytest.raises((CalibrationError, Stopped)):
        World(unscorable=True, stop=stop).run(journal, **changed)
    assert figures(World().run(journal, **changed)) == figures(World().run(None, **changed))


def test_a_verdict_of_nothing_but_nan_is_made_again(tmp_path, calm):
    """The search was whole; the driver broke in the verdict."""
    journal = tmp_path / "study.jsonl"

    class Breaking(World):
        def score(self, pictures, indices):
            self.broken = self.rows > 7
            return super().score(pictures, indices)

    assert not Breaking().run(journal).accepted
    world = World()
    assert figures(world.run(journal)) == calm[0]
    assert world.rows == 2


# --- what others do


def test_a_trial_that_others_gave_away_is_no_error(tmp_path, calm):
    """Another machine took this worker for dead, because it slept. Regression: a raw error of optuna's."""
    journal = tmp_path / "study.jsonl"

    class Sleeping(World):
        def generate(self, coefficients, indices):
            if self.rows == 2:
                optuna, storage = import_optuna(), open_storage(journal)
                study = optuna.load_study(study_name="qsched", storage=storage)
                study.tell(2, state=optuna.trial.TrialState.FAIL)
            return super().generate(coefficients, indices)

    assert figures(Sleeping().run(journal)) == calm[0]
