"""The example workflows as files: ``python -m scripts.workflows.build`` after a change of nodes or of a file here.

Each is built in ComfyUI's own page, so that it is saved as the front end saves it, and written for the API beside.
Needs playwright and a Chromium, as the tests of the page do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import server
from ..browser import chromium, open_page
from ..errors import DevError
from ..host import host_at, local_host
from ..layout import NEWER_NODES, ROOT
from . import TEMPLATES
from .blueprint import BLUEPRINT, BUILD_BLUEPRINT, EXPOSED, NAME
from .graph import BYPASSED, LIVE, Node, Template

WORKFLOWS = ROOT / "example_workflows"
BLUEPRINTS = ROOT / "subgraphs"
NOTE = 100
BUILD = """async ({ nodes, note }) => {
  app.graph.clear();
  for (const spec of [...nodes, note]) {
    const node = LiteGraph.createNode(spec.kind);
    node.id = spec.id;
    if (spec.title) node.title = spec.title;
    app.graph.add(node);
    for (const [name, value] of Object.entries(spec.values)) {
      const widget = name ? node.widgets.find(w => w.name === name) : node.widgets[0];
      if (!widget) throw new Error(`${spec.kind} has no widget ${name}`);
      widget.value = value;
      widget.callback?.(value);
    }
    const control = node.widgets?.find(w => w.name === "control_after_generate");
    if (control) control.value = "fixed";
    if (spec.files.length) node.properties.models = spec.files;
    if (spec.note) node.properties.qsched_note = spec.note;
    node.mode = spec.mode;
  }
  for (const spec of nodes) for (const [name, [from, slot]] of Object.entries(spec.links)) {
    const to = app.graph.getNodeById(spec.id);
    if (!app.graph.getNodeById(from).connect(slot, to, to.findInputSlot(name))) throw new Error(spec.kind + name);
  }
}"""

FILL = """() => {
  const line = "What a node says after a run, in the longest of the five languages. ";
  const points = [...Array(9).keys()].map(i => ({ c_x_first: 1 + i / 50, c_eps_first: 1, jaq: i / 10, whole: true }));
  const curve = { c_x: [1, 1, 1, 1], c_eps: [1, 1, 1, 1], sigmas: [1, 0.75, 0.5, 0.25, 0] };
  const files = [{ filename: "none.png", subfolder: "", type: "temp" }];
  const rows = ["full precision", "quantised", "quantised + Q-Sched"].map(name => ({ name, files }));
  const saysNothing = node => ["QSchedDemoModel", "QSchedSamplerTCD"].includes(node.comfyClass)
    || (node.comfyClass === "QSchedSampler" && node.inputs.find(input => input.name === "preset").link == null);
  for (const node of app.graph.nodes) {
    if (!node.comfyClass?.startsWith("QSched") || saysNothing(node)) continue;
    node.onExecuted({
      text: [node.comfyClass.startsWith("QSchedSave") ? line : Array(12).fill(line).join("\\n")],
      qsched_curve: [curve],
      qsched_report: [JSON.stringify({ trace: points, coefficients: curve })],
      qsched_pictures: [{ rows, texts: [line] }],
    });
  }
}"""
"""All that our nodes show after a run, with lines that need two: a run itself takes minutes, or models of many GB."""

TALL = """() => Object.fromEntries([...document.querySelectorAll("[data-node-id]")].map(
  element => [element.dataset.nodeId, element.offsetHeight]))"""

LAY_OUT = """({ nodes, note, noteBand, bands, noteId, tall }) => {
  const TITLE = 30, GAP = 40, PAD = 20, HEAD = 80;
  const SPARE = 12; // front ends differ by some pixels
  const place = (id, x, y, [width, height]) => {
    const node = app.graph.getNodeById(id), least = node.computeSize();
    node.pos = [x, y];
    node.setSize([Math.max(width || 320, least[0]), Math.max(height, least[1])]);
    return [node.size[0], Math.max(node.size[1], (tall[id] ?? 0) - TITLE + SPARE)];
  };
  const sizes = Object.fromEntries(nodes.map(spec => [spec.id, spec.size]));
  const shown = app.graph.getNodeById(noteId);
  Object.assign(shown, { pos: [-note.size[0] - 60, HEAD - TITLE - PAD], color: "#222", bgcolor: "#000" });
  shown.setSize(note.size);
  let left = 0, deep = 0;
  for (const band of bands) {
    let top = 0, right = left;
    const frames = [];
    for (const { title, columns } of band) {
      let x = left + PAD, bottom = top;
      for (const column of columns) {
        let y = top + HEAD, widest = 0;
        for (const id of column) {
          const [width, height] = place(id, x, y, sizes[id]);
          widest = Math.max(widest, width);
          bottom = Math.max(bottom, y + height);
          y += height + TITLE + GAP;
        }
        x += widest + GAP;
      }
      right = Math.max(right, x - GAP + PAD);
      frames.push({ title, y: top, height: bottom + PAD - top });
      top = bottom + PAD + GAP;
    }
    if (bands.indexOf(band) === noteBand) {
      shown.pos = [left, top + TITLE];
      shown.setSize([right - left, note.size[1]]);
      top = shown.pos[1] + note.size[1];
    }
    deep = Math.max(deep, top);
    for (const { title, y, height } of frames) {
      const group = new LiteGraph.LGraphGroup(title);
      Object.assign(group, { pos: [left, y], size: [right - left, height], color: "#3f789e" });
      app.graph.add(group);
    }
    left = right + GAP;
  }
  app.graph.updateExecutionOrder?.();
  const saved = app.graph.serialize();
  // Not smaller than what the classic canvas still writes texts at, nor wider than a window.
  // A window of 1280 x 720 leaves so much for the graph.
  const start = Math.min(0, shown.pos[0]), wide = 1180, high = 600;
  const scale = Math.min(0.8, Math.max(0.6, Math.min(wide / (left - start), high / deep)));
  saved.extra = { ...saved.extra, ds: { scale, offset: [80 / scale - start, 90 / scale] } };
  return saved;
}"""


def api_of(template: Template) -> dict[str, dict[str, Any]]:
    """The workflow in API format: what is live, links through bypassed nodes resolved."""
    nodes = {node.id: node for node in template.nodes}
    live = [node for node in template.nodes if node.mode == LIVE]
    return {
        str(node.id): {
            "class_type": node.kind,
            "inputs": {name: _source(value, nodes) for name, value in node.inputs.items()},
            "_meta": {"title": node.title},
        }
        for node in sorted(live, key=lambda node: node.id)
    }


def _source(value: Any, nodes: dict[int, Node]) -> Any:
    if not isinstance(value, list):
        return value
    node = nodes[value[0]]
    if node.mode == BYPASSED:  # those we have pass their model on
        return _source(node.inputs["model"], nodes)
    return [str(value[0]), value[1]]


def page_spec(template: Template) -> dict[str, Any]:
    """What ``BUILD`` and ``LAY_OUT`` take."""
    nodes = [_node_spec(node) for node in template.nodes]
    note = _node_spec(Node(NOTE, "MarkdownNote", "Read me", {"": template.note}, size=template.note_size))
    bands = [
        [{"title": g.title, "columns": [[n.id for n in column] for column in g.columns]} for g in band]
        for band in template.bands
    ]
    return {
        "nodes": nodes,
        "note": {**note, "note": template.number},
        "noteBand": template.note_band,
        "bands": bands,
        "noteId": NOTE,
    }


def _node_spec(node: Node) -> dict[str, Any]:
    links = {name: value for name, value in node.inputs.items() if isinstance(value, list)}
    return {
        "id": node.id,
        "kind": node.kind,
        "title": node.label,
        "links": links,
        "values": {name: value for name, value in node.inputs.items() if name not in links},
        "files": [{"name": file.name, "url": file.url, "directory": file.folder} for file in node.files],
        "mode": node.mode,
        "size": list(node.size),
    }


def neat(workflow: dict[str, Any]) -> dict[str, Any]:
    """A saved workflow without what changes from one run to the next."""
    workflow["id"] = "00000000-0000-0000-0000-000000000000"
    # LG: places as they are, in both renderers.
    workflow["extra"] = {**(workflow.get("extra") or {}), "workflowRendererVersion": "LG"}
    workflow["extra"].pop("frontendVersion", None)
    for part in [workflow, *(workflow.get("definitions") or {}).get("subgraphs", [])]:
        for node in part["nodes"]:
            for name in ("ver", "cnr_id", "aux_id"):
                node.get("properties", {}).pop(name, None)
            for socket in node.get("inputs", []):
                socket.pop("label", None)  # old front ends save a display name there: English on every page
            node["pos"] = [round(value) for value in node["pos"]]
            node["size"] = [round(value) for value in node["size"]]
    return {key: without_nulls(value) for key, value in workflow.items() if value is not None}


def without_nulls(value: Any) -> Any:
    """A part of a saved workflow without the keys that hold nothing: a ``"slot_index": null`` breaks copy and paste in
    front ends from 1.54 on. What means something is left: unconnected sockets, and the widgets' values."""
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: item if key == "widgets_values" else without_nulls(item)
        for key, item in value.items()
        if item is not None or key in ("link", "links")
    }


@contextmanager
def page_of(browser: Any, comfy: server.Server, nodes_2: bool) -> Iterator[Any]:
    """A page of the server in one of the two renderers."""
    page = open_page(browser, comfy, {"Comfy.VueNodes.Enabled": nodes_2})
    yield page
    page.close()


def write(names: list[str], comfy: server.Server, browser: Any) -> Iterator[Path]:
    """Build the templates (and the blueprint) whose names begin with one of `names`, and write them."""
    templates = [t for t in (make() for make in TEMPLATES) if t.name.startswith(tuple(names))]
    specs = {template.name: page_spec(template) for template in templates}
    tall = {}
    with page_of(browser, comfy, nodes_2=True) as page:  # its nodes are the taller ones
        for name, spec in specs.items():
            page.evaluate(BUILD, spec)
            page.evaluate(LAY_OUT, {**spec, "tall": {}})
            page.evaluate("() => { app.canvas.ds.scale = 1; app.canvas.setDirty(true, true); }")
            page.wait_for_timeout(1500)
            page.evaluate(FILL)
            page.wait_for_timeout(2500)
            tall[name] = page.evaluate(TALL)
    with page_of(browser, comfy, nodes_2=False) as page:
        for template in templates:
            page.evaluate(BUILD, specs[template.name])
            page.wait_for_timeout(500)
            workflow = page.evaluate(LAY_OUT, {**specs[template.name], "tall": tall[template.name]})
            yield _written(WORKFLOWS / f"{template.name}.json", neat(workflow))
            yield _written(WORKFLOWS / "api" / f"{template.name}.json", api_of(template))
        if NAME.startswith(tuple(names)):
            page.evaluate(BUILD, page_spec(BLUEPRINT))
            yield _written(BLUEPRINTS / f"{NAME}.json", neat(page.evaluate(BUILD_BLUEPRINT, EXPOSED)))


def _written(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1 if "nodes" in content else 2, ensure_ascii=False) + "\n", "utf-8")
    return path


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.workflows.build", description=__doc__.splitlines()[0])
    parser.add_argument("--host", type=Path, help="the ComfyUI folder; default: the one at hand")
    parser.add_argument("names", nargs="*", default=[""], help="which, by how their names begin; all without")
    arguments = parser.parse_args()
    host = host_at(arguments.host, "--host") if arguments.host else local_host()
    if host is None:
        raise DevError("There must be a ComfyUI on this machine: `make env`.")
    with server.running(host, Path(sys.executable), extra_packs=[NEWER_NODES]) as comfy, chromium() as browser:
        for path in write(arguments.names, comfy, browser):
            print(path.relative_to(ROOT), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
