"""Renames: what was promised is still there or has a replacement, and the host puts replacements in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = "tests/golden/object_info.json"


def promised() -> dict:
    """The definitions of the last release; before the first, those of the last commit."""
    tag = git("tag", "--list", "v*", "--sort=-v:refname").splitlines()
    return json.loads(git("show", f"{tag[0] if tag else 'HEAD'}:{GOLDEN}"))


def git(*words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True, encoding="utf-8")


def inputs_of(info: dict) -> set[str]:
    return {name for group, names in info["input"].items() if group != "hidden" for name in names}


def test_every_promised_node_is_there_with_its_inputs_and_outputs_or_replaced(server, pack):
    nodes, replaced = (
        server.client.object_info(),
        {entry["old_node_id"] for entry in pack("nodes.renamed").RENAMED_NODES},
    )
    for name, old in promised().items():
        if name in replaced:
            continue
        assert name in nodes, f"{name} is gone: put it into nodes/renamed.py"
        new = nodes[name]
        assert inputs_of(old) <= inputs_of(new), name
        assert new["output"][: len(old["output"])] == old["output"], name
        required = set(new["input"].get("required", {})) - inputs_of(old)
        assert not required, f"{name}: a new input must be optional, saved workflows do not have it"


def test_no_replacement_leads_nowhere(server, pack):
    nodes = server.client.object_info()
    for entry in pack("nodes.renamed").RENAMED_NODES:
        assert entry["old_node_id"] not in nodes
        new = nodes[entry["new_node_id"]]
        assert {item["new_id"].partition(".")[0] for item in entry["input_mapping"]} <= inputs_of(new)
        assert all(item["new_idx"] < len(new["output"]) for item in entry["output_mapping"])
