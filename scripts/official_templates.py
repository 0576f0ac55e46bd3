"""What ComfyUI's own templates say of the models in our table, as facts: files, nodes, settings.

``python -m scripts.official_templates FOLDER`` reads the unpacked wheel ``comfyui-workflow-templates-json`` and writes
tests/golden/official_templates.json. No text of the templates is kept: kinds of nodes, names of inputs, short values.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .layout import ROOT
from .workflows.families import FAMILIES
from .workflows.family import family_template
from .workflows.restoration import OFFICIAL, restoration

GOLDEN = ROOT / "tests" / "golden" / "official_templates.json"
CHECKED = {family.official: family_template(family) for family in FAMILIES if family.official}
CHECKED[OFFICIAL] = restoration()
"""Our template by the name of ComfyUI's own."""

LONGEST = 100
"""Characters of a value that is kept: a list of sigmas is shorter, a prompt is longer."""


def facts(workflow: dict[str, Any]) -> dict[str, Any]:
    """{"files": {name: address}, "nodes": {kind: {"inputs": [names], "values": [[…] of each node]}}}."""
    files, nodes = {}, {}
    for node in _nodes(workflow):
        for file in node.get("properties", {}).get("models", []):
            files[file["name"]] = file["url"]
        entry = nodes.setdefault(node["type"], {"inputs": set(), "values": []})
        entry["inputs"] |= {socket["name"] for socket in node.get("inputs", [])}
        values = node.get("widgets_values") or []
        entry["values"].append([value for value in values if not isinstance(value, str) or len(value) <= LONGEST])
    return {"files": files, "nodes": {kind: {**one, "inputs": sorted(one["inputs"])} for kind, one in nodes.items()}}


def _nodes(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    parts = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    subgraphs = {part["id"] for part in parts[1:]}
    for part in parts:
        for node in part["nodes"]:
            if node["type"] not in subgraphs and "Note" not in node["type"]:
                yield node


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.official_templates", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the wheel comfyui-workflow-templates-json was unpacked")
    folder = parser.parse_args().folder
    (about,) = folder.glob("*.dist-info")
    templates = {}
    for official, ours in CHECKED.items():
        (path,) = folder.rglob(f"{official}.json")
        kinds = {node.kind for node in ours.nodes} | {"KSampler", "KSamplerAdvanced"}
        fact = facts(json.loads(path.read_text("utf-8")))
        templates[official] = {**fact, "nodes": {kind: one for kind, one in fact["nodes"].items() if kind in kinds}}
    result = {"package": about.name.removesuffix(".dist-info"), "templates": templates}
    GOLDEN.write_text(json.dumps(result, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
