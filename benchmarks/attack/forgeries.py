"""Another site's page in the same browser sends forms and requests to every route that changes something.

Needs Chromium.

The server is asked at a plain-http address of the network, where browsers send no Sec-Fetch header, as well as at
127.0.0.1. A request with the page's own header from the page itself is made last: that one must go through.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import qsched_core as qs
from scripts import server
from scripts.browser import chromium
from scripts.host import local_host

from .tally import Tally

JSON_ROUTES = {
    "/qsched/presets/rename": {"name": "old.safetensors", "new_name": "forged"},
    "/qsched/presets/delete": {"name": "old.safetensors"},
    "/qsched/presets/undo": {"undo": "0" * 32},
    "/qsched/arena/vote": {"key": "0" * 64, "pair": 0, "choice": "left"},
}
WAYS = ("form", "fetch no-cors", "fetch", "fetch with the header", "beacon")
"""How a page sends something elsewhere."""

ATTACK = """async ([address, routes, ways, content]) => {
  const file = () => new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], "forged.safetensors");
  const upload = () => { const data = new FormData(); data.append("file", file()); return data; };
  const form = async (url, fields) => {
    const frame = Object.assign(document.createElement("iframe"), { name: "f" + Math.random() });
    const form = document.createElement("form");
    Object.assign(form, { action: url, method: "post", target: frame.name });
    form.enctype = fields ? "text/plain" : "multipart/form-data";
    const input = document.createElement("input");
    if (fields) Object.assign(input, { name: fields.slice(0, -1) + ', "x": "', value: '"}' });
    else {
      const chosen = new DataTransfer();
      chosen.items.add(file());
      Object.assign(input, { type: "file", name: "file" });
      input.files = chosen.files;
    }
    form.append(input);
    document.body.append(frame, form);
    const loaded = new Promise(done => { frame.onload = done; setTimeout(done, 4000); });
    form.submit();
    await loaded;
  };
  let tries = 0;
  for (const [route, body] of [["/qsched/presets/import", null], ...Object.entries(routes)]) for (const way of ways) {
    const url = address + route, text = body && JSON.stringify(body);
    const data = text ?? upload();
    const header = { "X-QSched-Page": "1", ...(text ? { "Content-Type": "application/json" } : {}) };
    try {
      if (way === "form") await form(url, text);
      else if (way === "beacon") navigator.sendBeacon(url, data);
      else {
        const mode = way === "fetch no-cors" ? "no-cors" : "cors";
        await fetch(url, { method: "POST", mode, body: data, headers: way === "fetch" ? {} : header });
      }
    } catch {}
    tries++;
  }
  return tries;
}"""


def run() -> Tally:
    tally = Tally()
    content = qs.encode_preset(qs.Preset(qs.Coefficients.identity(2), (1.0, 0.5, 0.0)))
    flags = [*server.CPU, "--listen", "0.0.0.0"]
    with server.running(local_host(), sys.executable, flags=flags) as comfy, chromium() as browser, _site() as site:
        folder = comfy.folder("models") / "qsched_presets"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "old.safetensors").write_bytes(content)
        for host in ("127.0.0.1", socket.gethostbyname(socket.gethostname())):
            page = browser.new_page()
            page.goto(site)
            arguments = [f"http://{host}:{comfy.port}", JSON_ROUTES, WAYS, base64.b64encode(content).decode()]
            tries = page.evaluate(ATTACK, arguments)
            page.wait_for_timeout(1000)
            page.close()
            left = sorted(path.name for path in folder.iterdir())
            if left != ["old.safetensors"]:
                tally.hurt(f"through {host}: {left}")
                continue
            for _ in range(tries):
                tally.count("refused")
        renamed = comfy.client.post("/qsched/presets/rename", {"name": "old.safetensors", "new_name": "ours"})
        if renamed != {"name": "ours.safetensors"}:
            tally.hurt(f"the page's own request was answered {json.dumps(renamed)}")
    return tally


@contextmanager
def _site() -> Iterator[str]:
    """An empty page of another site."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the library's own name
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body></body>")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{http.server_port}/"
        http.shutdown()
        thread.join()
