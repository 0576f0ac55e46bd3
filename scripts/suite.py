"""All tests: the pure ones once, the host ones on every ComfyUI at hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from . import processes
from .environment import Workbench
from .host import Host, other_hosts
from .layout import ROOT

PURE = ("tests/core", "tests/calibration", "tests/demo", "tests/scripts")
HOST = ("tests/host", "tests/web")
NO_TESTS_SELECTED = 5  # pytest's exit status


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


def run(bench: Workbench, arguments: Sequence[str] = ()) -> int:
    """Run everything, with `arguments` handed to pytest; print the sum last. 0 when nothing failed."""
    hosts = _distinct([bench.host, *other_hosts()])
    total = _run_tier(bench.python, "pure tests", [d for d in PURE if (ROOT / d).is_dir()], arguments)
    for host in hosts:
        total += _run_tier(bench.python, f"host tests on {host}", HOST, arguments, host)
    print(f"\n{total}", flush=True)
    return 1 if total.failed else 0


def read_outcome(status: int, results: Path, *, may_be_empty: bool) -> Outcome:
    """Sum up a run of pytest from its exit status and its JUnit file.

    A run that did not get as far as its tests counts as one failure, so that it cannot look like success. So does one
    that found no tests, unless the caller asked for a selection of them.
    """
    if status == NO_TESTS_SELECTED:
        return Outcome(failed=0 if may_be_empty else 1)
    if not results.is_file():
        return Outcome(failed=1)
    suites = ElementTree.parse(results).getroot().iter("testsuite")
    outcome = sum((_count(suite) for suite in suites), Outcome())
    return outcome if outcome.failed or status == 0 else outcome + Outcome(failed=1)


def _run_tier(
    python: Path, title: str, folders: Sequence[str], arguments: Sequence[str], host: Host | None = None
) -> Outcome:
    print(f"\n=== {title} ===", flush=True)
    env = {**os.environ, **({"QSCHED_HOST_PATH": str(host.path)} if host else {})}
    with tempfile.TemporaryDirectory(prefix="q-sched-tests-") as folder:
        results = Path(folder) / "results.xml"
        command = [python, "-m", "pytest", *folders, *arguments, f"--junit-xml={results}"]
        status = processes.run(command, cwd=ROOT, env=env)
        return read_outcome(status, results, may_be_empty=bool(arguments))


def _count(suite: ElementTree.Element) -> Outcome:
    number = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    # A test whose teardown fails is counted once as a test and may be counted twice as a failure.
    return Outcome(max(0, number["tests"] - failed - number["skipped"]), failed, number["skipped"])


def _distinct(hosts: Sequence[Host]) -> list[Host]:
    return list({host.path.resolve(): host for host in reversed(hosts)}.values())[::-1]
