"""All tests: the pure ones once, those in ComfyUI and those in a browser on every ComfyUI at hand.

Without arguments several runs of pytest go on side by side, each with its share of the files and its output in a file
that is printed when it ends. With arguments (a selection, a debugger) they follow each other on this terminal.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from . import processes
from .environment import Workbench
from .front_ends import NEWEST
from .host import Host, other_hosts
from .layout import ROOT

PURE = ("tests/calibration", "tests/core", "tests/scripts", "tests/demo")  # the longest first
HOST, WEB = "tests/host", "tests/web"
NO_TESTS_SELECTED = 5  # pytest's exit status

MORE_THAN_CORES, MOST_AT_ONCE = 2, 4
"""Runs side by side. One with a server or a browser waits at times, so that more than cores are worth it; five on two
cores leave nothing of them idle (`vmstat`), and took no less time than four."""

GIGABYTES_EACH = 4
"""Of memory: a run takes up to 3, the one with the widest model 8."""

PARTS = {WEB: 2, HOST: 3}
"""Runs that the tests in a browser, and the others of one host, are dealt to. Each starts a ComfyUI of its own (10 s);
the smaller the last ones are, the less is waited for one of them alone."""

HEAD_START = 30.0
"""Seconds in which no more runs than cores go on. In a new environment each would compile what all import, of ComfyUI
16 seconds of a core; after them it is there."""

ONE_PART = dict.fromkeys(PARTS, 1)

SECONDS_BETWEEN_NOTES = 60.0
"""How often the runs that go on are named, so that a long silence does not look like a hang."""


@dataclass(frozen=True)
class Outcome:
    """What one run of pytest came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclass(frozen=True)
class Job:
    """One run of pytest: files or folders of tests, the ComfyUI they need, and which of the tests (pytest's ``-m``)."""

    title: str
    places: Sequence[str]
    host: Host | None = None
    marked: str = ""

    def command(self, python: Path, results: Path, arguments: Sequence[str] = ()) -> list[str]:
        # Without a selection runs go on side by side, and would all write pytest's one file of what failed last.
        options = [*(arguments or ("-p", "no:cacheprovider")), f"--junit-xml={results}"]
        options += ["-m", self.marked] if self.marked else []
        return [str(python), "-m", "pytest", *self.places, *options]

    def environ(self, threads: int | None = None) -> dict[str, str]:
        """The environment; ``threads`` of torch unless the user has set a number."""
        own = {"QSCHED_HOST_PATH": str(self.host.path)} if self.host else {}
        return {**({"OMP_NUM_THREADS": str(threads)} if threads else {}), **os.environ, **own}


def run(bench: Workbench, arguments: Sequence[str] = ()) -> int:
    """Run everything, with `arguments` handed to pytest; print the sum last. 0 when nothing failed."""
    hosts = _distinct([bench.host, *other_hosts()])
    if arguments:
        outcomes = [_in_turn(bench.python, job, arguments) for job in jobs(hosts, ONE_PART)]
    else:
        outcomes = list(side_by_side(bench.python, jobs(hosts)))
    total = sum(outcomes, Outcome())
    print(f"\n{total}", flush=True)
    return 1 if total.failed else 0


def jobs(hosts: Sequence[Host], parts: Mapping[str, int] = PARTS, root: Path = ROOT) -> list[Job]:
    """The runs, those that take longest first, so that the short ones fill what is left."""
    runs = []
    for host in hosts:
        for name, folder in (("browser", WEB), ("host", HOST)):
            paths = sorted((root / folder).glob("test_*.py"), key=lambda path: (-path.stat().st_size, path.name))
            files = [path.relative_to(root).as_posix() for path in paths]
            # Dealt like cards, the longest first: as many lines are about as many tests.
            count = parts[folder]
            dealt = [files[part::count] for part in range(count)]
            numbers = [f", part {part} of {count}" if count > 1 else "" for part in range(1, count + 1)]
            marked = f"not {NEWEST}" if folder == WEB and count > 1 else ""
            runs += [
                Job(f"{name} tests on {host}{number}", some, host, marked)
                for number, some in zip(numbers, dealt, strict=True)
            ]
            if marked:  # another server, and pages of its own
                runs.append(Job(f"{name} tests on {host}, {NEWEST} front end", [WEB], host, NEWEST))
    pure = [Job(f"pure tests, {place}", [place]) for place in PURE if (root / place).is_dir()]
    # One of them is among the first, which import what the others do: together they import nearly all.
    return [job for job in (*runs[:1], *pure[:1], *runs[1:], *pure[1:]) if job.places]


def side_by_side(python: Path, waiting: Sequence[Job], most: int | None = None) -> Iterator[Outcome]:
    """Run `most` jobs at a time, fewer at first (HEAD_START), each with its share of the cores; what each printed is
    shown when it ends."""
    cores = os.cpu_count() or 1
    most = most or most_at_once(cores, _memory())
    with tempfile.TemporaryDirectory(prefix="q-sched-tests-") as folder, _stopping() as running:
        begin, rest = time.monotonic(), list(enumerate(waiting))
        note_at = begin + SECONDS_BETWEEN_NOTES
        print(f"{len(rest)} runs of pytest, {most} at a time; each is shown when it ends.", flush=True)
        while rest or running:
            early = time.monotonic() < begin + HEAD_START
            while rest and len(running) < (min(most, cores) if early else most):
                number, job = rest.pop(0)
                running.append(Run.start(python, job, Path(folder) / str(number), max(1, cores // most)))
            for ended in [run for run in running if run.process.poll() is not None]:
                running.remove(ended)
                yield ended.outcome()
            if time.monotonic() >= note_at:
                print("… " + "; ".join(map(str, running)), flush=True)
                note_at += SECONDS_BETWEEN_NOTES
            time.sleep(0.2)


def most_at_once(cores: int, memory: int | None) -> int:
    """How many runs a machine takes side by side; ``memory`` in bytes, None: not known."""
    room = MOST_AT_ONCE if memory is None else memory // (GIGABYTES_EACH * 10**9)
    return max(1, min(MOST_AT_ONCE, cores + MORE_THAN_CORES, room))


def _memory() -> int | None:
    """Of the machine, where Python alone can tell it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no such call
        return None


@dataclass
class Run:
    """A job that goes on; `place` is a path without suffix for its output and its results."""

    job: Job
    place: Path
    process: subprocess.Popen
    begin: float

    @classmethod
    def start(cls, python: Path, job: Job, place: Path, threads: int) -> Run:
        with place.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                job.command(python, place.with_suffix(".xml")), cwd=ROOT, env=job.environ(threads),
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        return cls(job, place, process, time.monotonic())

    @property
    def text(self) -> str:
        return self.place.with_suffix(".log").read_text("utf-8", errors="replace")

    def outcome(self) -> Outcome:
        """Of a run that has ended; its output is printed first."""
        print(f"\n=== {self.job.title} ({_minutes(time.monotonic() - self.begin)}) ===\n{self.text}", flush=True)
        outcome = read_outcome(self.process.returncode, self.place.with_suffix(".xml"), may_be_empty=False)
        print(f"=== {self.job.title}: {outcome} ===", flush=True)
        return outcome

    def __str__(self) -> str:
        done = re.findall(r"\[ *(\d+)%\]", self.text)
        return f"{self.job.title}: {done[-1] if done else 0} %"


@contextmanager
def _stopping() -> Iterator[list[Run]]:
    """A list of runs that are ended with the block, however it ends."""
    running: list[Run] = []
    try:
        yield running
    except KeyboardInterrupt:
        for run in running:
            processes.let_finish(run.process)  # the terminal has sent Ctrl-C to each
        raise
    finally:
        for run in running:
            processes.stop(run.process)


def read_outcome(status: int, results: Path, *, may_be_empty: bool) -> Outcome:
    """Sum up a run of pytest from its exit status and its JUnit file.

    A run that did not get as far as its tests counts as one failure, so that it cannot look like success. So does one
    that found no tests, unless the caller asked for a selection of them.
    """
    if status == NO_TESTS_SELECTED:
        return Outcome(failed=0 if may_be_empty else 1)
    try:
        suites = ElementTree.parse(results).getroot().iter("testsuite")
    except (OSError, ElementTree.ParseError):
        return Outcome(failed=1)
    outcome = sum((_count(suite) for suite in suites), Outcome())
    return outcome if outcome.failed or status == 0 else outcome + Outcome(failed=1)


def _in_turn(python: Path, job: Job, arguments: Sequence[str]) -> Outcome:
    """One run on this terminal."""
    print(f"\n=== {job.title} ===", flush=True)
    with tempfile.TemporaryDirectory(prefix="q-sched-tests-") as folder:
        results = Path(folder) / "results.xml"
        status = processes.run(job.command(python, results, arguments), cwd=ROOT, env=job.environ())
        return read_outcome(status, results, may_be_empty=True)


def _count(suite: ElementTree.Element) -> Outcome:
    number = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    # A test whose teardown fails is counted once as a test and may be counted twice as a failure.
    return Outcome(max(0, number["tests"] - failed - number["skipped"]), failed, number["skipped"])


def _distinct(hosts: Sequence[Host]) -> list[Host]:
    return list({host.path.resolve(): host for host in reversed(hosts)}.values())[::-1]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"
