"""The help of a node, in the page's own panel: its picture is there, whatever the language."""

from __future__ import annotations

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


def test_the_help_of_a_node_shows_its_picture(open_page):
    page = open_page(nodes_2=True, fresh=True, Comfy_Locale="fr")
    wait_for(page, "() => app.graph.nodes.length > 5")  # the page's own first workflow
    page.evaluate(OPEN)
    page.locator("[data-testid=info-button]").click()
    assert wait_for(page, PICTURE).json_value().endswith("/docs/QSchedSamplerTCD.png")
    assert "Recettes" in page.locator(".node-help-content").inner_text()
