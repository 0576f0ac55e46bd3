"""The first minute on a machine that has ComfyUI's requirements and ours, and nothing else.

Here optional packages are hidden from the server's Python. `make bare` runs the same in an environment that never had
them: its interpreter is in QSCHED_BARE_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_clip import write_folder

from scripts import server as comfyui
from scripts.layout import ROOT

OPTIONAL = {
    "diffusers": "diffusers",
    "optimum-quanto": "optimum",
    "pyiqa": "pyiqa",
    "psycopg": "psycopg",
    "playwright": "playwright",
}
"""Packages that a user need not have, and the names they are imported by."""

HIDE = f"""
import importlib.machinery, importlib.metadata

MODULES, PACKAGES = {sorted(OPTIONAL.values())}, {sorted(OPTIONAL)}
find, distribution = importlib.machinery.PathFinder.find_spec, importlib.metadata.distribution

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in MODULES else find(name, path, target)

def visible(name):
    if name.lower().replace("_", "-") in PACKAGES:
        raise importlib.metadata.PackageNotFoundError(name)
    return distribution(name)

importlib.machinery.PathFinder.find_spec = find_spec
importlib.metadata.distribution = visible
importlib.metadata.version = lambda name: visible(name).version
"""
"""A sitecustomize, which Python imports before anything else."""

PROMPTS = "\n".join(f"a large {thing} on a white background" for thing in "apple frog whale star".split())
PROMPTS += "\n" + PROMPTS.replace("large", "small")


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """(Interpreter, what its environment needs) that has none of OPTIONAL."""
    path = os.environ.get("QSCHED_BARE_PYTHON")
    if path:
        return Path(path), {}
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(HIDE, "utf-8")
    return Path(sys.executable), {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def bare(host, python):
    judge_of_few_scenes = Path(__file__).with_name("test_nodes")
    with comfyui.running(host, python[0], env=python[1], extra_packs=[judge_of_few_scenes]) as running:
        (running.folder("models") / "qsched_metrics").mkdir()
        write_folder(running.folder("models") / "qsched_metrics" / "tiny clip")
        yield running


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def of_kind(graph: dict, kind: str) -> list[dict]:
    return [entry["inputs"] for entry in graph.values() if entry["class_type"] == kind]


def workflow(name: str) -> dict:
    (path,) = (ROOT / "example_workflows" / "api").glob(f"{name}*.json")
    graph = json.loads(path.read_text("utf-8"))
    for inputs in of_kind(graph, "QSchedCalibrate"):
        inputs.update(trials=2, prompts="\n".join(inputs["prompts"].splitlines()[:4]))
    for inputs in of_kind(graph, "EmptySD3LatentImage"):
        inputs.update(width=32, height=32)
    for inputs in of_kind(graph, "QSchedQuantizeModel"):
        inputs.update(include="*double_blocks.0.img_mlp*")  # all need the same packages
    for node_inputs in (entry["inputs"] for entry in graph.values()):
        node_inputs.update({"steps": 2} if "steps" in node_inputs else {})
    return graph


def reports(outputs: dict) -> list[dict]:
    return [json.loads(output["qsched_report"][0]) for output in outputs.values() if "qsched_report" in output]


def test_nothing_optional_can_be_imported(python):
    """Else all that follows shows nothing."""
    code = f"from importlib.util import find_spec; print([m for m in {list(OPTIONAL.values())} if find_spec(m)])"
    env = {**os.environ, **python[1]}
    done = subprocess.run([python[0], "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"


def test_the_check_has_nothing_to_do_and_names_what_is_optional(bare):
    (text,) = bare.client.run({"1": node("QSchedCheck")}, timeout=300)["1"]["text"]
    first, *lines = text.splitlines()
    assert first.endswith(": all is fine"), text
    for package in OPTIONAL.keys() - {"playwright"}:
        assert [line for line in lines if line.startswith(f"OPTIONAL  {package} is not installed")], text


def test_the_first_template_ends_with_a_verdict_and_pictures(bare):
    outputs = bare.client.run(workflow("01"), timeout=600)
    (report,) = reports(outputs)
    assert report["verdict"]
    assert [output for output in outputs.values() if output.get("images")]


def test_the_demo_s_graph_saves_its_preset_for_the_library(bare):
    graph = workflow("demo")
    lines = (ROOT / "demo" / "prompts.txt").read_text("utf-8").splitlines()
    (bare.folder("input") / "qsched_demo_prompts.txt").write_text("\n".join(lines[:5]), "utf-8")  # one is a comment
    assert len(reports(bare.client.run(graph, timeout=600))) == len(of_kind(graph, "QSchedCalibrate"))
    options = bare.client.object_info("QSchedLoadPreset")["QSchedLoadPreset"]["input"]["required"]["preset_name"]
    names = set(options[1]["options"])
    assert {f"{inputs['name']}.safetensors" for inputs in of_kind(graph, "QSchedSavePreset")} <= names


def test_an_open_clip_folder_scores(bare):
    graph = workflow("01")
    for inputs in of_kind(graph, "QSchedCalibrate"):
        inputs.update(metric="tiny clip", prompts=PROMPTS, steps=2, trials=2)
    bare.client.object_info("QSchedCalibrate")  # the host looks for new folders, as the R key does
    (report,) = reports(bare.client.run(graph, timeout=600))
    assert len(report["trace"]) == 1 + 2  # the identity and two trials


def test_a_quantized_model_is_saved_and_loaded(bare):
    quantized = {
        "1": node("QSchedDemoModel"),
        "2": node("QSchedQuantizeModel", model=["1", 0], format="w4a8", group_size="64", include="*", exclude=""),
    }
    bare.client.run({**quantized, "3": node("QSchedSaveQuantized", model=["2", 0], name="bare")}, timeout=300)
    bare.client.object_info("QSchedLoadQuantized")
    sampling = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    texts = {"positive": ["t", 0], "negative": ["t", 0]}
    outputs = bare.client.run(
        {
            "1": quantized["1"],
            "l": node("QSchedLoadQuantized", model_name="bare.safetensors"),
            "t": node("CLIPTextEncode", clip=["1", 1], text="a large apple"),
            "e": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
            "s": node("KSampler", model=["l", 0], latent_image=["e", 0], **sampling, **texts),
            "d": node("VAEDecode", samples=["s", 0], vae=["1", 2]),
            "o": node("PreviewImage", images=["d", 0]),
        },
        timeout=300,
    )
    assert outputs["o"]["images"]


def test_the_arena_takes_a_vote(bare):
    ends = {f"form.{name}_{end}": 1.0 for name in ("c_x", "c_eps") for end in ("first", "last")}
    outputs = bare.client.run(
        {
            "m": node("QSchedDemoModel"),
            "g": node("BasicScheduler", model=["m", 0], scheduler="simple", steps=4, denoise=1.0),
            "p": node("QSchedCoefficients", sigmas=["g", 0], strength=1.0, form="ramp", **ends),
            "x": node("EmptyImage", width=16, height=16, batch_size=2, color=255),
            "y": node("EmptyImage", width=16, height=16, batch_size=2, color=0),
            "a": node("QSchedArena", **{"without": ["x", 0], "with_preset": ["y", 0], "preset": ["p", 0], "ballot": 1}),
        },
        timeout=300,
    )
    key = outputs["a"]["qsched_arena"][0]
    bare.client.post("/qsched/arena/vote", {"key": key, "pair": 0, "choice": "left"})
    assert bare.client.get(f"/qsched/arena?key={key}")["votes"]
