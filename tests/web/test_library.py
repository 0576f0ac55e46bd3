"""Presets on the page, in both of the host's renderers: our tab, the host's model sidebar, files that are dropped."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from pages import RENDERERS

import qsched_core as qs
from scripts.browser import wait_for

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
GRAPH = {
    "1": {"class_type": "QSchedDemoModel", "inputs": {}},
    "2": {"class_type": "QSchedQuantizeModel", "inputs": {"model": ["1", 0], "format": "w4a8"}},
    "3": {
        "class_type": "QSchedSampler",
        "inputs": {"model": ["2", 0], "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"},
    },
}

WORKFLOW = {
    "id": "0f0f0f0f-0000-4000-8000-000000000000",
    "version": 0.4,
    "last_node_id": 7,
    "last_link_id": 0,
    "nodes": [
        {"id": 7, "type": "QSchedDemoModel", "pos": [100, 100], "size": [210, 66], "flags": {}, "order": 0, "mode": 0,
         "inputs": [], "outputs": [], "properties": {}, "widgets_values": []}
    ],
    "links": [],
    "groups": [],
    "config": {},
    "extra": {},
}  # fmt: skip

DROP = """([selector, name, content]) => {
  const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: name.endsWith(".png") ? "image/png" : "" }));
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
    document.querySelector(selector).dispatchEvent(event);
  }
}"""

LINKED = """() => {
  const nodes = app.graph.nodes;
  const sampler = nodes.find(n => n.type === "QSchedSampler");
  const link = sampler.inputs.find(i => i.name === "preset").link;
  const from = link == null ? null : nodes.find(n => n.outputs?.some(o => o.links?.includes(link)));
  return from && [from.type, from.widgets.find(w => w.name === "preset_name").value];
}"""


def preset(title: str = "Fits", card=None, **binding) -> qs.Preset:
    bound = {"model": "FluxSchnell", "quantization": "w4a8", "sampler": "euler", "scheduler": "simple", "cfg": 1.0}
    return qs.Preset(
        qs.Coefficients.ramp(4, c_x=(1.02, 0.98), c_eps=(0.96, 1.03)),
        (1.0, 0.75, 0.5, 0.25, 0.0),
        qs.Binding(**{**bound, **binding}),
        "accepted",
        {"gain": {"gain": 0.0213, "low": 0.0101, "high": 0.0322}},
        {
            "modelspec.title": title,
            "modelspec.author": "somebody",
            "modelspec.license": "CC0-1.0",
            "modelspec.description": "Red circles get their colour back.",
            **(card or {}),
        },
    )


@pytest.fixture
def folder(server):
    """The server's folder of presets, empty before and after."""
    place = server.folder("models") / "qsched_presets"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def thumbnail() -> str:
    """A picture in a data URI, red left and blue right."""
    import io

    from PIL import Image

    picture = Image.new("RGB", (256, 128), "red")
    picture.paste((0, 0, 255), (128, 0, 256, 128))
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def load(page) -> None:
    """Our graph, once the page has loaded its own first one."""
    wait_for(page, "() => app.graph.nodes.length > 5")
    page.wait_for_timeout(1000)
    page.evaluate("graph => app.loadApiJson(graph, 'one')", GRAPH)
    wait_for(page, "() => app.graph.nodes.length === 3")


def read_folder(page) -> None:
    """As key R of the host: files came that a page, which another test has used, does not know of."""
    page.evaluate("() => app.reloadNodeDefs()")


def open_tab(page) -> None:
    """Until the server has been asked: a page that another test has used shows what it knew."""
    with page.expect_response("**/api/qsched/presets"):
        page.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('qsched')")
    page.wait_for_timeout(300)
    page.wait_for_selector(".qsched-card")


def card(page, name: str):
    return page.locator(f'.qsched-card[data-name="{name}.safetensors"]')


def drop(page, selector: str, path) -> None:
    page.evaluate(DROP, [selector, path.name, base64.b64encode(path.read_bytes()).decode()])


def test_the_tab_lists_what_there_is_and_says_what_fits_and_why_not(open_page, folder, thumbnail, tmp_path):
    qs.save_preset(preset(card={"modelspec.thumbnail": thumbnail}), folder / "fits.safetensors")
    qs.save_preset(preset("Another model", model="SDXL", quantization="w8a8"), folder / "differs.safetensors")
    qs.save_preset(preset(EVIL, {"modelspec.description": EVIL + "x" * 100_000}), folder / "evil.safetensors")
    (folder / "broken.safetensors").write_bytes(b"<script>")
    page = open_page(nodes_2=False)
    load(page)
    open_tab(page)
    page.wait_for_selector('.qsched-card[data-fits="true"]')
    assert card(page, "fits").locator("img").evaluate("e => [e.naturalWidth, e.naturalHeight]") == [256, 128]
    text = card(page, "fits").inner_text()
    assert "JAQ +0.0213 [+0.0101, +0.0322] · accepted" in text
    assert "4 steps · euler / simple · cfg 1" in text
    why = card(page, "differs").locator(".qsched-match").inner_text()
    assert "model: preset SDXL, here FluxSchnell" in why
    assert "quantisation: preset w8a8, here w4a8" in why
    assert (
        "is no preset" in card(page, "broken").inner_text() or "not a safetensors" in card(page, "broken").inner_text()
    )
    assert card(page, "evil").locator("h3").inner_text() == EVIL
    assert page.locator(".qsched-cards script, .qsched-cards [onerror]").count() == 0
    assert "published values, not verified here" in page.locator(".qsched-cards").inner_text().lower()
    page.screenshot(path=tmp_path / "dark.png")
    page.get_by_label("Fits this graph").check()
    wait_for(page, "() => document.querySelectorAll('.qsched-card').length === 2")
    names_here = page.locator(".qsched-card").evaluate_all("cards => cards.map(c => c.dataset.name)")
    assert names_here == ["evil.safetensors", "fits.safetensors"]
    page.get_by_label("Search presets").fill("fits RED circles")
    wait_for(page, "() => document.querySelectorAll('.qsched-card').length === 1")
    page.get_by_label("Search presets").fill("")
    wait_for(page, "() => document.querySelectorAll('.qsched-card').length === 2")
    steps = (
        "() => { app.graph.nodes.find(n => n.type === 'QSchedSampler').widgets.find(w => w.name === 'steps').value = 8;"
    )
    page.evaluate(steps + " app.api.dispatchCustomEvent('graphChanged', app.graph.serialize()); }")
    wait_for(page, "() => !document.querySelector('.qsched-card')")
    page.get_by_label("Fits this graph").uncheck()
    card(page, "fits").wait_for()
    assert "steps: preset 4, here 8" in card(page, "fits").inner_text()
    page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    page.wait_for_timeout(1500)
    page.screenshot(path=tmp_path / "light.png")
    page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")
    assert page.evaluate("() => window.hacked") is None


def test_insert_rename_share_and_import(open_page, folder, tmp_path):
    qs.save_preset(preset(), folder / "mine.safetensors")
    qs.save_preset(preset("Theirs", {"workflow": json.dumps(WORKFLOW)}), tmp_path / "theirs.safetensors")
    page = open_page(nodes_2=True)
    load(page)
    open_tab(page)

    drop(page, ".qsched-cards", tmp_path / "theirs.safetensors")
    card(page, "theirs").wait_for()
    assert (folder / "theirs.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    assert page.evaluate("() => app.graph.nodes.length") == 3
    (tmp_path / "page.safetensors").write_bytes(b"<html>" * 10)
    drop(page, ".qsched-cards", tmp_path / "page.safetensors")
    page.wait_for_selector(".qsched-notice[role=alert]")
    assert "page.safetensors" in page.locator(".qsched-notice").inner_text()

    card(page, "theirs").get_by_role("button", name="Insert").click()
    assert page.evaluate(LINKED) == ["QSchedLoadPreset", "theirs.safetensors"]
    assert "plugged into" in page.locator(".qsched-notice").inner_text()
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "inserted.png")

    drop(page, ".qsched-cards", tmp_path / "theirs.safetensors")  # again: nothing is added
    wait_for(page, "() => document.querySelector('.qsched-notice').textContent.startsWith('It is there already')")
    assert sorted(path.name for path in folder.iterdir()) == ["mine.safetensors", "theirs.safetensors"]

    card(page, "mine").get_by_role("button", name="Rename").click()
    page.get_by_label("New name").fill("theirs")
    page.get_by_label("New name").press("Enter")
    page.wait_for_selector(".qsched-notice[role=alert]")
    assert "is there already" in page.locator(".qsched-notice").inner_text()
    page.get_by_label("New name").fill("renamed")
    page.get_by_role("button", name="OK").click()
    card(page, "renamed").wait_for()
    assert (folder / "renamed.safetensors").exists()
    assert not (folder / "mine.safetensors").exists()

    with page.expect_download() as download:
        card(page, "theirs").get_by_role("button", name="Share picture").click()
    assert download.value.suggested_filename == "theirs.qsched.png"
    picture = tmp_path / "theirs.qsched.png"
    download.value.save_as(picture)
    drop(page, "#graph-canvas", picture)
    wait_for(page, "() => app.graph.nodes.length === 1 && app.graph.nodes[0].type === 'QSchedDemoModel'")


def test_a_rename_is_followed_by_the_graph_and_a_deletion_can_be_undone(open_page, folder, tmp_path):
    """Regression: nodes went on naming the old file, and the next run failed."""
    for name in ("mine", "other"):
        qs.save_preset(preset(name), folder / f"{name}.safetensors")
    page = open_page(nodes_2=False)
    load(page)
    open_tab(page)
    card(page, "mine").get_by_role("button", name="Insert").click()
    card(page, "mine").get_by_role("button", name="Rename").click()
    page.get_by_label("New name").fill("renamed")
    page.get_by_role("button", name="OK").click()
    card(page, "renamed").wait_for()
    assert page.evaluate(LINKED) == ["QSchedLoadPreset", "renamed.safetensors"]
    assert "Loader nodes that follow: 1" in page.locator(".qsched-notice").inner_text()
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "renamed.png")

    card(page, "renamed").get_by_role("button", name="Delete").click()
    card(page, "renamed").wait_for(state="detached")
    assert not (folder / "renamed.safetensors").exists()
    notice = page.locator(".qsched-notice")
    assert "Loader nodes that still name it: 1" in notice.inner_text()
    page.screenshot(path=tmp_path / "deleted.png")
    notice.get_by_role("button", name="Undo").click()
    card(page, "renamed").wait_for()
    assert (folder / "renamed.safetensors").exists()
    assert page.evaluate(LINKED) == ["QSchedLoadPreset", "renamed.safetensors"]
    assert page.locator('.qsched-card:has-text("came with Q-Sched") [data-action=delete]').count() == 0


@pytest.mark.front_ends
@RENDERERS
def test_a_preset_without_a_workflow_becomes_a_loader_where_it_is_dropped(open_page, server, folder, tmp_path, nodes_2):
    """Regression: the host said "unable to find workflow" and threw the file away."""
    qs.save_preset(preset(), tmp_path / "plain.safetensors")
    page = open_page(nodes_2=nodes_2)
    load(page)
    drop(page, "#graph-canvas", tmp_path / "plain.safetensors")
    wait_for(page, "() => app.graph.nodes.length === 4")
    assert page.evaluate(LINKED) == ["QSchedLoadPreset", "plain.safetensors"]
    assert (folder / "plain.safetensors").exists()
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "dropped.png")

    picture = tmp_path / "plain.qsched (2).png"
    picture.write_bytes(server.client.read("/qsched/presets/picture?name=plain.safetensors"))
    (folder / "plain.safetensors").unlink()
    drop(page, "#graph-canvas", picture)
    wait_for(page, "() => app.graph.nodes.length === 5")
    assert (folder / "plain.safetensors").read_bytes() == (tmp_path / "plain.safetensors").read_bytes()

    (tmp_path / "no preset.safetensors").write_bytes(b"\x10" + b"\0" * 60)  # is the host's business
    drop(page, "#graph-canvas", tmp_path / "no preset.safetensors")
    page.get_by_text("Unable to find workflow").first.wait_for()
    assert page.evaluate("() => app.graph.nodes.length") == 5


def test_every_preset_is_reached_by_scrolling_and_what_fits_comes_first_everywhere(open_page, folder, tmp_path):
    """Regression: the tab ended at 500 presets without a word, and the loader's list was the alphabet's."""
    qs.save_preset(preset("Another model", model="SDXL"), folder / "a 000.safetensors")
    content = (folder / "a 000.safetensors").read_bytes()
    for number in range(1, 620):
        (folder / f"a {number:03}.safetensors").write_bytes(content)
    qs.save_preset(preset("The fitting one"), folder / "z.safetensors")
    page = open_page(nodes_2=False)
    read_folder(page)
    load(page)
    open_tab(page)
    page.wait_for_selector('.qsched-card[data-fits="true"]')
    names = "() => [...document.querySelectorAll('.qsched-card')].map(card => card.dataset.name)"
    assert page.evaluate(names)[0] == "z.safetensors"
    page.wait_for_timeout(2000)  # Regression: one page after the other came, though nobody scrolled
    assert len(page.evaluate(names)) == 60, "a page at a time"
    page.screenshot(path=tmp_path / "many.png")
    page.evaluate(
        """() => new Promise(resolve => {
          const timer = setInterval(() => {
            document.querySelector(".qsched-library").lastElementChild.scrollIntoView();
            if (document.querySelectorAll(".qsched-card").length === 624) resolve(clearInterval(timer));
          }, 50);
        })"""
    )
    names_here = page.evaluate(names)
    assert len(set(names_here)) == len(names_here) == 624
    card(page, "a 600").get_by_role("button", name="Insert").click()
    first = "() => app.graph.nodes.find(n => n.type === 'QSchedLoadPreset').widgets[0].options.values[0]"
    page.evaluate("() => app.api.dispatchCustomEvent('graphChanged', app.graph.serialize())")
    wait_for(page, f"({first})() === 'z.safetensors'")


def test_the_loader_of_nodes_2_shows_what_fits_first(open_page, folder, tmp_path):
    qs.save_preset(preset("Another model", model="SDXL"), folder / "a.safetensors")
    qs.save_preset(preset("The fitting one"), folder / "z.safetensors")
    # Of a graph without an id the host keeps what another test's node with this number listed.
    page = open_page(nodes_2=True, fresh=True)
    load(page)
    open_tab(page)
    card(page, "a").get_by_role("button", name="Insert").click()
    first = "() => app.graph.nodes.find(n => n.type === 'QSchedLoadPreset').widgets[0].options.values[0]"
    wait_for(page, f"({first})() === 'z.safetensors'")
    loader = page.evaluate("() => app.graph.nodes.find(n => n.type === 'QSchedLoadPreset').id")
    page.locator(f'[data-node-id="{loader}"] [role=combobox]').first.click()
    page.locator("[role=option]:visible").first.wait_for()
    page.screenshot(path=tmp_path / "list.png")
    assert "z.safetensors" in page.locator("[role=option]:visible").first.inner_text()


CUT = """() => {
  const root = document.querySelector(".qsched-library"), frame = root.getBoundingClientRect();
  let scroller = root; // the host's container, or ours in it
  const scrolls = one => one.scrollHeight > one.clientHeight && getComputedStyle(one).overflowY === "auto";
  while (scroller && !scrolls(scroller)) scroller = scroller.parentElement;
  const inWindow = frame.left >= 0 && frame.right <= innerWidth + 1;
  const wide = [root, ...root.querySelectorAll("*")].filter(element => {
    const { left, right, width } = element.getBoundingClientRect();
    return width && (left < frame.left - 1 || right > frame.right + 1 || element.scrollWidth > element.clientWidth + 1)
      && getComputedStyle(element).display !== "inline" && element.tagName !== "INPUT";
  });
  return { inWindow, scrolls: scroller?.getBoundingClientRect().bottom <= innerHeight + 1,
    buttons: root.querySelectorAll("button").length,
    cut: wide.map(element => `${element.tagName} ${element.className}`) };
}"""


@pytest.mark.parametrize("size", [(1280, 720), (800, 600)], ids=str)
def test_in_a_narrow_window_nothing_of_the_tab_is_cut(open_page, folder, tmp_path, size):
    """In French, whose words are the longest, with a file name that has no blank to break at."""
    for name in ("a" * 60, "Wwwwwwwwwwwwwwwwwwwwwwwwwwwwwww", "short"):
        qs.save_preset(preset(title="W" * 100, quantization="w4a4"), folder / f"{name}.safetensors")
    page = open_page(nodes_2=False, Comfy_Locale="fr")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    load(page)
    open_tab(page)
    card(page, "short").get_by_text("Renommer").click()
    page.locator(".qsched-rename input").wait_for()
    boxes = page.evaluate(CUT)
    page.screenshot(path=tmp_path / "narrow.png")
    assert (boxes["cut"], boxes["inWindow"], boxes["scrolls"]) == ([], True, True)
    assert boxes["buttons"] > 10


def test_the_hosts_sidebar_shows_the_card_and_the_canvas_opens_the_recipe(open_page, folder, thumbnail, tmp_path):
    shared = preset("Shared by a friend", {"modelspec.thumbnail": thumbnail, "workflow": json.dumps(WORKFLOW)})
    qs.save_preset(shared, folder / "friend.safetensors")
    page = open_page(nodes_2=True)
    wait_for(page, "() => app.graph.nodes.length > 5")
    page.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('model-library')")
    page.get_by_text("qsched_presets", exact=True).click()
    entry = page.get_by_text("Shared by a friend").or_(page.get_by_text("friend", exact=True)).first
    entry.hover()
    page.wait_for_selector(f'img[src^="data:image/jpeg"], [style*="{thumbnail[:60]}"]', state="attached")
    page.get_by_text("Red circles get their colour back.").first.wait_for()
    page.screenshot(path=tmp_path / "models.png")
    drop(page, "#graph-canvas", folder / "friend.safetensors")
    wait_for(page, "() => app.graph.nodes.length === 1 && app.graph.nodes[0].type === 'QSchedDemoModel'")
