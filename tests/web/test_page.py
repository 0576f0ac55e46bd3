"""Our part of the page, in both of the host's renderers: sockets, the map of a calibration, a preset's curve."""

from __future__ import annotations

import json

import pytest
import torch
from pages import RENDERERS, TAB
from safetensors.torch import save_file

from scripts.browser import wait_for

TRIALS = 5
PROMPTS = 6
CALIBRATE = 4

LOAD = """async seed => {
  const name = Object.keys(await (await app.api.fetchApi("/workflow_templates")).json()).find(n => /q-sched/i.test(n));
  const path = `/workflow_templates/${name}/${encodeURIComponent("01 Try it now")}.json`;
  await app.loadGraphData(await (await app.api.fetchApi(path)).json());
  const node = app.graph.nodes.find(n => n.type === "QSchedCalibrate");
  const settings = LiteGraph.createNode("QSchedCalibrationSettings");
  const group = new LiteGraph.LGraphGroup("Settings");
  [settings.pos, group.pos, group.size] = [[-600, -700], [-620, -760], [320, 700]]; // beside the template
  app.graph.add(settings);
  app.graph.add(group);
  const latent = app.graph.nodes.find(n => n.type === "EmptySD3LatentImage");
  const prompts = node.widgets.find(w => w.name === "prompts").value.split("\\n").slice(0, %d).join("\\n");
  const set = [[node, { trials: %d, prompts }], [settings, { verdict_seeds: 1, search_seed: seed }],
    [latent, { width: 64, height: 64 }]];
  for (const [one, values] of set)
    for (const [key, value] of Object.entries(values)) one.widgets.find(w => w.name === key).value = value;
  const place = name => node.inputs.findIndex(input => input.name === name);
  settings.connect(0, node, place("settings"));
  node.disconnectInput(place("other_model"));
}"""
"""Without the fitted model beside it, which each server would observe and fit anew: test_templates.py runs all."""

PUT_PAUSE = """id => {
  const node = app.graph.getNodeById(id), input = node.inputs.findIndex(({ name }) => name === "model");
  const link = app.graph.getLink(node.inputs[input].link), source = app.graph.getNodeById(link.origin_id);
  const pause = LiteGraph.createNode("TestPause"), group = new LiteGraph.LGraphGroup("Pause");
  [pause.pos, group.pos, group.size] = [[-600, -900], [-620, -960], [320, 160]]; // above the settings
  app.graph.add(pause);
  app.graph.add(group);
  source.connect(link.origin_slot, pause, 0);
  pause.connect(0, node, input);
}"""

QUEUE = """async () => {
  const queue = await (await app.api.fetchApi("/queue")).json();
  return [queue.queue_running.length, queue.queue_pending.length];
}"""

FIND = """id => {
  const walk = nodes => nodes.flatMap(n => [n, ...walk(n.subgraph?.nodes ?? [])]);
  return walk((app.rootGraph ?? app.graph).nodes).find(n => n.type === id || String(n.id) === String(id));
}"""

COLOUR = """() => [
  app.canvas.default_connection_color_byType.QSCHED_PRESET,
  app.canvas.constructor.link_type_colors.QSCHED_PRESET,
  getComputedStyle(document.documentElement).getPropertyValue("--color-datatype-QSCHED_PRESET").trim(),
]"""

REPORT = f"""id => ({FIND})(id)?.widgets?.find(w => w.name === "qsched_report")?.element"""

NODE_TEXT = f"""id => {{
  const element = ({REPORT})(id);
  if (!element?.clientHeight) return null;
  const [head, rest] = [element.querySelector(".qsched-headline"), element.querySelector(".qsched-rest")];
  const body = rest.parentElement;
  return {{ headline: head.textContent, rest: rest.textContent, state: element.dataset.state,
    cut: head.scrollHeight > head.clientHeight + 1 || head.scrollWidth > head.clientWidth + 1,
    scrolls: body.scrollHeight > body.clientHeight && getComputedStyle(body).overflowY === "auto",
    strangers: element.querySelectorAll("img, script").length }};
}}"""

SLIDER = f"""id => {{
  const element = ({FIND})(id)?.widgets?.find(w => w.name === "qsched_compare")?.element;
  if (!element?.clientHeight) return null;
  const images = [...element.querySelectorAll("img")], stage = element.querySelector(".qsched-stage");
  return {{ pictures: images.filter(image => image.complete && image.naturalWidth > 0).length,
    sources: images.map(image => image.src), at: stage.getAttribute("aria-valuenow"), clip: images[1].style.clipPath,
    labels: [...element.querySelectorAll(".qsched-label")].map(label => label.textContent), height: stage.clientHeight,
    title: element.querySelector(".qsched-head").textContent }};
}}"""

DATA = (
    f"""([id, name]) => ({FIND})(id)?.widgets?.find(w => w.name === name)?.element?.querySelector("canvas")?.dataset"""
)
"""What a canvas says of itself. To wait for it costs nothing, to read its pixels a twentieth of a second."""

CANVAS = f"""([id, name]) => {{
  const element = ({FIND})(id)?.widgets?.find(w => w.name === name)?.element;
  const canvas = element?.querySelector("canvas");
  if (!canvas) return null;
  const seen = canvas.isConnected && canvas.clientHeight > 0 && canvas.width > 1;
  const pixels = seen ? canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data : [];
  const colours = new Set();
  for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) colours.add(pixels.slice(i, i + 3).join());
  return {{ ...canvas.dataset, colours: colours.size, height: canvas.clientHeight, text: element.textContent }};
}}"""


FRAMES = """() => {
  const inside = (one, frame) => one[0] >= frame[0] && one[1] >= frame[1] && one[2] <= frame[2] && one[3] <= frame[3];
  const meet = (one, other) => one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
  const frames = app.graph.groups.map(({ pos: [x, y], size: [wide, high] }) => [x, y, x + wide, y + high]);
  const nodes = app.graph.nodes.map(node => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`), least = node.computeSize();
    const [x, y] = node.pos, [wide, tall] = node.size, below = Math.max(tall, (element?.offsetHeight ?? 0) - 30);
    const right = x + Math.max(wide, element?.offsetWidth ?? 0);
    return { type: node.type, box: [x, y - 30, right, y + below].map(Math.round),
      mounted: !LiteGraph.vueNodesMode || element?.offsetHeight > 0,
      known: node.type in LiteGraph.registered_node_types || Boolean(node.isVirtualNode),
      cut: !element && (wide < least[0] - 1 || tall < least[1] - 1) };
  });
  const words = ({ type, box }) => `${type} ${box}`;
  return {
    mounted: nodes.every(node => node.mounted),
    boxes: nodes.map(words),
    unknown: nodes.filter(node => !node.known).map(words),
    cut: nodes.filter(node => node.cut).map(words),
    // A node lies in one group and meets no other; the note lies in none.
    spilling: nodes.filter(({ type, box }) => {
      const met = frames.filter(frame => meet(box, frame));
      return type === "MarkdownNote" ? met.length : met.length !== 1 || !inside(box, met[0]);
    }).map(words),
    touching: nodes.flatMap((one, i) => nodes.slice(0, i).filter(other => meet(one.box, other.box))
      .map(other => `${words(one)}, ${words(other)}`)),
  };
}"""

STILL = f"""() => {{
  const now = ({FRAMES})(), same = JSON.stringify(now.boxes) === window.qschedBoxes;
  window.qschedBoxes = JSON.stringify(now.boxes);
  return now.mounted && same;
}}"""


def check_frames(page, what: str) -> None:
    """Every node of a template lies whole in its group and on no other node, once the page has come to rest."""
    page.wait_for_function(STILL, polling=500)
    frames = page.evaluate(FRAMES)
    assert len(frames["boxes"]) > 5, what
    assert {key: frames[key] for key in ("unknown", "cut", "spilling", "touching") if frames[key]} == {}, what


def load(page, seed: int) -> None:
    """The template, with few prompts and trials. Another seed is another study, of which the host has nothing yet."""
    page.evaluate(LOAD % (PROMPTS, TRIALS), seed)


def drawn(page, node, widget: str = "qsched_map") -> dict:
    """What is on a node's canvas: its data, and how many colours."""
    return page.evaluate(CANVAS, [node, widget]) or {}


def wait_for_points(page, count: int, node=CALIBRATE) -> dict:
    wait_for(
        page, f"([id, name, count]) => Number(({DATA})([id, name])?.points) >= count", arg=[node, "qsched_map", count]
    )
    page.wait_for_timeout(500)  # the canvas has its size a frame later
    return drawn(page, node)


def values(page, node) -> list:
    """What a saved workflow holds of a node's widgets, in their order."""
    return page.evaluate(
        "id => app.graph.serialize().nodes.find(n => String(n.id) === String(id)).widgets_values", node
    )


def run(page) -> None:
    page.evaluate("() => app.queuePrompt(0, 1)")


def wait_until_done(page) -> None:
    while any(page.evaluate(QUEUE)):
        page.wait_for_timeout(500)
    page.wait_for_timeout(1000)


def save_preset(path) -> None:
    """A preset of three steps, as anybody's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"c_x": [0.96, 0.98, 1.0], "c_eps": [1.05, 1.02, 1.0], "sigmas": [1.0, 0.7, 0.3, 0.0]}
    metadata = {"format": "qsched-preset", "version": "1", "verdict": "made by hand", "binding": "{}", "record": "{}"}
    save_file({name: torch.tensor(numbers) for name, numbers in values.items()}, path, metadata)


def reload(page) -> None:
    page.reload()
    wait_for(page, "window.app?.extensionManager && app.canvas && app.graph?.nodes.length > 5")


def look_at(page, node) -> None:
    """For the screenshots: a node and what is right of it, at full size."""
    page.evaluate(
        f"id => {{ const [x, y] = ({FIND})(id).pos;"
        " app.canvas.ds.scale = 1; app.canvas.ds.offset = [80 - x, 80 - y]; app.canvas.setDirty(true, true); }",
        node,
    )
    page.wait_for_timeout(1000)


def said(page, node=CALIBRATE) -> dict:
    """What is said on a node: its headline, the rest, and how it is shown."""
    wait_for(page, f"id => ({NODE_TEXT})(id)", arg=node)
    page.wait_for_timeout(500)
    return page.evaluate(NODE_TEXT, node)


def slider(page, node=CALIBRATE) -> dict:
    """The pictures before and after on a node."""
    wait_for(page, f"id => ({SLIDER})(id)?.pictures === 2", arg=node)
    return page.evaluate(SLIDER, node)


def check_verdict(page) -> tuple[str, str]:
    """Of a calibration that has ended: its verdict, and what the slider compares."""
    report, pictures = said(page), slider(page)
    assert report["headline"].startswith(("Accepted", "Identity recommended"))
    assert (report["cut"], report["scrolls"]) == (False, True)
    assert "JAQ = TC + 2 IQ." in report["rest"]
    assert pictures["labels"] == ["quantised", "quantised + Q-Sched"]
    assert len(set(pictures["sources"])) == 2
    assert pictures["height"] > 150
    return report["headline"] + report["rest"], pictures["title"]


@pytest.fixture
def pause(server):
    """The file that PUT_PAUSE's node waits for the end of. Left behind, it would hold all later runs."""
    path = server.base / "temp" / "pause"
    path.parent.mkdir(exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.front_ends
@RENDERERS
def test_the_map_is_drawn_while_it_runs_and_again_after_a_reload(open_page, tmp_path, pause, nodes_2):
    """With it the verdict and the pictures, which the host's own places lost at the end or with a reload."""
    page = open_page(nodes_2=nodes_2)
    load(page, seed=1 + nodes_2)
    page.evaluate(PUT_PAUSE, CALIBRATE)  # it has to go on while it is looked at and the page is loaded
    saved = values(page, CALIBRATE)
    assert "Run it" in drawn(page, CALIBRATE)["text"]
    check_frames(page, "before the run")
    run(page)
    assert wait_for_points(page, 2)["colours"] > 20
    pause.touch()
    assert slider(page)["labels"] == ["stock sampler", "this candidate"]
    assert page.evaluate(NODE_TEXT, CALIBRATE) is None
    check_frames(page, "during the run")
    assert "qsched_report" not in json.dumps(page.evaluate("() => app.nodeOutputs"))
    if not nodes_2:  # what comes back is drawn by the renderer, and looked at in both below
        reload(page)
        assert wait_for_points(page, 2)["colours"] > 20
    pause.unlink()
    wait_until_done(page)
    done = drawn(page, CALIBRATE)
    assert int(done["points"]) == TRIALS + 1
    assert f"{TRIALS} candidates" in done["text"]
    assert values(page, CALIBRATE) == saved
    verdict = check_verdict(page)
    check_frames(page, "after the run")
    look_at(page, CALIBRATE)
    page.screenshot(path=tmp_path / "done.png")
    reload(page)
    again = wait_for_points(page, TRIALS + 1)
    assert again["colours"] > 20
    assert again["text"] == done["text"]
    assert check_verdict(page) == verdict
    run(page)  # all of it is in the host's cache
    page.wait_for_timeout(1000)
    wait_until_done(page)
    assert check_verdict(page) == verdict
    look_at(page, CALIBRATE)


def test_a_page_that_missed_the_end_of_a_run_does_not_show_it_as_running(open_page, pause):
    """A reloaded page said "now the verdict" for ever: the server had answered before the end, and was read after it.
    A second tab gets no events of the first one's runs at all."""
    page = open_page(nodes_2=False)
    load(page, seed=8)
    page.evaluate(PUT_PAUSE, CALIBRATE)  # it has to go on while two pages are loaded
    run(page)
    wait_for_points(page, 1)
    pause.touch()
    late = []
    page.route("**/qsched/history*", lambda route: late.append((route, route.fetch())))
    reload(page)
    other = open_page(nodes_2=False)
    other.evaluate("graph => app.loadGraphData(graph)", page.evaluate("() => app.graph.serialize()"))
    assert wait_for_points(other, 1)["running"] == "yes"
    page.wait_for_timeout(1000)
    assert any('"prompt": null' not in answer.text() for _, answer in late)
    pause.unlink()
    wait_until_done(page)
    for route, answer in list(late):
        route.fulfill(response=answer)
    page.wait_for_timeout(2000)
    for tab in (page, other):
        picture = drawn(tab, CALIBRATE)
        assert (picture["running"], int(picture["points"])) == ("no", TRIALS + 1)
        assert "now the verdict" not in picture["text"]
    page.unroute_all()


def test_a_cancel_keeps_the_map_and_the_best_so_far(open_page, server):
    page = open_page(nodes_2=False)
    load(page, seed=5)
    run(page)  # its verdict is not that of the next one, which is cancelled
    wait_for_points(page, 3)
    wait_until_done(page)
    check_verdict(page)
    page.evaluate("""() => { for (const node of app.graph.nodes) if (node.type === "QSchedCalibrate")
      node.widgets.find(w => w.name === "trials").value = 400; }""")
    run(page)
    wait_for_points(page, TRIALS + 3)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Interrupt')")
    wait_until_done(page)
    points = int(drawn(page, CALIBRATE)["points"])
    assert 3 <= points < 400
    words = f"Stopped at {points - 1} of 400: run again to go on."
    assert said(page)["headline"] == words
    assert list((server.base / "models" / "qsched_presets").glob("cancelled calibration*.safetensors"))
    reload(page)
    assert int(wait_for_points(page, 3)["points"]) == points
    assert said(page)["headline"] == words
    run(page)
    wait_for(page, f"([id, least]) => Number(({DATA})([id, 'qsched_map']).points) > least", arg=[4, points])
    page.wait_for_timeout(500)
    assert page.evaluate(NODE_TEXT, CALIBRATE) is None
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Interrupt')")
    wait_until_done(page)
    assert int(said(page)["headline"].split()[2]) >= points


@RENDERERS
def test_the_map_of_a_node_in_a_subgraph_comes_back_with_its_tab(open_page, tmp_path, nodes_2):
    page = open_page(nodes_2=nodes_2)
    load(page, seed=3 + nodes_2)
    tab = page.evaluate(TAB)
    page.evaluate(f"id => app.canvas.graph.convertToSubgraph(new Set([({FIND})(id)]))", CALIBRATE)
    run(page)
    page.evaluate(f"() => app.canvas.setGraph(({FIND})('QSchedCalibrate').graph)")
    assert wait_for_points(page, 2, "QSchedCalibrate")["colours"] > 20
    page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    wait_for(page, "() => !app.graph.nodes.length")
    wait_until_done(page)
    page.get_by_text(tab, exact=True).click()
    wait_for(page, f"() => ({FIND})('QSchedCalibrate')")
    page.evaluate(f"() => app.canvas.setGraph(({FIND})('QSchedCalibrate').graph)")
    again = wait_for_points(page, TRIALS + 1, "QSchedCalibrate")
    page.screenshot(path=tmp_path / "back.png")
    assert again["colours"] > 20


@RENDERERS
def test_what_a_node_said_is_there_again_when_its_tab_comes_back(open_page, server, nodes_2):
    save_preset(server.base / "models" / "qsched_presets" / "said.safetensors")
    page = open_page(nodes_2=nodes_2)
    inputs = "{ preset_name: 'said.safetensors' }"
    node = "{ class_type: 'PreviewAny', inputs: { source: ['1', 1] } }"
    page.evaluate(
        f"() => app.loadApiJson({{ 1: {{ class_type: 'QSchedLoadPreset', inputs: {inputs} }}, 2: {node} }}, 'said')"
    )
    run(page)
    page.wait_for_timeout(1000)
    wait_until_done(page)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    wait_for(page, "() => !app.graph.nodes.length")
    page.get_by_text("said", exact=True).first.click()
    wait_for(page, f"() => ({REPORT})('QSchedLoadPreset')?.textContent.includes('3 steps, made by hand')")
    page.wait_for_timeout(500)
    assert page.evaluate(f"() => ({REPORT})('QSchedLoadPreset').clientHeight") > 60


VISIBLE = """() => { const node = app.graph.nodes[0];
  return node.widgets.filter(w => node.isWidgetVisible(w)).map(w => w.name); }"""


def test_advanced_widgets_take_no_place_on_the_classic_canvas_until_they_are_asked_for(open_page):
    page = open_page(nodes_2=False)
    page.evaluate("() => app.loadApiJson({ 1: { class_type: 'QSchedCalibrate', inputs: {} } }, 'one')")
    wait_for(page, "() => app.graph.nodes[0]?.widgets?.length > 9")
    assert page.evaluate(VISIBLE) == ["prompts", "steps", "sampler_name", "scheduler", "metric", "accept", "qsched_map"]
    folded = page.evaluate("() => app.graph.nodes[0].size[1]")
    page.evaluate("() => app.graph.nodes[0].toggleAdvanced()")
    page.wait_for_timeout(500)
    assert len(page.evaluate(VISIBLE)) == 11
    assert page.evaluate("() => app.graph.nodes[0].size[1]") > folded + 4 * 20  # a widget is 20 pixels tall, at least


@RENDERERS
def test_a_chosen_preset_is_drawn_and_the_colours_follow_the_palette(open_page, server, tmp_path, nodes_2):
    save_preset(server.base / "models" / "qsched_presets" / "three.safetensors")
    page = open_page(nodes_2=nodes_2)
    page.evaluate("() => app.reloadNodeDefs()")  # a page that another test has used does not know the new file
    graph = "{ 1: { class_type: 'QSchedLoadPreset', inputs: { preset_name: 'three.safetensors' } } }"
    page.evaluate(f"() => app.loadApiJson({graph}, 'one')")
    wait_for(page, f"() => ({DATA})(['QSchedLoadPreset', 'qsched_curve'])?.steps === '3'")
    page.wait_for_timeout(500)
    dark = drawn(page, "QSchedLoadPreset", "qsched_curve")
    assert dark["colours"] > 10
    page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    page.wait_for_timeout(2000)
    page.screenshot(path=tmp_path / "light.png")
    assert page.evaluate(COLOUR) == ["#00bfa5"] * 3
    page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")
