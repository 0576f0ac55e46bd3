"""What tests of the page in a browser share."""

from __future__ import annotations

import pytest

from scripts.browser import wait_for

RENDERERS = pytest.mark.parametrize("nodes_2", [False, True], ids=["classic", "nodes 2.0"])

TAB = "() => app.extensionManager.workflow.activeWorkflow.filename"
"""What is written on the tab of the workflow that is shown."""


def load_graph(page, graph: dict) -> None:
    """As a person's: a graph from a prompt has no id of its own before it is saved."""
    page.evaluate("graph => app.loadApiJson(graph, 'one')", graph)
    page.evaluate("() => app.loadGraphData(app.graph.serialize(), true, true, 'one')")
    wait_for(page, "count => app.graph.nodes.length === count", arg=len(graph))
    page.wait_for_timeout(500)
