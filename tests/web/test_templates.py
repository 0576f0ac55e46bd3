"""Templates, blueprint and search in the page, in both of the host's renderers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from module_files import beside
from pages import RENDERERS

from scripts.browser import wait_for
from scripts.workflows.build import FILL

WORKFLOWS = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
ALIKE = {"10", "11", "13", "14", "16", "17", "18"}
"""Numbers of templates that one builder makes of the same nodes as 09, 12 and 15."""

LAID_OUT = [name for name in NAMES if name[:2] not in ALIKE]
BLUEPRINT = "Q-Sched quick start"
SEARCHES = json.loads((Path(__file__).resolve().parents[1] / "golden" / "searches.json").read_text("utf-8"))


common = beside(__file__, "test_page")

LOAD = """async name => {
  const packs = Object.keys(await (await app.api.fetchApi("/workflow_templates")).json());
  const path = `/workflow_templates/${packs.find(n => /q-sched/i.test(n))}/${encodeURIComponent(name)}.json`;
  await app.loadGraphData(await (await app.api.fetchApi(path)).json());
}"""


def open_dialog(page) -> None:
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_role("dialog").get_by_text("Q-Sched", exact=True).click()


def search(page, words: str) -> list[str]:
    """The lines of the node search for `words`."""
    box = page.locator("input[role=combobox]:visible").first
    if not box.is_visible():
        page.evaluate("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box.fill(words)
    page.wait_for_timeout(1500)
    return page.locator("[role=option]:visible").all_inner_texts()


def test_every_template_is_shown_with_its_picture_and_the_first_one_runs(open_page, tmp_path):
    page = open_page(nodes_2=True)  # test_page.py runs its calibration in both renderers
    open_dialog(page)
    for name in NAMES:
        entry = page.locator(f'[data-testid="template-workflow-{name}"]')
        entry.scroll_into_view_if_needed()
        picture = entry.locator("img").first.element_handle()
        wait_for(page, "image => image.complete && image.naturalWidth === 512", arg=picture)
    page.screenshot(path=tmp_path / "dialog.png")
    page.locator(f'[data-testid="template-workflow-{NAMES[0]}"]').click()
    wait_for(page, "() => app.graph.nodes.some(node => node.type === 'QSchedCalibrate')")
    page.evaluate(
        """seed => {
          const node = app.graph.nodes.find(n => n.type === "QSchedCalibrate");
          // Four of its prompts: what is shown is looked at here, and not what is found.
          const prompts = node.widgets.find(w => w.name === "prompts").value.split("\\n").slice(0, 4).join("\\n");
          const set = { trials: 3, prompts: `${prompts}\n# ${seed}` };
          for (const [key, value] of Object.entries(set)) node.widgets.find(w => w.name === key).value = value;
        }""",
        arg=100,
    )
    page.locator('[data-testid="queue-button"]').first.click()
    wait_for(page, f"async () => (await ({common.QUEUE})()).some(Boolean)")
    common.wait_until_done(page)  # as long as it takes: a slow machine that runs other tests beside it needs minutes
    wait_for(page, "() => app.nodeOutputs?.[5]?.images?.length === 1")
    page.screenshot(path=tmp_path / "run.png")


@pytest.mark.front_ends
@RENDERERS
def test_every_template_is_whole_before_a_run_and_with_all_that_a_run_shows(open_page, tmp_path, nodes_2):
    """Regression: after a run JAQ Calibrate hung 300 pixels out of its group."""
    page = open_page(nodes_2=nodes_2)
    for name in LAID_OUT:
        page.evaluate(LOAD, name)
        common.check_frames(page, name)
        page.evaluate(FILL)
        common.check_frames(page, f"{name}, filled")
        page.screenshot(path=tmp_path / f"{name}, filled.png")


def test_notes_speak_the_language_of_the_page_until_somebody_writes_in_them(open_page):
    text = "() => app.graph.nodes.find(node => node.type === 'MarkdownNote').widgets[0].value"
    page = open_page(nodes_2=False, Comfy_Locale="fr")
    page.evaluate(LOAD, NAMES[0])
    assert page.evaluate(text).startswith("# Essayer tout de suite")
    page.evaluate(
        """flow => {
          flow.nodes.find(node => node.type === "MarkdownNote").widgets_values = ["mine"];
          return app.loadGraphData(flow);
        }""",
        page.evaluate("() => app.graph.serialize()"),
    )
    assert page.evaluate(text) == "mine"


@pytest.mark.front_ends
def test_the_list_is_in_the_order_of_the_numbers(open_page, tmp_path):
    """Regression: the host lists files as the file system does."""
    page = open_page()
    open_dialog(page)
    for name in NAMES:  # the dialog makes its cards as they come into sight
        page.locator(f'[data-testid="template-workflow-{name}"]').scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "order.png")
    places = page.locator('[data-testid^="template-workflow-"]').evaluate_all(
        """cards => cards.map(card => {
          const { x, y } = card.getBoundingClientRect();
          return [Math.round(y), Math.round(x), card.dataset.testid.replace("template-workflow-", "")];
        })"""
    )
    assert [name for _, _, name in sorted(places) if name in NAMES] == NAMES


def test_the_blueprint_is_found_placed_and_run(open_page, tmp_path):
    page = open_page(nodes_2=True)
    page.evaluate("() => app.graph.clear()")
    results = search(page, "quick start")
    page.screenshot(path=tmp_path / "search.png")
    assert any(BLUEPRINT in line for line in results)
    page.locator("[role=option]:visible").filter(has_text=BLUEPRINT).first.click()
    page.mouse.move(900, 400)
    page.mouse.click(900, 400)
    wait_for(page, "() => app.graph.nodes.length === 1 && app.graph.nodes[0].subgraph")
    page.evaluate(
        """seed => {
          const box = app.graph.nodes[0];
          const add = kind => { const node = LiteGraph.createNode(kind); app.graph.add(node); return node; };
          const demo = add("QSchedDemoModel"), picture = add("PreviewImage");
          for (const name of ["model", "clip", "vae"])
            demo.connect(demo.findOutputSlot(name), box, box.findInputSlot(name));
          box.connect(0, picture, 0);
          const set = { prompt: "a large apple on a sand background", width: 64, height: 64, seed };
          for (const [name, value] of Object.entries(set)) box.widgets.find(w => w.name === name).value = value;
        }""",
        arg=7,
    )
    common.run(page)
    wait_for(page, "() => Object.values(app.nodeOutputs ?? {}).some(shown => shown.images?.length === 1)")
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "blueprint.png")


def test_sixteen_natural_searches_find_our_nodes(open_page, tmp_path):
    page = open_page(nodes_2=False)
    titles = page.evaluate(
        "() => Object.fromEntries(Object.entries(LiteGraph.registered_node_types)"
        ".map(([id, type]) => [id, type.title]))"
    )
    missed = {}
    for words, node_id in SEARCHES.items():
        results = search(page, words)
        page.screenshot(path=tmp_path / f"{words}.png")
        if not any(titles[node_id] in line for line in results):
            missed[words] = results
    assert len(SEARCHES) == 16
    assert missed == {}
