"""The pack as the host sees it: loaded without a warning, and its node definitions a promise."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.package import definitions

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "object_info.json"
NODES = (
    "QSchedApply",
    "QSchedArena",
    "QSchedCalibrate",
    "QSchedCalibrationSettings",
    "QSchedCheck",
    "QSchedCoefficients",
    "QSchedDemoModel",
    "QSchedLoadPreset",
    "QSchedLoadQuantized",
    "QSchedLoadQuantizedTextEncoder",
    "QSchedMetric",
    "QSchedObserve",
    "QSchedPrecisionSchedule",
    "QSchedPrompts",
    "QSchedQuantizeModel",
    "QSchedQuantizeTextEncoder",
    "QSchedQuantizeVAE",
    "QSchedSampler",
    "QSchedSamplerSelect",
    "QSchedSamplerTCD",
    "QSchedSavePreset",
    "QSchedSaveQuantized",
    "QSchedSaveQuantizedTextEncoder",
    "QSchedSensitivity",
    "QSchedStepSensitivity",
)


def test_the_log_holds_no_complaint_about_the_pack(server):
    """While loading; later lines belong to tests that provoke errors."""
    start, ready, _ = server.log_text().partition("To see the GUI go to")
    assert ready
    ours = [line.lower() for line in start.splitlines() if "q-sched" in line.lower() or "qsched" in line.lower()]
    assert ours, "the log must at least name the pack"
    assert not [line for line in ours if any(word in line for word in ("warn", "error", "fail", "exception"))]


def test_the_page_gets_the_pack_s_door(server):
    assert "/extensions/q-sched/qsched.js" in server.client.get("/extensions")


def test_node_definitions_are_the_golden_ones(server):
    """Ids, order of inputs and outputs are frozen; new inputs are appended. QSCHED_WRITE_GOLDEN=1 writes anew."""
    text = json.dumps(definitions(server.client), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("QSCHED_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert json.loads(text) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_nodes_without_a_server_have_the_same_definitions(pack):
    """In a moment, where the test above starts a server."""
    pack("nodes.host.folders").register_folders()
    classes = asyncio.run(pack("nodes").QSchedExtension().get_node_list())
    infos = {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in classes}
    here = json.loads(json.dumps(definitions(SimpleNamespace(object_info=lambda: infos))))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for nodes in (here, golden):
        for info in nodes.values():
            info.pop("python_module")  # the server's own name for the pack
    assert here == golden


def test_every_input_and_output_is_explained(server):
    nodes = definitions(server.client)
    assert tuple(nodes) == NODES
    for name, info in nodes.items():
        assert info["description"], name
        assert info["category"] == "Q-Sched"
        assert all(info["output_tooltips"]), name
        for group in ("required", "optional"):
            for key, value in info["input"].get(group, {}).items():
                assert value[1].get("tooltip"), f"{name}.{key}"


def defined(inputs: dict, values: list) -> list[str]:
    """The names of a node's widgets, with those that its chosen form brings along."""
    names = []
    for key, (kind, options, *_) in {**inputs.get("required", {}), **inputs.get("optional", {})}.items():
        if kind == "COMFY_DYNAMICCOMBO_V3":
            (match,) = (option for option in options["options"] if option["key"] in values)
            names += [key, *(f"{key}.{name}" for name in match["inputs"].get("required", {}))]
        elif kind in ("INT", "FLOAT", "STRING", "COMBO", "BOOLEAN") and not options.get("forceInput"):
            names.append(key)
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "example_workflows").glob("*.json")), ids=lambda path: path.stem)
def test_example_workflows_fit_the_node_definitions(server, path):
    """Saved widgets are positional: each node must have the widgets of its definition, and a value for each."""
    every = server.client.object_info()
    for node in json.loads(path.read_text("utf-8"))["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        assert node["type"] in every, node["type"]
        if not node["type"].startswith("QSched"):
            continue
        values = node.get("widgets_values", [])
        widgets = [socket["widget"]["name"] for socket in node["inputs"] if "widget" in socket]
        assert widgets == defined(every[node["type"]]["input"], values), node["type"]
        assert len(values) == len(widgets) + ("seed" in widgets), node["type"]
    assert path.with_suffix(".jpg").exists()


def test_importing_the_pack_imports_nothing_heavy():
    """The door itself: no torch, no host. What comes after is imported when the host asks for the nodes."""
    code = (
        "import importlib.util, sys\n"
        "before = set(sys.modules)\n"
        f"spec = importlib.util.spec_from_file_location('p', {str(ROOT / '__init__.py')!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "print(sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_loading_the_nodes_imports_no_optional_package(server):
    """As the server was when all packs were loaded, and nothing had been asked of it."""
    assert server.client.get("/test/imported_at_the_start") == []
