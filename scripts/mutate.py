"""Mutation testing: puts small faults into the code, one at a time, and counts those that the tests notice.

    python -m scripts.mutate qsched_core --count 200 --seed 1

Faults go into a copy of the checkout. For each, only those tests run that call the function it is in, the quickest
first, until one fails: which tests call what is found by one run of all of them, kept in a file; what a server
calls that they start counts for every test of their file. Everything is kept in a folder, so an interrupted run goes on
where it was. The tests are the pure ones, or those of ``--tests``: tests/host need a ComfyUI, named by
QSCHED_HOST_PATH. Linux and macOS only: it forks, so that torch is imported once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .layout import CACHE, ROOT
from .mutants import Mutant, python_files, sample

PURE = ("tests/core", "tests/calibration", "tests/demo")

SECONDS_PER_MUTANT = 60.0
"""Tests that take longer together are not all run: a fault that only the slowest of hundreds notice counts as one that
survives."""

FIRST_TESTS = 25
"""Run before the others are as much as collected: most faults are noticed by them."""

SLOWER = 5
"""Tests that take this many times their usual time, and half a minute, have met a loop without end."""

CALL_NOTES = Path(__file__).with_name("call_notes")
"""On the path of every process that a test starts while it is looked at what it calls."""

HEAVY_IMPORTS = (
    "torch", "numpy", "scipy.stats", "scipy.optimize", "optuna", "safetensors.torch", "PIL.Image", "diffusers",
)  # fmt: skip
"""Imported once, before the first fork."""

NOTICED = ("failed", "endless")
"""Outcomes of a mutant that the tests notice; the others are "survived" and "untested"."""


@dataclass(frozen=True)
class Reach:
    """Which tests call what. ``seconds`` of each test that passes; ``calls`` holds, by file and name of each function,
    the tests that call it."""

    seconds: Mapping[str, float]
    calls: Mapping[str, Mapping[str, Sequence[str]]]
    most_seconds: float = SECONDS_PER_MUTANT

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The quickest first, and no more of them than fit into ``most_seconds``."""
        by_name = self.calls.get(mutant.file, {})
        # What runs at import, or in a process of its own: whatever calls its file.
        tests = set(by_name.get(mutant.function, ())) or set().union(*by_name.values())
        selection, total = [], 0.0
        for test in sorted(tests & self.seconds.keys(), key=lambda test: (self.seconds[test], test)):
            total += self.seconds[test]
            if total > self.most_seconds and selection:
                break
            selection.append(test)
        return selection


class Tracer:
    """A pytest plugin that notes which functions of the copy each test calls."""

    def __init__(self, copy: Path):
        self._prefix, self._codes = f"{copy}{os.sep}", {}
        self._seconds: dict[str, float] = {}
        self._calls: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._shared: dict[tuple[str, str], set[str]] = defaultdict(set)  # by test file: what its fixtures call
        self._target: Callable[[tuple[str, str]], None] | None = None

    def _event(self, frame, event, argument) -> None:
        code = frame.f_code
        place = self._codes.get(id(code), (None, None))[1]
        if place is None:
            inside = code.co_filename.startswith(self._prefix)
            file = code.co_filename.removeprefix(self._prefix)
            place = (file, code.co_name) if inside and not file.startswith("tests") else ()
            self._codes[id(code)] = code, place  # the code itself, so that its id is not given to another
        if place and self._target:
            self._target(place)

    @contextmanager
    def _tracing(self, target: Callable[[tuple[str, str]], None]) -> Iterator[None]:
        self._target = target
        threading.settrace(self._event)
        sys.settrace(self._event)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self._target = None

    def hooks(self) -> object:
        import pytest

        class Hooks:
            @pytest.hookimpl(hookwrapper=True)
            def pytest_runtest_setup(_, item):  # noqa: N805
                file = _file_of(item.nodeid)
                with self._tracing(lambda place: self._shared[place].add(file)):
                    yield

            @pytest.hookimpl(hookwrapper=True)
            def pytest_runtest_call(_, item):  # noqa: N805
                with self._tracing(lambda place: self._calls[place].add(item.nodeid)):
                    yield

            def pytest_runtest_logreport(_, report):  # noqa: N805
                if report.when == "call" and report.passed:
                    self._seconds[report.nodeid] = report.duration

        return Hooks()

    def add_shared(self, test_file: str, lines: Iterable[str]) -> None:
        """What processes that the tests of a file have started call: lines of scripts/call_notes."""
        for line in lines:
            file, _, name = line.partition("\t")
            if not file.startswith("tests"):
                self._shared[file, name].add(test_file)

    def records(self) -> dict[str, dict[str, object]]:
        """By test file: ``seconds`` and ``calls`` as ``Reach`` has them."""
        records: dict[str, dict] = defaultdict(lambda: {"seconds": {}, "calls": defaultdict(dict)})
        for test, seconds in self._seconds.items():
            records[_file_of(test)]["seconds"][test] = seconds
        for place, files in self._shared.items():
            self._calls[place].update(test for file in files for test in records[file]["seconds"])
        for (file, name), tests in self._calls.items():
            for test in sorted(tests & self._seconds.keys()):
                records[_file_of(test)]["calls"][file].setdefault(name, []).append(test)
        return records


def _file_of(test: str) -> str:
    return test.partition("::")[0]


class Selection:
    """A pytest plugin that runs the given tests alone, in their order."""

    def __init__(self, tests: Sequence[str]):
        self._places = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self._places), key=lambda i: self._places[i.nodeid])


class Workplace:
    """A copy of the checkout that faults are put into, and a journal of what came of them."""

    def __init__(self, folder: Path):
        self.copy, self.journal = folder / "copy", folder / "journal.jsonl"
        self._reach = folder / "reach.json"
        self.log = folder / "last.log"

    def prepare(self) -> None:
        """The checkout's files as they are now."""
        shutil.rmtree(self.copy, ignore_errors=True)
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.copy / name)

    def reach(self, folders: Sequence[str]) -> Reach:
        """What each test calls; only files of tests that are new or have changed since the last time are run."""
        records = json.loads(self._reach.read_text("utf-8")) if self._reach.is_file() else {}
        for file in python_files(self.copy, folders):
            if not Path(file).name.startswith("test_"):
                continue
            digest = hashlib.sha256((self.copy / file).read_bytes()).hexdigest()
            if records.get(file, {}).get("digest") != digest:
                print(f"what does {file} call?", flush=True)
                result = self.copy.parent / "trace.json"
                result.unlink(missing_ok=True)
                self._in_child(partial(self._trace, file, result), seconds=None)
                traced = json.loads(result.read_text("utf-8")) if result.is_file() else {}
                records[file] = {"seconds": {}, "calls": {}, **traced, "digest": digest}
                self._reach.write_text(json.dumps(records), "utf-8")
        return _merged(records[file] for file in records if file.startswith(tuple(folders)))

    def _trace(self, file: str, result: Path) -> int:
        tracer, notes = Tracer(self.copy), result.with_name("calls.txt")
        notes.unlink(missing_ok=True)
        path = [str(CALL_NOTES), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)
        os.environ["QSCHED_NOTE_CALLS"] = os.pathsep.join([f"{self.copy}{os.sep}", str(notes)])
        _pytest([file, "-q"], [tracer.hooks()])
        if notes.is_file():
            tracer.add_shared(file, notes.read_text("utf-8").splitlines())
        result.write_text(json.dumps(tracer.records().get(file, {})), "utf-8")
        return 0

    def outcome(self, mutant: Mutant, reach: Reach) -> str:
        tests = reach.tests_of(mutant)
        if not tests:
            return "untested"
        path = self.copy / mutant.file
        text = path.read_text("utf-8")
        try:
            path.write_text(mutant.applied(text), "utf-8")
            for part in filter(None, (tests[:FIRST_TESTS], tests[FIRST_TESTS:])):
                files = dict.fromkeys(map(_file_of, part))
                usual = sum(reach.seconds[test] for test in part)
                run_part = partial(_pytest, [*files, "-x", "-q", "--tb=line"], [Selection(part)])
                status = self._in_child(run_part, seconds=30 + SLOWER * usual)
                if status != 0:
                    return "endless" if status is None else "failed"
        finally:
            path.write_text(text, "utf-8")
        return "survived"

    def _in_child(self, work: Callable[[], int], seconds: float | None) -> int | None:
        """The status of a fork that does the ``work`` in the copy; None when it took more processor time than
        ``seconds``, or ten times as long by the clock."""
        child = os.fork()
        if child == 0:
            self._become_child(work, seconds)
        deadline = None if seconds is None else time.monotonic() + 10 * seconds
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if deadline and time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None
            time.sleep(0.2)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # what its tests have started
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
            return None
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1

    def _become_child(self, work: Callable[[], int], seconds: float | None) -> None:
        os.setpgid(0, 0)
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(self.copy)
        status = 1
        try:
            status = int(work())
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def _pytest(arguments: Sequence[str], plugins: Sequence[object]) -> int:
    import pytest

    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    # The heavy imports have brought packages that pytest would like to import itself.
    quiet = ("-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    return pytest.main([*quiet, *arguments], plugins=list(plugins))


def _merged(records: Iterable[Mapping[str, Mapping]]) -> Reach:
    seconds: dict[str, float] = {}
    calls: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        seconds |= record["seconds"]
        for file, by_name in record["calls"].items():
            for name, tests in by_name.items():
                calls[file][name] += tests
    return Reach(seconds, calls)


def run(place: Workplace, mutants: Iterable[Mutant], reach: Reach, again: bool = False) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with its outcome: from the journal where it stands there, but for survivors with ``again``."""
    outcomes = {}
    if place.journal.is_file():
        outcomes = dict(json.loads(line) for line in place.journal.read_text("utf-8").splitlines())
    for mutant in mutants:
        if mutant.key not in outcomes or (again and outcomes[mutant.key] not in NOTICED):
            outcomes[mutant.key] = place.outcome(mutant, reach)
            with place.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([mutant.key, outcomes[mutant.key]]) + "\n")
        yield mutant, outcomes[mutant.key]


def summary(rooms: Sequence[str], seed: int, outcomes: Sequence[tuple[Mutant, str]]) -> dict[str, object]:
    counts = Counter(outcome for _, outcome in outcomes)
    noticed = sum(counts[name] for name in NOTICED)
    return {
        "rooms": list(rooms), "seed": seed, "mutants": len(outcomes), "noticed": noticed,
        "rate": round(noticed / max(1, len(outcomes)), 3), **dict(sorted(counts.items())),
        "survivors": [_line(mutant) for mutant, outcome in outcomes if outcome not in NOTICED],
    }  # fmt: skip


def _line(mutant: Mutant) -> str:
    return re.sub(r"\s+", " ", mutant.key.rpartition(" @")[0])[:160]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rooms", nargs="+", help="folders or files of the pack, such as calibration/search")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", nargs="+", default=PURE, help="folders or files of tests (default: the pure ones)")
    parser.add_argument("--again", action="store_true", help="run those that survived last time once more")
    parser.add_argument("--seconds", type=float, default=SECONDS_PER_MUTANT, help="of tests for one mutant")
    parser.add_argument("--folder", type=Path, default=CACHE / "mutation")
    args = parser.parse_args()
    sys.dont_write_bytecode = True  # a file changed twice in a second would be read from its old bytecode
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in HEAVY_IMPORTS:
            __import__(name)
    place = Workplace(args.folder)
    place.prepare()
    reach = replace(place.reach(args.tests), most_seconds=args.seconds)
    outcomes = []
    mutants = sample(place.copy, args.rooms, args.count, args.seed)
    for mutant, outcome in run(place, mutants, reach, args.again):
        outcomes.append((mutant, outcome))
        rate = sum(outcome in NOTICED for _, outcome in outcomes) / len(outcomes)
        print(f"{len(outcomes):4} {rate:4.0%} {outcome:8} {_line(mutant)}", flush=True)
    print(json.dumps(summary(args.rooms, args.seed, outcomes), indent=1))


if __name__ == "__main__":
    main()
