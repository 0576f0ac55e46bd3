"""Errors on the nodes they came from, in both of the host's renderers."""

from __future__ import annotations

import re

from pages import RENDERERS, TAB, load_graph

from scripts.browser import READY, wait_for
from scripts.sentences import catalogue

FIND = """type => {
  const walk = nodes => nodes.flatMap(n => [n, ...walk(n.subgraph?.nodes ?? [])]);
  return walk((app.rootGraph ?? app.graph).nodes).find(n => n.type === type);
}"""

ERROR_TEXT = f"""type => {{
  const element = ({FIND})(type)?.widgets?.find(w => w.name === "qsched_error")?.element;
  if (!element) return "";
  const cut = element.isConnected && element.scrollHeight > element.clientHeight + 1;
  return (cut ? "CUT " : "") + element.textContent;
}}"""

REPORTED = f"""type => {{
  const element = ({FIND})(type)?.widgets?.find(w => w.name === "qsched_report")?.element;
  const parts = [...(element?.querySelectorAll(".qsched-headline, .qsched-rest") ?? [])];
  return parts.map(part => part.textContent).join("\\n");
}}"""

QUEUE = """async () => {
  const queue = await (await app.api.fetchApi("/queue")).json();
  return queue.queue_running.length + queue.queue_pending.length;
}"""

GRAPH = {
    "1": {"class_type": "QSchedDemoModel", "inputs": {}},
    "2": {
        "class_type": "QSchedQuantizeModel",
        "inputs": {"model": ["1", 0], "format": "w4a8", "group_size": "format's own", "include": "(", "exclude": ""},
    },
    "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}},
}
NODE = "QSchedQuantizeModel"


def run(page) -> None:
    """The host's own box over the page is closed: it is not what is looked at."""
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_timeout(500)
    while page.evaluate(QUEUE):
        page.wait_for_timeout(300)
    page.keyboard.press("Escape")


def wait_for_error(page, node: str, text: str) -> str:
    """The text on a node, once it holds that text; an empty one: once there is none."""
    holds = f"([type, text]) => {{ const s = ({ERROR_TEXT})(type); return text ? s.includes(text) : s === ''; }}"
    wait_for(page, holds, arg=[node, text])
    page.wait_for_timeout(500)
    return page.evaluate(ERROR_TEXT, node)


def put(page, node: str, widget: str, value: str) -> None:
    page.evaluate(
        f"([type, name, value]) => {{ ({FIND})(type).widgets.find(w => w.name === name).value = value; }}",
        [node, widget, value],
    )


@RENDERERS
def test_a_failure_is_on_its_node_comes_back_with_its_tab_and_goes_with_the_next_run(open_page, tmp_path, nodes_2):
    page = open_page(nodes_2=nodes_2)
    load_graph(page, GRAPH)
    run(page)
    text = wait_for_error(page, NODE, "Fix: ")
    assert text.startswith("Q-Sched: ")
    assert page.evaluate(ERROR_TEXT, "QSchedDemoModel") == ""
    page.screenshot(path=tmp_path / "failed.png")
    tab = page.evaluate(TAB)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    wait_for(page, "() => !app.graph.nodes.length")
    page.get_by_text(tab, exact=True).click()
    wait_for(page, "() => app.graph.nodes.length === 3")
    assert wait_for_error(page, NODE, "Fix: ") == text
    workflow = "() => (app.rootGraph ?? app.graph).id"
    before = page.evaluate(workflow)
    if not nodes_2:  # what is shown again is the same in both, and to load a page is dear
        page.reload()
        wait_for(page, READY)
        wait_for(page, "() => app.graph.nodes.length === 3")
        page.wait_for_timeout(1000)
        # Front end 1.47 gives a workflow that nobody has touched another id at a reload: nothing can be found by it.
        if page.evaluate(workflow) == before:
            assert wait_for_error(page, NODE, "Fix: ") == text
    put(page, NODE, "include", "")
    run(page)
    assert wait_for_error(page, NODE, "") == ""


def test_an_error_of_python_is_named_without_the_module_it_is_from_and_long_ones_are_whole(open_page):
    """The host names a pack's errors by their file: "/home/me/ComfyUI/custom_nodes/q-sched.nodes.presets.Broken"."""
    page = open_page(nodes_2=False)
    load_graph(page, GRAPH)
    page.evaluate(
        "detail => app.api.dispatchCustomEvent('execution_error', detail)",
        {
            "prompt_id": "none", "node_id": "2", "node_type": NODE, "exception_message": "line\n" * 60 + "the end",
            "exception_type": "/home/me/ComfyUI/custom_nodes/q-sched.nodes.presets.Broken",
        },
    )  # fmt: skip
    text = wait_for_error(page, NODE, "the end")
    assert text.startswith("Broken: line")
    assert "/home/me" not in text


@RENDERERS
def test_a_failure_inside_a_subgraph_is_on_the_inner_node(open_page, tmp_path, nodes_2):
    page = open_page(nodes_2=nodes_2)
    load_graph(page, GRAPH)
    page.evaluate(f"type => app.canvas.graph.convertToSubgraph(new Set([({FIND})(type)]))", NODE)
    run(page)
    page.evaluate(f"type => app.canvas.setGraph(({FIND})(type).graph)", NODE)
    wait_for_error(page, NODE, "Q-Sched: ")
    page.screenshot(path=tmp_path / "inside.png")


def test_a_refused_or_failed_run_takes_the_place_of_the_report_until_one_is_whole(open_page, tmp_path):
    """Regression: "27 of 27 Linear layers quantised." of an earlier run stood above the error of the last one."""
    page = open_page(nodes_2=True)
    fine = {**GRAPH, "2": {"class_type": NODE, "inputs": {**GRAPH["2"]["inputs"], "include": ""}}}
    load_graph(page, fine)
    whole = f"type => ({REPORTED})(type).includes('quantised')"
    run(page)
    wait_for(page, whole, arg=NODE)
    for widget, wrong, word, right in (("format", "w9a9", "format", "w8a8"), ("include", "(", "Fix: ", "")):
        put(page, NODE, widget, wrong)
        run(page)
        wait_for_error(page, NODE, word)
        assert page.evaluate(REPORTED, NODE).strip() == ""
        page.screenshot(path=tmp_path / f"{widget}.png")
        put(page, NODE, widget, right)
        run(page)
        assert wait_for_error(page, NODE, "") == ""
        wait_for(page, whole, arg=NODE)


def test_a_page_that_gets_no_events_takes_a_failure_away_when_a_run_got_past_it(open_page):
    """The host forgets the socket of a page that was reloaded if it notices late that the old one is gone."""
    page = open_page(nodes_2=False)
    load_graph(page, GRAPH)
    run(page)
    wait_for_error(page, NODE, "Fix: ")
    page.evaluate("""() => {
      const send = EventTarget.prototype.dispatchEvent;
      app.api.dispatchEvent = event => event.type === "promptQueued" ? send.call(app.api, event) : true;
    }""")
    put(page, NODE, "include", "")
    run(page)
    assert wait_for_error(page, NODE, "") == ""
    page.evaluate("() => { delete app.api.dispatchEvent; }")


def test_errors_and_reports_are_in_the_language_of_the_page(open_page, tmp_path):
    """The catalogue is fetched when the first of them is shown, which may be before it is there."""
    page = open_page(nodes_2=False, Comfy_Locale="zh")
    check = {"class_type": "QSchedCheck", "inputs": {}}
    # No other test excludes this: what the host has in its cache is not run, and says nothing in a new workflow.
    inputs = {**GRAPH["2"]["inputs"], "include": "", "exclude": "no.such.layer"}
    whole = {**GRAPH, "2": {"class_type": NODE, "inputs": inputs}}
    load_graph(page, {**whole, "4": check})
    run(page)
    for node in ("QSchedCheck", NODE):
        wait_for(page, f"type => /[\u4e00-\u9fff]/.test(({REPORTED})(type))", arg=node)
        lines = page.evaluate(REPORTED, node).splitlines()
        # "OK  Python 3.12.1, Linux x86_64" is the same in every language.
        assert [line for line in lines if not re.search("[\u4e00-\u9fff]|OK +Python ", line)] == []
        assert len(lines) > 4
    page.screenshot(path=tmp_path / "reports.png")
    twice = {"class_type": NODE, "inputs": {**inputs, "model": ["2", 0]}}
    load_graph(page, {**whole, "3": {"class_type": "PreviewAny", "inputs": {"source": ["4", 1]}}, "4": twice})
    run(page)
    last = "app.graph.nodes.find(n => n.type === 'QSchedQuantizeModel' && n.inputs[0].link && "
    last += "app.graph.getNodeById(app.graph.links.get(n.inputs[0].link).origin_id).type === n.type)"
    script = f"() => {last}?.widgets.find(w => w.name === 'qsched_error')?.element.textContent ?? ''"
    sentences = catalogue("zh")["sentences"]
    fix = sentences["Fix:"] + sentences["plug in the model as it was loaded"]
    text = f"Q-Sched: {sentences['this model is quantised already.']} {fix}"
    wait_for(page, f"text => ({script})() === text", arg=text)
    page.screenshot(path=tmp_path / "error.png")
