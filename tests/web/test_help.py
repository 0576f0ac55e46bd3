"""The help of a node, in the page's own panel: its picture is there, whatever the language."""

from __future__ import annotations

import pytest

from scripts.browser import wait_for

OPEN = """async () => {
  await app.loadApiJson({ 1: { class_type: "QSchedSamplerTCD", inputs: { eta: 0.3 } } }, "help");
  await new Promise(resolve => setTimeout(resolve, 500));
  app.canvas.selectItems(app.graph.nodes);
}"""

PICTURE = """() => {
  const picture = document.querySelector(".node-help-content img");
  return picture?.complete && picture.naturalWidth > 0 ? decodeURI(picture.src) : "";
}"""


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_help_of_a_node_shows_its_picture(open_page, server, language):
    page = open_page(nodes_2=True)
    try:
        page.request.post(f"{server.client.base_url}/api/settings/Comfy.Locale", data=f'"{language}"')
        page.reload()
        wait_for(page, "window.app?.extensionManager && app.canvas && app.graph")
        page.wait_for_timeout(2000)  # the last workflow of the page comes back
        page.evaluate(OPEN)
        page.locator("[data-testid=info-button]").click()
        assert wait_for(page, PICTURE).json_value().endswith("/docs/QSchedSamplerTCD.png")
        assert ("pictures" in page.locator(".node-help-content").inner_text()) == (language == "en")
    finally:
        page.request.post(f"{server.client.base_url}/api/settings/Comfy.Locale", data='"en"')
