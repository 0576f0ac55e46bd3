"""The example workflows: the page's form, the API's form and their description say the same, and nothing overlaps."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
from PIL import Image

from scripts.layout import ROOT
from scripts.template_blueprint import NAME
from scripts.template_graphs import LIVE, TEMPLATES
from scripts.templates import BLUEPRINTS, NOTE, WORKFLOWS, api_of, without_nulls

MADE = {template.name: template for template in (make() for make in TEMPLATES)}
HEAD = 30
"""A node's title bar lies above its place."""

per_template = pytest.mark.parametrize("name", MADE)


def read(path):
    return json.loads(path.read_text("utf-8"))


def workflow(name):
    return read(WORKFLOWS / f"{name}.json")


def values_of(node):
    """A saved node's widgets by name: they are positional, and a seed is followed by what becomes of it."""
    saved, values = iter(node.get("widgets_values", [])), {}
    for socket in node["inputs"]:
        if "widget" in socket:
            values[socket["widget"]["name"]] = next(saved)
            if socket["widget"]["name"] in ("seed", "noise_seed"):
                assert next(saved) == "fixed", "the first run must be the one that is described"
    assert list(saved) == []
    return values


def links_of(flow, node):
    ends = {link[0]: (link[1], link[2]) for link in flow["links"]}
    return {socket["name"]: ends[socket["link"]] for socket in node["inputs"] if socket.get("link") is not None}


def frame(node):
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - HEAD, x + width, y + height


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_there_is_a_file_of_each_kind_for_every_template():
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == sorted(MADE)
    assert sorted(path.stem for path in WORKFLOWS.glob("*.jpg")) == sorted(MADE)


@per_template
def test_the_page_has_the_nodes_values_and_links_of_the_description(name):
    flow = workflow(name)
    saved = {node["id"]: node for node in flow["nodes"]}
    note = saved.pop(NOTE)
    assert note["widgets_values"] == [MADE[name].note]
    assert set(saved) == {node.id for node in MADE[name].nodes}
    for node in MADE[name].nodes:
        found = saved[node.id]  # without a title, where it is the kind's own
        assert (found["type"], found.get("title", node.title), found["mode"]) == (node.kind, node.title, node.mode)
        links = {key: tuple(value) for key, value in node.inputs.items() if isinstance(value, list)}
        assert links_of(flow, found) == links, node.title
        values = values_of(found)
        assert {key: values[key] for key in set(node.inputs) - set(links)} == {
            key: value for key, value in node.inputs.items() if key not in links
        }, node.title


@per_template
def test_the_api_form_is_that_of_the_description(name):
    graph = read(WORKFLOWS / "api" / f"{name}.json")
    assert graph == api_of(MADE[name])
    assert len(graph) == sum(node.mode == LIVE for node in MADE[name].nodes)
    assert all(value[0] in graph for node in graph.values() for value in node["inputs"].values() if type(value) is list)


@per_template
def test_nothing_overlaps_and_every_node_lies_in_one_group(name):
    flow = workflow(name)
    nodes = [frame(node) for node in flow["nodes"] if node["id"] != NOTE]
    (note,) = (frame(node) for node in flow["nodes"] if node["id"] == NOTE)
    groups = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in flow["groups"])]
    for one, other in [*combinations(nodes, 2), *combinations([note, *groups], 2)]:
        assert not overlap(one, other)
    for node in nodes:
        around = [g for g in groups if g[0] < node[0] and g[1] < node[1] and node[2] < g[2] and node[3] < g[3]]
        assert len(around) == 1
    assert note[2] < min(node[0] for node in nodes), "the note is at the left"
    assert {group["title"] for group in flow["groups"]} == {g.title for band in MADE[name].bands for g in band}


@per_template
def test_a_file_that_is_asked_for_can_be_downloaded_and_is_named_in_the_note(name):
    for node in workflow(name)["nodes"]:
        models = node["properties"].get("models", [])
        assert bool(models) == (node["mode"] == LIVE and "Loader" in node["type"]), node["type"]
        chosen = [value for value in node.get("widgets_values", []) if str(value).endswith(".safetensors")]
        if models:
            assert [model["name"] for model in models] == chosen
        for model in models:
            assert re.fullmatch(r"https://huggingface\.co/[\w.-]+/[\w.-]+/resolve/main/[\w./-]+", model["url"])
            assert model["url"].endswith(f"/{model['name']}")
            assert f"[{model['name']}]({model['url']})" in MADE[name].note


@per_template
def test_a_template_has_a_small_square_picture(name):
    path = WORKFLOWS / f"{name}.jpg"
    assert path.stat().st_size < 60_000
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("JPEG", (512, 512))


def test_the_blueprint_is_one_subgraph_that_says_what_it_is_for():
    blueprint = read(ROOT / "subgraphs" / f"{NAME}.json")
    (node,) = blueprint["nodes"]
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    assert (node["type"], subgraph["name"]) == (subgraph["id"], NAME)
    assert {"quantize", "few steps", "preset"} <= set(blueprint["extra"]["BlueprintSearchAliases"])
    assert blueprint["extra"]["BlueprintDescription"]
    assert [socket["name"] for socket in subgraph["inputs"][:4]] == ["model", "clip", "vae", "preset"]
    assert all(socket["linkIds"] for socket in subgraph["inputs"]), "what is exposed must lead somewhere"


@pytest.mark.parametrize("path", [*WORKFLOWS.glob("*.json"), *BLUEPRINTS.glob("*.json")], ids=lambda path: path.stem)
def test_no_file_holds_nulls_that_break_copy_and_paste(path):
    """``"slot_index": null`` made every paste fail in front ends from 1.54 on, that of the host's own nodes too."""
    flow = read(path)
    assert without_nulls(flow) == flow


def test_what_means_something_is_left_when_nulls_are_taken_out():
    node = {"widgets_values": [None, 1], "inputs": [{"link": None, "dir": None}], "outputs": [{"slot_index": None}]}
    assert without_nulls({"nodes": [node], "extra": None}) == {
        "nodes": [{"widgets_values": [None, 1], "inputs": [{"link": None}], "outputs": [{}]}]
    }
