"""The example workflows: the page's form, the API's form and their description say the same, and nothing overlaps."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
from PIL import Image

from scripts.layout import ROOT
from scripts.workflows import TEMPLATES
from scripts.workflows.blueprint import NAME
from scripts.workflows.build import BLUEPRINTS, NOTE, WORKFLOWS, api_of, without_nulls
from scripts.workflows.graph import LANGUAGES, LIVE, NOTES, SHARED, note_text

BUILT = {template.name: template for template in (make() for make in TEMPLATES)}
HEAD = 30
"""A node's title bar lies above its place."""

per_template = pytest.mark.parametrize("name", BUILT)


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
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == sorted(BUILT)
    assert sorted(path.stem for path in WORKFLOWS.glob("*.jpg")) == sorted(BUILT)


@per_template
def test_the_page_has_the_nodes_values_and_links_of_the_description(name):
    flow = workflow(name)
    saved = {node["id"]: node for node in flow["nodes"]}
    note = saved.pop(NOTE)
    assert note["widgets_values"] == [BUILT[name].note]
    assert note["properties"]["qsched_note"] == BUILT[name].number, "the page translates it by this"
    assert set(saved) == {node.id for node in BUILT[name].nodes}
    for node in BUILT[name].nodes:
        node_values = saved[node.id]
        assert (node_values["type"], node_values["mode"]) == (node.kind, node.mode)
        if node.label:  # else the host writes, and translates, the kind's own
            assert node_values["title"] == node.label
        links = {key: tuple(value) for key, value in node.inputs.items() if isinstance(value, list)}
        assert links_of(flow, node_values) == links, node.title
        values = values_of(node_values)
        assert {key: values[key] for key in set(node.inputs) - set(links)} == {
            key: value for key, value in node.inputs.items() if key not in links
        }, node.title


@per_template
def test_the_api_form_is_that_of_the_description(name):
    graph = read(WORKFLOWS / "api" / f"{name}.json")
    assert graph == api_of(BUILT[name])
    assert len(graph) == sum(node.mode == LIVE for node in BUILT[name].nodes)
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
    first = min(node[0] for node in nodes)
    assert note[2] < first or BUILT[name].note_band is not None, "the note is at the left"
    assert {group["title"] for group in flow["groups"]} == {g.title for band in BUILT[name].bands for g in band}


@per_template
def test_a_file_that_is_asked_for_can_be_downloaded_and_is_named_in_the_note(name):
    urls = {file.name: file.url for node in BUILT[name].nodes for file in node.files}
    for node in workflow(name)["nodes"]:
        models = node["properties"].get("models", [])
        assert bool(models) == (node["mode"] == LIVE and "Loader" in node["type"]), node["type"]
        values = [value for value in node.get("widgets_values", []) if str(value).endswith(".safetensors")]
        if models:
            assert [model["name"] for model in models] == values
        for model in models:
            assert re.fullmatch(r"https://huggingface\.co/[\w.-]+/[\w.-]+/resolve/main/[\w./-]+", model["url"])
            assert urls[model["name"]] == model["url"]
            assert f"[{model['name']}]({model['url']})" in BUILT[name].note


@per_template
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_note_says_the_same_in_every_language(name, language):
    english, text = note_text(BUILT[name].number), note_text(BUILT[name].number, language)
    assert text, "there is none"
    assert "{" not in text
    for what in (r"\]\((.*?)\)", r"`(.*?)`", r"\d+"):
        missing = set(re.findall(what, english)) - set(re.findall(what, text))
        assert {one for one in missing if what != r"\d+" or len(one) > 1} == set()
    assert text.count("\n") == english.count("\n")
    assert len(text) < 2600, "a note is read in one sitting"


def test_notes_are_there_for_templates_and_nothing_else():
    numbers = {template.number for template in BUILT.values()}
    for language in LANGUAGES:
        names = {name for name in read(NOTES / f"{language}.json") if not name.startswith(SHARED)}
        assert names == numbers


@per_template
def test_what_stands_in_the_graph_needs_no_translation(name):
    """Group titles and titles of our own: numbers, names of models and formats, and the nodes' own names."""
    titles = [group["title"] for group in workflow(name)["groups"]] + [node.label for node in BUILT[name].nodes]
    names = {"Q-Sched", "Sampler", "Apply", "Select", "KSampler", "SamplerCustomAdvanced", "SDTurboScheduler", "TCD"}
    names |= {
        "BasicScheduler",
        "Turbo",
        "Lightning",
        "LCM",
        "PCM",
        "px",
        "bit",
        "sigmas",
        "FP16",
        "fp8",
        "JAQ",
        "GPTQ",
        "A",
        "B",
        *re.findall(r"[A-Za-z][\w.-]*", name),
    }
    words = {word for title in titles for word in re.findall(r"[A-Za-z][\w.-]*", title)}
    assert {word for word in words - names if not re.fullmatch(r"W\dA\d|C|c_x|c_eps", word)} == set()


def test_the_first_template_fits_a_laptop():
    """At most nine nodes, readable at 1280 x 720: below a scale of 0.57 the classic canvas writes no texts."""
    flow = workflow("01 Try it now")
    assert len(flow["nodes"]) <= 9
    assert flow["extra"]["ds"]["scale"] >= 0.6
    frames = [frame(node) for node in flow["nodes"]]
    # The host shows a template so that it takes 3/4 of the window.
    assert max(f[2] for f in frames) - min(f[0] for f in frames) < 0.75 * 1280 / 0.6
    assert max(f[3] for f in frames) - min(f[1] for f in frames) < 0.75 * 720 / 0.6


def test_templates_are_numbered_in_their_order():
    assert [template.number for template in BUILT.values()] == [f"{number:02}" for number in range(1, len(BUILT) + 1)]


def test_the_style_sheet_has_a_place_for_every_number():
    """Regression: it named eight, and with the ninth the list fell back to the file system's order."""
    sheet = (ROOT / "web" / "templates" / "templates.css").read_text("utf-8")
    places = dict(re.findall(r'"template-workflow-(\d\d) "\] \{ order: (\d+); \}', sheet))
    assert {number: int(place) for number, place in places.items()} == {t.number: int(t.number) for t in BUILT.values()}
    tens = {number[0] for number in places}
    assert set(re.findall(r'\^="template-workflow-(\d)"\]', sheet)) == tens, "all of ours count as ours"


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


@pytest.mark.parametrize("path", [*WORKFLOWS.glob("*.json")], ids=lambda path: path.stem)
def test_a_socket_has_the_name_of_the_page_s_language(path):
    """Old front ends write a display name into a socket's label, which every page takes for the user's own."""
    assert [socket for node in read(path)["nodes"] for socket in node["inputs"] if "label" in socket] == []


def test_what_means_something_is_left_when_nulls_are_taken_out():
    node = {"widgets_values": [None, 1], "inputs": [{"link": None, "dir": None}], "outputs": [{"slot_index": None}]}
    assert without_nulls({"nodes": [node], "extra": None}) == {
        "nodes": [{"widgets_values": [None, 1], "inputs": [{"link": None}], "outputs": [{}]}]
    }
