"""The demo: one workflow through a real server, then its pictures, its preset and its table.

Run by `scripts/dev.py demo` in the prepared environment: `python -m scripts.demo --host <ComfyUI>`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import processes, server
from .client import Prompt
from .errors import DevError
from .host import Host, host_at
from .layout import DEMO_OUTPUT, DEMO_PROMPTS, DEMO_WORKFLOW, ROOT
from .tables import format_table
from .ticker import Ticker, titles_of

REPORT_KEY = "qsched_report"
PROMPTS_NAME = "qsched_demo_prompts.txt"
FULL, QUANTISED = "full precision", "quantised"
"""How JAQ Calibrate calls its rows."""
PRESET_FOLDER = "models/qsched_presets"


class DemoError(DevError):
    """The demo cannot run, or its workflow did not deliver what the demo shows."""


def run(host: Host, python: Path, into: Path = DEMO_OUTPUT) -> None:
    """Run the demo and leave everything it made in `into`, in place of what an earlier run left there."""
    prompt = load_workflow(DEMO_WORKFLOW)
    _empty(into)
    print("Starting ComfyUI …", flush=True)
    with server.running(host, python, log_path=into / "server.log") as comfy:
        shutil.copyfile(_required(DEMO_PROMPTS), comfy.folder("input") / PROMPTS_NAME)
        print(f"Running {DEMO_WORKFLOW.name} …", flush=True)
        with Ticker(titles_of(prompt)) as ticker:
            outputs = comfy.client.run(prompt, ticker)
        main, *also = find_reports(outputs, titles_of(prompt))
        report = {**main, "also": also, "ran_on": _facts(comfy.client.system_stats())}
        _write_report(report, into)
        collect(comfy.base, into)
    print("\n" + "\n".join(summary(report, into)))


def load_workflow(path: Path) -> Prompt:
    """The workflow in API format at `path`."""
    return json.loads(_required(path).read_text("utf-8"))


def find_reports(outputs: dict[str, dict[str, Any]], titles: dict[str, str]) -> list[dict[str, Any]]:
    """The reports that nodes show under `qsched_report`, as a list with one JSON string, in the order of node ids.

    Each is given its node's "title"; the first is the demo's main one.
    """
    reports = {node: output[REPORT_KEY] for node, output in outputs.items() if REPORT_KEY in output}
    if not reports:
        raise DemoError(f"A node of the demo must show a {REPORT_KEY}, but none did. Nodes: {list(outputs)}")
    return [{"title": titles[node], **json.loads(reports[node][0])} for node in sorted(reports, key=int)]


def collect(base: Path, into: Path) -> None:
    """Copy what the server made: its pictures and its presets."""
    shutil.copytree(base / "output", into / "pictures", dirs_exist_ok=True)
    presets = sorted((base / PRESET_FOLDER).glob("*.safetensors"))
    if not presets:
        raise DemoError(f"The demo saved no preset in {PRESET_FOLDER}. See {into / 'server.log'}.")
    for preset in presets:
        shutil.copy2(preset, into)


def summary(report: dict[str, Any], into: Path) -> Iterator[str]:
    """What the demo prints at the end: tables and verdicts, and where everything lies."""
    parts = [report, *report["also"]]
    yield format_table(report["table"]["columns"], rows_of(parts))
    yield ""
    for part in parts:
        yield part["title"]
        yield from part["verdict"]
        yield ""
    for label, files in _results(into):
        yield f"{label:9} {_display_path(files)}"


def rows_of(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of several calibrations on the same prompts as one table: the full model once, each quantised model
    under its node's title, and the controls last: what the same coefficients do to the full model."""
    quantised, controls = [], []
    for part in parts:
        for row in part["table"]["rows"]:
            name = row["name"]
            if name.startswith(QUANTISED):
                quantised.append({**row, "name": part["title"] + name.removeprefix(QUANTISED)})
            elif name != FULL:
                controls.append({**row, "name": f"{name} of {part['title']}"})
    return [parts[0]["table"]["rows"][0], *quantised, *controls]


def _write_report(report: dict[str, Any], into: Path) -> None:
    (into / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _results(into: Path) -> Iterator[tuple[str, Path]]:
    yield "pictures", into / "pictures"
    for preset in sorted(into.glob("*.safetensors")):
        yield "preset", preset
    yield "report", into / "report.json"


def _display_path(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _facts(stats: dict[str, Any]) -> dict[str, Any]:
    """What figures depend on and a reader cannot know: versions and devices."""
    system = stats["system"]
    names = {"comfyui": "comfyui_version", "python": "python_version", "torch": "pytorch_version", "os": "os"}
    facts = {name: str(system.get(key)).split(" ")[0] for name, key in names.items()}
    return {**facts, "devices": [device.get("name") for device in stats.get("devices", [])]}


def _empty(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _required(path: Path) -> Path:
    if not path.is_file():
        raise DemoError(f"{_display_path(path)} is missing. It belongs to the repository: restore it with git.")
    return path


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.demo", description="Run the demo workflow.")
    parser.add_argument("--host", type=Path, required=True, help="the ComfyUI folder")
    arguments = parser.parse_args()
    return processes.run_script(lambda: run(host_at(arguments.host, "--host"), Path(sys.executable)))


if __name__ == "__main__":
    sys.exit(_main())
