"""Copy and paste in every template and the blueprint, by keys as a person does it."""

from __future__ import annotations

import json
import re

import pytest

from scripts.layout import ROOT

FAMILIES = re.compile("1[0-9] ")
"""09 stands for those: one builder makes them all."""

FILES = sorted(
    [
        *(path for path in (ROOT / "example_workflows").glob("*.json") if not FAMILIES.match(path.name)),
        *(ROOT / "subgraphs").glob("*.json"),
    ]
)
COUNT = "() => app.graph.nodes.length"


@pytest.mark.front_ends
def test_nodes_of_every_template_and_of_the_blueprint_can_be_copied_and_pasted(open_page):
    page = open_page(nodes_2=False)
    counts = {}
    for file in FILES:
        page.evaluate("flow => app.loadGraphData(flow)", json.loads(file.read_text("utf-8")))
        page.wait_for_timeout(500)
        before = page.evaluate(COUNT)
        page.locator("#graph-canvas").focus()
        for keys in ("Control+a", "Control+c", "Control+v"):
            page.keyboard.press(keys)
            page.wait_for_timeout(300)
        counts[file.stem] = page.evaluate(COUNT) / before
    assert counts == dict.fromkeys(counts, 2)
