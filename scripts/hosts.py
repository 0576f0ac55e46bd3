"""Which versions of ComfyUI, comfy-kitchen and comfy-aimdo the pack works with: tried, not looked up.

Run by `scripts/dev.py hosts` in the prepared environment: `python -m scripts.hosts`. Hosts are those of `host.SDISTS`
and of COMFYUI_PATHS. What a host pins differently from the environment is put before it on the path, so that no
environment is changed. The table is kept in benchmarks/results/hosts.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from . import package, processes, server, suite
from .errors import DevError
from .host import SDISTS, Host, fetch_host, other_hosts
from .layout import CACHE, ROOT
from .requirements import lines

RESULT = ROOT / "benchmarks" / "results" / "hosts.json"

KERNELS = ("comfy-kitchen", "comfy-aimdo")
"""Packages of ComfyUI that hold code which the pack calls or that moves its weights."""

NEWEST = ("comfy-kitchen==0.2.40", "comfy-aimdo==0.6.0")
"""The registry's newest on 2026-11-28: what a user gets who updates packages by hand."""

BETWEEN = ("comfy-kitchen==0.2.34", "comfy-kitchen==0.2.37")
"""Between what the newest host pins and NEWEST: kernels came and changed in these versions too."""

FILES = (
    "pack", "environment_check", "sampling", "core_samplers", "native", "formats", "twin",
)  # fmt: skip
"""Test files that depend most on the host's inside: nodes, samplers, model patcher, layouts, loaders."""

MORE_FILES = (
    "layer_patches", "twin_loras", "weight_protocol", "twin_unet", "twin_quanto", "quantized_files", "dynamic_vram",
    "foreign_readers", "sources", "step_precision", "observe_layers", "sensitivity", "text_encoder", "deferred_model",
)  # fmt: skip
"""LoRAs, files and rounding: on the newest host with what it pins as well, which is what most users have."""

NO_RESULT = "not run"


@dataclass(frozen=True)
class Combination:
    """A ComfyUI, and the packages that it is run with; none are named where the environment has them already."""

    host: Host
    packages: tuple[str, ...]

    def __str__(self) -> str:
        return f"ComfyUI {self.host.version}, {', '.join(text.replace('==', ' ') for text in self.packages)}"


@dataclass
class Row:
    """What came of one combination."""

    comfyui: str
    packages: list[str]
    loads: str = NO_RESULT
    first_template: str = NO_RESULT
    tests: str = NO_RESULT
    date: str = ""

    @property
    def fine(self) -> bool:
        return self.loads == self.first_template == "yes" and " 0 failed" in self.tests


def combinations(hosts: Sequence[Host]) -> Iterator[Combination]:
    """Each host with what it pins; the newest two with the newest kernels too, the newest with those between."""
    for host in hosts:
        pins = lines(host.requirements.read_text("utf-8"))
        own = [line for line in pins if re.split("[=<>~!]", line)[0] in KERNELS]
        yield Combination(host, tuple(line if "==" in line else newest(line) for line in own))
    for host in hosts[-2:]:
        yield Combination(host, NEWEST)
    for kitchen in BETWEEN:
        yield Combination(hosts[-1], (kitchen, *(pin for pin in own if not pin.startswith("comfy-kitchen"))))


def newest(line: str) -> str:
    """The pin of NEWEST for a requirement that has no upper bound."""
    name = re.split("[=<>~!]", line)[0]
    return next(pin for pin in NEWEST if pin.startswith(f"{name}=="))


def files_for(one: Combination, hosts: Sequence[Host]) -> tuple[str, ...]:
    """The test files that a combination is tried with."""
    most_used = next(other for other in combinations(hosts) if other.host == hosts[-1])
    return FILES + MORE_FILES if one == most_used else FILES


def overlay(packages: Sequence[str]) -> Path:
    """A folder with just these packages, to be put first on the path. Installed once."""
    folder = CACHE / "host-packages" / " ".join(packages).replace("==", "-")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if processes.run([*command, "--target", unfinished, *packages]):
            shutil.rmtree(unfinished)
            raise DevError(f"{', '.join(packages)} could not be installed. Check the network connection.")
        unfinished.replace(folder)
    return folder


def try_out(one: Combination, files: Sequence[str]) -> Row:
    """Start it, run the first template, run the test files."""
    row = Row(one.host.version, list(one.packages), date=date.today().isoformat())
    env = {"PYTHONPATH": str(overlay(one.packages))}
    try:
        with server.running(one.host, Path(sys.executable), env=env) as comfy:
            golden = json.loads(package.GOLDEN.read_text("utf-8"))
            faults = package.differences(golden, package.definitions(comfy.client))
            row.loads = "; ".join(faults) or "yes"
            row.first_template = first_template(comfy)
    except DevError as error:
        text = str(error).splitlines()
        if row.loads == NO_RESULT:
            row.loads = text[0]
        else:
            row.first_template = text[0]
    if files:
        row.tests = run_tests(one, files, env)
    return row


def first_template(comfy: server.Server) -> str:
    """ "yes" when the first template ends with a verdict: with few trials, all else as a user runs it."""
    (path,) = (ROOT / "example_workflows" / "api").glob("01 *.json")
    graph = json.loads(path.read_text("utf-8"))
    for entry in graph.values():
        if entry["class_type"] == "QSchedCalibrate":
            entry["inputs"].update(trials=3)
    outputs = comfy.client.run(graph, timeout=900)
    return "yes" if any("qsched_report" in output for output in outputs.values()) else "no verdict"


def run_tests(one: Combination, files: Sequence[str], more: dict[str, str]) -> str:
    """ "98 passed, 0 failed, 12 skipped", and the names of those that failed."""
    places = [f"tests/host/test_{name}.py" for name in files]
    job = suite.Job(str(one), places, one.host)
    with tempfile.TemporaryDirectory(prefix="q-sched-hosts-") as folder:
        results = Path(folder) / "results.xml"
        command = [*job.command(Path(sys.executable), results), "--quiet", "--tb=line"]
        done = subprocess.run(command, cwd=ROOT, env={**job.environ(), **more}, capture_output=True, text=True)
        outcome = suite.read_outcome(done.returncode, results, may_be_empty=False)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return "; ".join([str(outcome), *(name.removeprefix("tests/host/") for name in failed)])


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    parts = ["| ComfyUI | with | loads | first template | test files |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        names = ", ".join(text.replace("==", " ") for text in row.packages)
        parts.append(f"| {row.comfyui} | {names} | {row.loads} | {row.first_template} | {row.tests} |")
    return "\n".join(parts)


def keep(rows: Sequence[Row], files: Sequence[str], result: Path = RESULT) -> None:
    """Each row takes the place of the last one of its combination; those that were not run now stay as they were."""
    result.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(result.read_text("utf-8"))["rows"] if result.is_file() else []
    table = {(row["comfyui"], *row["packages"]): row for row in [*old, *map(vars, rows)]}
    content = {"python": sys.version.split()[0], "test_files": list(files), "rows": list(table.values())}
    result.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _version(host: Host) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", host.version)]


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.hosts", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the test files")
    parser.add_argument("--only", default="", help="a part of the combination's name, such as '0.24' or '0.2.40'")
    arguments = parser.parse_args()
    files = () if arguments.quick else FILES

    def job() -> None:
        hosts = [fetch_host(Path(sys.executable), version=version) for version in SDISTS if version != "0.18.2"]
        hosts = sorted([*hosts, *other_hosts()], key=_version)
        rows = []
        for one in combinations(hosts):
            if arguments.only in str(one):
                print(f"{one} …", flush=True)
                rows.append(try_out(one, files_for(one, hosts) if files else ()))
                print(table(rows).splitlines()[-1], flush=True)
        print(f"\n{table(rows)}")
        if files:
            keep(rows, files)
        bad = [row.comfyui for row in rows if not (row.fine or arguments.quick)]
        if bad:
            raise DevError(f"Not everything works with ComfyUI {', '.join(bad)}.")

    return processes.run_script(job)


if __name__ == "__main__":
    sys.exit(_main())
