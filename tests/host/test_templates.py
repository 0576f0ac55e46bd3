"""The example workflows on the real server: the demo's as they are, the others on random files of the right shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from exactness import differ, same_bits
from module_files import beside
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

WORKFLOWS = Path(__file__).resolve().parents[2] / "example_workflows" / "api"
REAL = {"02": (4096, 768), "03": (2048, 1280), "06": (4096, 768)}
"""Widths of the tokens and of the pooled vector that the stand-in for the text encoders gives."""


families = beside(__file__, "test_families")

SEARCHES = json.loads((Path(__file__).resolve().parents[1] / "golden" / "searches.json").read_text("utf-8"))
"""What people type into the host's node search, and the node that it must find; tests/web types it."""


def written(number: str) -> dict[str, dict]:
    (path,) = WORKFLOWS.glob(f"{number} *.json")
    return json.loads(path.read_text("utf-8"))


def at_hand(number: str) -> dict[str, dict]:
    """The workflow with stand-ins for its text encoders, and a picture as small as can be."""
    width, pooled = REAL[number]
    graph = written(number)
    for node_id, node in list(graph.items()):
        if node["class_type"] == "CLIPTextEncode":
            inputs = {"text": node["inputs"]["text"], "width": width, "pooled": pooled}
            graph[node_id] = {"class_type": "TestConditioning", "inputs": inputs}
        elif node["class_type"] == "DualCLIPLoader":
            del graph[node_id]
    return small(graph)


def small(graph: dict[str, dict]) -> dict[str, dict]:
    """A picture of a quarter of the size costs a quarter of the time."""
    for node in graph.values():
        if node["class_type"].startswith("Empty"):
            node["inputs"].update(width=64, height=64)
    return graph


@pytest.fixture(scope="module", autouse=True)
def models(server):
    """The random files that these workflows ask for: those of all families take ten seconds to make."""
    values = {str(value) for number in REAL for node in written(number).values() for value in node["inputs"].values()}
    with families.random_files(server, sorted(values & families.FILES.keys())):
        yield


def pictures(server, graph: dict[str, dict], timeout: float = 600) -> dict[str, torch.Tensor]:
    """The first picture of every node that shows some, by the node's title."""
    outputs = server.client.run(graph, timeout=timeout)
    shots = {}
    for node_id, output in outputs.items():
        for file in output.get("images", [])[:1]:
            with Image.open(server.folder(file["type"]) / file["subfolder"] / file["filename"]) as picture:
                shots[graph[node_id]["_meta"]["title"]] = pil_to_tensor(picture.convert("RGB"))
    return shots


@pytest.mark.parametrize("number", REAL)
def test_a_template_of_real_models_samples_without_and_with_its_preset(server, number):
    before = len(server.log_text())
    plain, with_preset = pictures(server, at_hand(number)).values()
    assert families.complaints(server.log_text()[before:]) == []
    assert plain.float().std() > 0
    assert with_preset.float().std() > 0
    assert differ(plain, with_preset)


def test_the_three_ways_to_use_a_preset_give_the_same_picture(server):
    shots = pictures(server, small(written("05")))
    assert same_bits(shots["A"], shots["B"])
    assert same_bits(shots["A"], shots["C"])
    assert differ(shots["A"], shots["W4A4"])


def test_the_calibration_shows_its_pictures_and_saves_its_preset(server):
    graph = small(written("04"))
    graph["4"]["inputs"].update(trials=2)
    graph["11"]["inputs"].update(verdict_seeds=1)
    assert set(pictures(server, graph)) >= {"FP16 | W4A4 | W4A4 + Q-Sched", "c_x | c_eps", "JAQ"}
    assert (server.base / "models" / "qsched_presets" / "my demo preset.safetensors").exists()


def test_try_it_now_shows_full_nearest_repaired_and_fitted(server):
    """On six of its prompts: what a search finds on so few, if anything, is another matter."""
    graph = small(written("01"))
    inputs = graph["4"]["inputs"]
    inputs.update(trials=2, prompts="\n".join(inputs["prompts"].splitlines()[:6]))
    (picture,) = (shot for title, shot in pictures(server, graph).items() if title.startswith("Full"))
    gap = 6  # above the first row; each row ends with one
    full, nearest, _, gptq = picture[:, gap:].split((picture.shape[1] - gap) // 4, dim=1)

    def error(row: torch.Tensor) -> float:
        return (row.float() - full.float()).square().mean().item()

    assert 0 < error(gptq) < error(nearest)


def test_a_vote_is_offered_on_the_preset_that_comes_with_the_pack(server):
    graph = small(written("07"))
    outputs = server.client.run(graph, timeout=300)
    (node,) = (id for id, one in graph.items() if one["class_type"] == "QSchedArena")
    assert len(outputs[node]["qsched_arena"]) == 1


def test_the_plan_of_the_layers_is_quantized_and_sampled(server):
    shots = pictures(server, small(written("08")))
    assert set(shots) == {"Sensitivity", "5 bit"}
    assert shots["5 bit"].float().std() > 0


def test_the_plan_of_the_steps_is_sampled_beside_the_unplanned(server):
    """With all its prompts: of two that the verdict is judged on, it is one on this CPU and another on the next."""
    graph = small(written("20"))
    graph["4"]["inputs"].update(formats="1, 2")
    shots = pictures(server, graph)
    assert set(shots) == {"Losses and costs", "W4A4", "W4A4 + W8A8"}
    assert differ(shots["W4A4"], shots["W4A4 + W8A8"])


def test_the_host_offers_the_templates_and_the_blueprint(server):
    (ours,) = (names for pack, names in server.client.get("/workflow_templates").items() if "q-sched" in pack.lower())
    assert sorted(ours) == sorted(path.stem for path in WORKFLOWS.parent.glob("*.json"))
    blueprints = server.client.get("/global_subgraphs").items()
    (key,) = (key for key, entry in blueprints if entry["info"]["node_pack"].endswith("q-sched"))
    entry = server.client.get(f"/global_subgraphs/{key}")
    assert entry["name"] == "Q-Sched quick start"
    assert json.loads(entry["data"])["definitions"]["subgraphs"]


@pytest.mark.parametrize("words", SEARCHES)
def test_a_natural_search_finds_the_node(server, words):
    info = server.client.object_info(SEARCHES[words])[SEARCHES[words]]
    searched = [info["display_name"], *info["search_aliases"]]
    assert any(words.lower() in text.lower() for text in searched)
