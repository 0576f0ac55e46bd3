"""Scripts and addresses in everything a stranger's preset says, on every page that shows it. Needs Chromium."""

from __future__ import annotations

import sys
from pathlib import Path

import qsched_core as qs
from scripts import server
from scripts.browser import chromium, open_page, wait_for
from scripts.host import local_host

from .tally import Tally

ELSEWHERE = "attack.example"
"""No page of ours asks this server for anything."""
PAYLOADS = (
    '<script>window.hacked="script"</script>',
    '<img src=x onerror="window.hacked=1">',
    f'<img src="https://{ELSEWHERE}/a.png">',
    '<svg onload="window.hacked=1"></svg>',
    '<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>',
    '<a href="javascript:window.hacked=1">click</a>',
    "{{constructor.constructor('window.hacked=1')()}}",
    "${window.hacked=1}",
    '"><b onmouseover="window.hacked=1" style="position:fixed;inset:0">',
    "'-(window.hacked=1)-'",
    f"<style>@import url(https://{ELSEWHERE}/a.css)</style>",
)
PLACES = ("our tab", "the host's model sidebar", "a node's report")
OURS = "[class*=qsched]"


def run() -> Tally:
    tally = Tally()
    with server.running(local_host(), Path(sys.executable)) as comfy, chromium() as browser:
        folder = comfy.folder("models") / "qsched_presets"
        for number, payload in enumerate(PAYLOADS):
            qs.save_preset(_preset(payload), folder / f"{number}.safetensors")
            _raw(payload, folder / f"raw {number}.safetensors")
        urls: list[str] = []
        page = open_page(
            browser,
            comfy,
            {"Comfy.VueNodes.Enabled": True},
            lambda page: page.on("request", lambda request: urls.append(request.url)),
        )
        wait_for(page, "() => app.graph.nodes.length > 5")
        for place, show in zip(PLACES, (_tab, _sidebar, _run), strict=True):
            urls.clear()
            show(page)
            page.wait_for_timeout(1500)
            _judge(page, place, [url for url in urls if ELSEWHERE in url], tally)
    return tally


def _preset(payload: str) -> qs.Preset:
    fields = ("title", "author", "license", "description", "usage_hint", "tags", "architecture", "resolution")
    record = {"gain": {"gain": payload}, "verdict": [payload], "votes": {"wins": payload}, payload: payload}
    return qs.Preset(
        qs.Coefficients.ramp(4, c_x=(1.02, 0.98)),
        (1.0, 0.75, 0.5, 0.25, 0.0),
        qs.Binding(payload, payload, payload, payload, payload, payload, 1.0),
        "accepted",
        record,
        {f"modelspec.{name}": payload for name in fields} | {payload: payload},
    )


def _raw(payload: str, path: Path) -> None:
    """What our own writer would not write: a picture from elsewhere, imported by hand as a person might."""
    content = qs.encode_preset(qs.Preset(qs.Coefficients.identity(2), (1.0, 0.5, 0.0), card={"x.title": payload}))
    address = f"https://{ELSEWHERE}/{path.stem.split()[-1]}.png"
    header = content[8:].replace(b'"x.title":', b'"icon":"' + address.encode() + b'","x.title":', 1)
    length = int.from_bytes(content[:8], "little") + len(header) - len(content[8:])
    data = length.to_bytes(8, "little") + header
    assert address.encode() in data
    ours = qs.encode_preset(qs.parse_preset(data, path.name))  # what the import route writes
    path.write_bytes(ours)


def _tab(page) -> None:
    page.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('qsched')")
    page.wait_for_selector(".qsched-card")
    for card in page.locator(".qsched-card").all():
        card.scroll_into_view_if_needed()
        card.hover()


def _sidebar(page) -> None:
    page.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('model-library')")
    page.get_by_text("qsched_presets", exact=True).click()
    page.wait_for_timeout(1500)
    for entry in page.locator(".p-tree-node-leaf").all():
        entry.scroll_into_view_if_needed()
        entry.hover()
        page.wait_for_timeout(150)


def _run(page) -> None:
    graph = {}
    for number in range(len(PAYLOADS)):
        graph[f"{2 * number + 1}"] = {
            "class_type": "QSchedLoadPreset",
            "inputs": {"preset_name": f"{number}.safetensors"},
        }
        graph[f"{2 * number + 2}"] = {"class_type": "PreviewAny", "inputs": {"source": [f"{2 * number + 1}", 1]}}
    page.evaluate("graph => app.loadApiJson(graph, 'attack')", graph)
    wait_for(page, f"() => app.graph.nodes.length === {len(graph)}")
    page.evaluate("() => app.queuePrompt(0)")
    wait_for(page, f"() => Object.keys(app.nodeOutputs).length >= {len(PAYLOADS)}")
    page.evaluate("() => app.canvas.ds.reset?.()")


def _judge(page, place: str, urls: list[str], tally: Tally) -> None:
    """One attack for each payload; harm is not told apart by payload where the page itself was taken."""
    hacked = page.evaluate("() => window.hacked")
    planted = page.locator(f"{OURS} script, {OURS} iframe, {OURS} svg[onload], {OURS} [onerror]").count()
    if hacked is not None or urls or planted:
        tally.hurt(f"{place}: hacked {hacked!r}, asked {urls[:2]}, {planted} elements of a stranger's")
        page.evaluate("() => { delete window.hacked; }")
        return
    for _ in PAYLOADS:
        tally.count("shown as text")
