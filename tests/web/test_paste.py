"""Copy and paste in every template and the blueprint, by keys as a person does it."""

from __future__ import annotations

import json

import pytest

from scripts.layout import ROOT

COUNT = "() => app.graph.nodes.length"


def graphs() -> dict[str, dict]:
    """The blueprint, and templates until each of our nodes that one of them has is in these: of those that are left,
    always the one with the most new ones."""
    files = [*(ROOT / "subgraphs").glob("*.json"), *sorted((ROOT / "example_workflows").glob("*.json"))]
    rest = {file.stem: json.loads(file.read_text("utf-8")) for file in files}
    ours = {name: {node["type"] for node in graph["nodes"] if "QSched" in node["type"]} for name, graph in rest.items()}
    few, kinds = {files[0].stem: rest.pop(files[0].stem)}, set()
    while rest:
        name = max(rest, key=lambda name: len(ours[name] - kinds))
        if ours[name] <= kinds:
            break
        few[name] = rest.pop(name)
        kinds |= ours[name]
    return few


@pytest.mark.front_ends
def test_templates_with_all_of_our_nodes_and_the_blueprint_can_be_copied_and_pasted(open_page):
    page = open_page()
    counts = {}
    for name, graph in graphs().items():
        page.evaluate("flow => app.loadGraphData(flow)", graph)
        page.wait_for_timeout(500)
        before = page.evaluate(COUNT)
        page.locator("#graph-canvas").focus()
        for keys in ("Control+a", "Control+c", "Control+v"):
            page.keyboard.press(keys)
            page.wait_for_timeout(300)
        counts[name] = page.evaluate(COUNT) / before
    assert len(counts) > 3
    assert counts == dict.fromkeys(counts, 2)
