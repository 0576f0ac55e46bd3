"""The pictures of the help pages: ``python -m scripts.node_pictures`` after a change of nodes or of what they draw.

Each node is put into a small graph in ComfyUI's own page, run where it draws or says something, and photographed.
Needs playwright and a Chromium, as the tests of the page do.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import server
from .browser import chromium, open_page
from .errors import DevError
from .host import host_at, local_host
from .layout import ROOT
from .node_graphs import FILES, PICTURES, Picture

DOCS = ROOT / "web" / "docs"
LARGEST, MOST_BYTES = (700, 1200), 40_000
COLOURS = (256, 192, 128)
MARGIN = 14
LEFT, TOP = 300, 160
"""Where the nodes stand on the page: clear of its bars."""

SETTINGS = {
    "Comfy.VueNodes.Enabled": True,
    "Comfy.ColorPalette": "dark",
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Locale": "en",
}

LOAD = """async graph => {
  await app.loadApiJson(graph, "picture");
  for (const node of app.graph.nodes) for (const widget of node.widgets ?? []) {
    if (widget.name === "control_after_generate") widget.value = "fixed";
  }
}"""

QUEUED = """async () => {
  const queue = await (await app.api.fetchApi("/queue")).json();
  return queue.queue_running.length + queue.queue_pending.length;
}"""

LEAVE = """({ ids, sizes, private_paths }) => {
  for (const node of [...app.graph.nodes]) if (!ids.includes(String(node.id))) app.graph.remove(node);
  for (const node of app.graph.nodes) for (const widget of node.widgets ?? []) {
    for (const path of private_paths) {
      if (String(widget.value).includes(path)) widget.value = widget.value.replaceAll(path, "ComfyUI");
    }
  }
  for (const id of ids) {
    const node = app.graph.getNodeById(id);
    const [width, height] = sizes[id] ?? [330, 0];
    node.setSize([width, Math.max(height, node.computeSize()[1])]);
  }
  app.canvas.deselectAll();
  app.canvas.background_image = null;
}"""

PLACE = """({ columns, left, top }) => {
  const TITLE = 30, ACROSS = 50, DOWN = 24;
  const tall = id => document.querySelector(`[data-node-id="${id}"]`).offsetHeight;
  let x = left;
  for (const column of columns) {
    let y = top, widest = 0;
    for (const id of column) {
      const node = app.graph.getNodeById(id);
      node.pos = [x, y + TITLE];
      y += tall(id) + DOWN;
      widest = Math.max(widest, node.size[0]);
    }
    x += widest + ACROSS;
  }
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [0, 0];
  app.canvas.setDirty(true, true);
}"""

BOX = """({ ids, cut }) => {
  const boxes = ids.map(id => document.querySelector(`[data-node-id="${id}"]`).getBoundingClientRect());
  const [x, y] = [Math.min(...boxes.map(box => box.left)), Math.min(...boxes.map(box => box.top))];
  const [right, bottom] = [Math.max(...boxes.map(box => box.right)), Math.max(...boxes.map(box => box.bottom))];
  const last = cut && document.querySelector(`[data-node-id="${ids[0]}"] ${cut}`).getBoundingClientRect().bottom;
  return { x, y, width: right - x, height: (last || bottom) - y };
}"""


def photograph(page: Any, picture: Picture, comfy: server.Server) -> Image.Image:
    """The nodes of a picture, at twice the page's own size."""
    # Nodes that the host remembers are not run again, and would say nothing.
    page.request.post(f"{comfy.client.base_url}/free", data={"free_memory": True})
    page.evaluate(LOAD, picture.api())
    page.wait_for_timeout(1500)
    if picture.run:
        page.evaluate("() => app.queuePrompt(0, 1)")
        page.wait_for_timeout(1000)
        while page.evaluate(QUEUED):
            page.wait_for_timeout(500)
        page.wait_for_timeout(2500)
    ids = [node for column in picture.columns for node in column]
    columns = [list(column) for column in picture.columns]
    private = [str(comfy.base), str(Path(sys.executable).parent)]
    page.evaluate(LEAVE, {"ids": ids, "sizes": picture.sizes, "private_paths": private})
    for _ in range(2):  # text wraps at the new width, and nodes grow
        page.wait_for_timeout(1000)
        page.evaluate(PLACE, {"columns": columns, "left": LEFT, "top": TOP})
    page.wait_for_timeout(1500)
    box = page.evaluate(BOX, {"ids": ids, "cut": picture.cut})
    clip = {"x": box["x"] - MARGIN, "y": box["y"] - MARGIN, "width": box["width"] + 2 * MARGIN}
    clip["height"] = box["height"] + (MARGIN if picture.cut else 2 * MARGIN)
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def packed(image: Image.Image) -> bytes:
    """A PNG of at most LARGEST pixels and MOST_BYTES: smaller rather than in too few colours."""
    scale = min(1.0, LARGEST[0] / image.width, LARGEST[1] / image.height)
    while True:
        size = (round(image.width * scale), round(image.height * scale))
        small = image.resize(size, Image.Resampling.LANCZOS)
        for colours in COLOURS:
            if len(data := _indexed(small, colours)) <= MOST_BYTES:
                return data
        scale *= 0.9


def _indexed(image: Image.Image, colours: int) -> bytes:
    # Each colour counts once: socket dots are few pixels of a colour of their own. Pillow's own mapping to a palette is
    # a rough one, which flat grounds show.
    pixels = np.asarray(image).reshape(-1, 3)
    shades, places = np.unique(pixels, axis=0, return_inverse=True)
    reduced = Image.fromarray(shades[None]).quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=3)
    palette = np.array(reduced.getpalette(), dtype=np.int64).reshape(-1, 3)
    nearest = ((shades[:, None].astype(np.int64) - palette) ** 2).sum(-1).argmin(1).astype(np.uint8)
    picture, file = Image.fromarray(nearest[places].reshape(image.height, image.width)), io.BytesIO()
    picture.putpalette(palette.astype(np.uint8).tobytes())
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def write(names: list[str], comfy: server.Server, browser: Any) -> Iterator[Path]:
    """Photograph the nodes named (all: none named), and write their pictures."""
    for place, content in FILES.items():
        path = comfy.base / "models" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    for name in names or PICTURES:
        # A page of its own: one that showed another graph fills in what that one's nodes of the same number held.
        page = open_page(browser, comfy, SETTINGS, viewport={"width": 1700, "height": 2000}, device_scale_factor=2)
        path = DOCS / f"{name}.png"
        path.write_bytes(packed(photograph(page, PICTURES[name](), comfy)))
        page.close()
        yield path


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.node_pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--host", type=Path, help="the ComfyUI folder; default: the one at hand")
    parser.add_argument("names", nargs="*", help="node ids; all without")
    arguments = parser.parse_args()
    host = host_at(arguments.host, "--host") if arguments.host else local_host()
    if host is None:
        raise DevError("There must be a ComfyUI on this machine: `make env`.")
    with server.running(host, Path(sys.executable)) as comfy, chromium() as browser:
        for path in write(arguments.names, comfy, browser):
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.1f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
