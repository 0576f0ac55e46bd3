"""The blind vote on its node, in both renderers: keys, buttons, reloads, other tabs, and answers of strangers."""

from __future__ import annotations

import json

from pages import RENDERERS

from scripts.browser import wait_for

RED, BLUE = 0xFF0000, 0x0000FF
"""Pictures made with the preset are red."""

FIND = """() => {
  const walk = nodes => nodes.flatMap(n => [n, ...walk(n.subgraph?.nodes ?? [])]);
  return walk((app.rootGraph ?? app.graph).nodes).find(n => n.type === "QSchedArena");
}"""
PANEL = f"(({FIND})()?.widgets?.find(w => w.name === 'qsched_arena')?.element)"
TEXT = f"({PANEL}?.firstChild.textContent ?? '')"
VIEW = f"""() => {{
  const images = [...{PANEL}.querySelectorAll("img")];
  if (!images.every(image => image.complete && image.naturalWidth)) return null;
  return images.map(image => {{
    const context = Object.assign(document.createElement("canvas"), {{ width: 1, height: 1 }}).getContext("2d");
    context.drawImage(image, 0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data[0] > 128 ? "red" : "blue";
  }});
}}"""


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def load(page, pairs: int, ballot: int) -> None:
    """Solid pictures: blue without, red with the preset."""
    solid = {"width": 96, "height": 64, "batch_size": pairs}
    graph = {
        "1": node("EmptyImage", **solid, color=BLUE),
        "2": node("EmptyImage", **solid, color=RED),
        "3": node("QSchedArena", without=["1", 0], with_preset=["2", 0], ballot=ballot, keep_in_preset=False),
    }
    wait_for(page, "() => app.graph.nodes.length")  # the page's own first workflow would replace ours
    page.evaluate("graph => app.loadApiJson(graph, 'arena')", graph)
    page.evaluate("() => { app.graph.id = crypto.randomUUID(); }")  # as every workflow made on a page has one
    wait_for(page, f"() => {PANEL}")


def run(page) -> None:
    page.evaluate("() => app.queuePrompt(0, 1)")
    wait_for_text(page, "Pair 1 of")


def reload(page) -> None:
    page.reload()
    wait_for(page, "window.app?.extensionManager && app.canvas && app.graph?.nodes.length")


def wait_for_text(page, text: str) -> None:
    wait_for(page, f"text => {TEXT}.includes(text)", arg=text)


def seen(page) -> list[str]:
    """The colours of the two pictures, once they are there."""
    return wait_for(page, VIEW).json_value()


def press(page, key: str, then: str) -> None:
    seen(page)
    page.keyboard.press(key)
    wait_for_text(page, then)


def press_for(page, colour: str, then: str) -> None:
    press(page, ["ArrowLeft", "ArrowRight"][seen(page).index(colour)], then)


def focus(page) -> None:
    """As a person does: by a click on the line of text."""
    look_at(page)
    box = page.evaluate(f"() => {{ const r = {PANEL}.firstChild.getBoundingClientRect(); return [r.x, r.y]; }}")
    page.mouse.click(box[0] + 20, box[1] + 6)
    wait_for(page, f"() => document.activeElement === {PANEL}")


def look_at(page) -> None:
    page.evaluate(
        f"() => {{ const node = ({FIND})(); app.canvas.setGraph?.(node.graph); const [x, y] = node.pos;"
        " app.canvas.ds.scale = 1; app.canvas.ds.offset = [300 - x, 120 - y]; app.canvas.setDirty(true, true); }"
    )
    page.wait_for_timeout(1000)


def places(page) -> str:
    """Every node and where it is."""
    return page.evaluate("() => JSON.stringify(app.graph.nodes.map(n => [n.id, ...n.pos]))")


@RENDERERS
def test_keys_vote_undo_and_close_and_a_reload_goes_on(open_page, tmp_path, nodes_2):
    page = open_page(nodes_2=nodes_2)
    load(page, 7, ballot=100 + nodes_2)
    wait_for_text(page, "Run it")
    run(page)
    focus(page)
    before = places(page)
    press_for(page, "red", "Pair 2 of 7")
    press_for(page, "red", "Pair 3 of 7")
    press(page, "ArrowDown", "Pair 4 of 7")
    press(page, "Backspace", "Pair 3 of 7")
    press_for(page, "red", "Pair 4 of 7")
    page.keyboard.press("Enter")  # closes nothing: four pairs are left
    page.screenshot(path=tmp_path / "open.png")
    assert places(page) == before
    if not nodes_2:  # below in both: a page takes as long to load as all the rest
        reload(page)
        wait_for_text(page, "Pair 4 of 7")
        focus(page)
    for pair in (5, 6, 7):
        press_for(page, "red", f"Pair {pair} of 7")
    press(page, "s", "All 7 pairs are voted on")
    page.keyboard.press("Enter")
    wait_for_text(page, "Better with the preset · it won 6 of 6 · 100.0 % [54.1 %, 100.0 %] · 1 skipped")
    captions = f"() => [...{PANEL}.querySelectorAll('figcaption')].map(caption => caption.textContent)"
    assert sorted(page.evaluate(captions)) == ["with the preset \u2713 your choice", "without"]
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "closed.png")
    reload(page)
    wait_for_text(page, "Better with the preset")


@RENDERERS
def test_buttons_and_pictures_vote_and_closing_early_asks_first(open_page, tmp_path, nodes_2):
    page = open_page(nodes_2=nodes_2)
    load(page, 5, ballot=110 + nodes_2)
    run(page)
    look_at(page)
    seen(page)
    click = f"name => {PANEL}.querySelector(`[data-act=${{name}}]`).getBoundingClientRect().toJSON()"
    for name, then in (("left", "Pair 2"), ("skip", "Pair 3"), ("undo", "Pair 2"), ("right", "Pair 3")):
        seen(page)
        box = page.evaluate(click, name)
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 8)
        wait_for_text(page, then)
    seen(page)
    box = page.evaluate(f"() => {PANEL}.querySelector('img').getBoundingClientRect().toJSON()")
    page.mouse.click(box["x"] + 50, box["y"] + 50)
    wait_for_text(page, "Pair 4")
    page.keyboard.press("f")
    wait_for(page, f"() => document.fullscreenElement === {PANEL} && {PANEL}.clientHeight > 900")
    press(page, "ArrowRight", "Pair 5")
    page.screenshot(path=tmp_path / "full screen.png")
    page.keyboard.press("f")
    wait_for(page, "() => !document.fullscreenElement")
    press(page, "Backspace", "Pair 4")
    for then in ("Pair 4", "Too few votes to say"):
        box = page.evaluate(click, "close")
        page.mouse.click(box["x"] + 10, box["y"] + 8)
        wait_for_text(page, then)
        page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "few.png")


@RENDERERS
def test_in_a_subgraph_it_follows_another_tabs_votes_and_comes_back_with_its_own(open_page, server, tmp_path, nodes_2):
    page = open_page(nodes_2=nodes_2)
    load(page, 4, ballot=120 + nodes_2)
    page.evaluate(f"() => app.canvas.graph.convertToSubgraph(new Set([({FIND})()]))")
    run(page)
    focus(page)
    key = page.evaluate("() => Object.values(app.nodeOutputs).find(o => o.qsched_arena).qsched_arena[0]")
    vote = {"key": key, "pair": 0, "choice": "left"}
    server.client.post("/qsched/arena/vote", vote)
    wait_for_text(page, "Pair 2 of 4")
    press(page, "ArrowLeft", "Pair 3 of 4")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    wait_for(page, "() => !app.graph.nodes.length")
    page.get_by_text("arena", exact=True).first.click()
    wait_for(page, FIND)
    wait_for_text(page, "Pair 3 of 4")
    page.screenshot(path=tmp_path / "back.png")


ANSWERS = [
    (200, "<html>"),
    (200, "null"),
    (200, json.dumps({"pairs": 10**9, "votes": []})),
    (200, json.dumps({"pairs": 1, "votes": [{"x": 1}], "pictures": [["../../x", "http://x"]]})),
    (500, json.dumps({"error": "x" * 10_000})),
    (404, "[]"),
]


def answer(status: int, body: str):
    return lambda route: route.fulfill(status=status, body=body)


def test_whatever_the_server_answers_the_page_goes_on(open_page):
    page = open_page(nodes_2=False)
    load(page, 2, ballot=130)
    run(page)
    focus(page)
    current = [ANSWERS[0]]
    # One route for all, until after the last: a late request that slipped through would be a real vote.
    page.route("**/qsched/arena**", lambda route: answer(*current[0])(route))
    for current[0] in ANSWERS:
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(300)
        assert len(page.evaluate(f"() => {TEXT}")) <= 200
        page.evaluate(f"() => ({FIND})().onExecuted({{ qsched_arena: ['no key'] }})")
    page.route("**/qsched/arena**", lambda route: route.abort())
    page.evaluate("() => app.api.dispatchCustomEvent('reconnected')")
    wait_for_text(page, "does not answer")
    page.unroute("**/qsched/arena**")
    page.evaluate("() => app.api.dispatchCustomEvent('reconnected')")
    wait_for_text(page, "Pair 1 of 2")


def test_when_the_pictures_are_gone_it_says_so_and_another_run_goes_on(open_page, server, tmp_path):
    page = open_page(nodes_2=False)
    load(page, 3, ballot=140)
    run(page)
    focus(page)
    press(page, "ArrowDown", "Pair 2 of 3")
    for path in (server.base / "temp" / "qsched_arena").glob("*.png"):
        path.unlink()
    page.evaluate("() => app.api.dispatchCustomEvent('reconnected')")
    wait_for_text(page, "Run it again: the votes are kept (1).")
    page.screenshot(path=tmp_path / "gone.png")
    page.evaluate("() => app.queuePrompt(0, 1)")
    wait_for_text(page, "Pair 2 of 3")
    press(page, "ArrowDown", "Pair 3 of 3")
