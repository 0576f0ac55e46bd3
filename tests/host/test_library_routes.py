"""The library on a server: what its routes take and refuse, and what runs with presets leave and say."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from urllib.parse import quote

import pytest
from PIL import Image
from shared_presets import BOUND, DEMO, FOUR, HTML, SAME_LABEL, preset, told

import qsched_core as qs
from scripts.client import HttpFailure, PromptRefused
from scripts.layout import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


def posted(server, path: str, body: bytes, kind: str, page: bool = True, **headers) -> tuple[int, dict]:
    """(Status, JSON)."""
    headers = {"Content-Type": kind, **({"X-QSched-Page": "1"} if page else {}), **headers}
    call = urllib.request.Request(server.client.base_url + path, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(call, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as failure:
        with failure:
            return failure.code, json.loads(failure.read())


def form(name: str, content: bytes) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n--x--\r\n"


def uploaded(server, name: str, content: bytes, page: bool = True, **headers) -> tuple[int, dict]:
    body = form(name, content)
    return posted(server, "/qsched/presets/import", body, "multipart/form-data; boundary=x", page, **headers)


def test_import_list_match_picture_and_rename_over_http(server, tmp_path):
    qs.save_preset(preset(card={"modelspec.title": HTML}, **BOUND), tmp_path / "given.safetensors")
    status, answer = uploaded(server, "../../../shared.safetensors", (tmp_path / "given.safetensors").read_bytes())
    assert (status, answer) == (200, {"name": "shared.safetensors", "added": True})
    listing = server.client.post("/qsched/presets", told(DEMO, [SAME_LABEL], [FOUR]))
    names = {entry["name"]: entry for entry in listing["presets"]}
    assert names["shared.safetensors"]["title"] == HTML
    assert [entry["shipped"] for entry in names.values()].count(True) == 3
    assert listing["models"] == ["FluxSchnell"]
    assert names["shared.safetensors"]["match"] == {"fits": True, "differs": [], "unknown": []}
    turbo = names["SDXL-Turbo W4A4 (published).safetensors"]["match"]
    assert turbo["differs"][0] == {"what": "model", "preset": "SDXL", "here": "FluxSchnell"}
    order = list(names)
    assert order.index("shared.safetensors") < order.index("SDXL-Turbo W4A4 (published).safetensors"), "fits first"
    ordered = server.client.post("/qsched/presets/names", told(DEMO, [SAME_LABEL], [FOUR]))["names"]
    assert ordered == list(names)
    picture = server.client.read("/qsched/presets/picture?name=shared.safetensors")
    assert Image.open(io.BytesIO(picture)).size == (1200, 630)
    renamed = server.client.post("/qsched/presets/rename", {"name": "shared.safetensors", "new_name": "theirs"})
    assert renamed == {"name": "theirs.safetensors"}
    path = server.folder("models") / "qsched_presets" / "theirs.safetensors"
    assert path.exists()
    undo = server.client.post("/qsched/presets/delete", {"name": "theirs.safetensors"})
    assert not path.exists()
    assert server.client.post("/qsched/presets/undo", undo) == {"name": "theirs.safetensors"}
    assert path.exists()


def test_a_preset_that_is_deleted_while_a_graph_uses_it_is_named_by_the_next_run(server, tmp_path):
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    uploaded(server, "soon gone.safetensors", (tmp_path / "given.safetensors").read_bytes())
    graph = {
        "1": {"class_type": "QSchedLoadPreset", "inputs": {"preset_name": "soon gone.safetensors"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
    }
    server.client.run(graph, timeout=60)
    undo = server.client.post("/qsched/presets/delete", {"name": "soon gone.safetensors"})
    with pytest.raises(PromptRefused) as caught:
        server.client.run(graph, timeout=60)
    assert "'soon gone.safetensors' is not in models/qsched_presets." in str(caught.value)
    server.client.post("/qsched/presets/undo", undo)
    server.client.run(graph, timeout=60)


def test_bad_requests_are_answered_with_a_reason(server):
    rename, listing, json_type = "/qsched/presets/rename", "/qsched/presets", "application/json"
    cases = [
        (posted(server, rename, b'{"name":"a","new_name":"b"}', "text/plain"), 415),
        (posted(server, rename, b"{", json_type), 400),
        (posted(server, rename, b"[" * 100_000, json_type), 400),
        (posted(server, rename, b'{"name":["a"],"new_name":"b"}', json_type), 400),
        (posted(server, rename, b'{"name":"../../x.safetensors","new_name":"b"}', json_type), 400),
        (posted(server, listing, b'"' + b"x" * 300_000 + b'"', json_type), 413),
        (posted(server, "/qsched/presets/delete", b'{"name":"../../x.safetensors"}', json_type), 400),
        (posted(server, "/qsched/presets/delete", b'{"name":null}', json_type), 400),
        (posted(server, "/qsched/presets/undo", b'{"undo":"../../x"}', json_type), 400),
        (posted(server, "/qsched/presets/import", b"{}", json_type), 415),
        (posted(server, "/qsched/presets/import", b"no parts", "multipart/form-data; boundary=x"), 400),
        (uploaded(server, "big.safetensors", b"\0" * 4_300_000), 413),
        (uploaded(server, "page.safetensors", b"<html>"), 400),
    ]
    assert [status for (status, _), _ in cases] == [expected for _, expected in cases]
    assert all(answer["error"].startswith("Q-Sched: ") for (_, answer), _ in cases)
    for name in ("", "../secret.safetensors", "gone.safetensors"):
        with pytest.raises(HttpFailure) as caught:
            server.client.read(f"/qsched/presets/picture?name={quote(name)}")
        assert caught.value.status == 404


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example"])
def test_what_changes_something_is_taken_from_the_page_alone(server, tmp_path, origin):
    """Regression: a form of another site could import a file where the browser sends no Sec-Fetch header, as it does
    to a plain-http address of the local network."""
    qs.save_preset(preset(), tmp_path / "given.safetensors")
    content = (tmp_path / "given.safetensors").read_bytes()
    headers = {"Host": "192.168.0.7:8188", **({"Origin": origin} if origin else {})}
    status, answer = uploaded(server, "forged.safetensors", content, page=False, **headers)
    assert (status, "ComfyUI's page" in answer["error"]) == (403, True)
    assert not list((server.folder("models") / "qsched_presets").glob("forged*"))
    # The page behind a reverse proxy: another Host, and an Origin that is not it.
    headers = {"Host": "10.0.0.5:8188", "Origin": "https://comfy.example"}
    assert uploaded(server, "proxied.safetensors", content, **headers)[0] == 200


def test_every_route_that_changes_something_wants_the_proof(pack, monkeypatch):
    """All of them, those of later files too: the pack registers its routes here as it does in the host."""
    import asyncio

    from aiohttp import web
    from aiohttp.test_utils import make_mocked_request

    class Server:
        routes = web.RouteTableDef()

    for name in ("calibrating.routes", "library.routes", "voting.routes"):
        monkeypatch.setattr(pack(f"nodes.{name}"), "page_server", Server)
    nodes = pack("nodes")
    adders = [value for name, value in vars(nodes).items() if name.startswith("add_") and "route" in name]
    for add in adders:
        add()
    writing = [route for route in Server.routes if route.method not in ("GET", "HEAD")]
    assert len(adders) == 3
    assert len(writing) >= 4
    for route in writing:
        with pytest.raises(web.HTTPForbidden):
            asyncio.run(route.handler(make_mocked_request(route.method, route.path)))


@pytest.fixture
def views(pack, presets_folder):
    """``views(path, name=value)``: the status that an address of the page is answered with."""
    import asyncio
    from types import SimpleNamespace

    from aiohttp import web

    routes = web.RouteTableDef()
    pack("nodes.library.routes")._add_views(routes)
    handlers = {route.path: route.handler for route in routes}
    return lambda path, **query: asyncio.run(handlers[path](SimpleNamespace(query=query))).status


def test_a_picture_or_a_curve_of_no_preset_is_not_there(views, presets_folder):
    qs.save_preset(preset(), presets_folder / "one.safetensors")
    for path, key in (("/qsched/presets/picture", "name"), ("/qsched/curve", "preset")):
        assert views(path, **{key: "one.safetensors"}) == 200
        for name in ("", "gone.safetensors", "../gone.safetensors"):
            assert views(path, **{key: name}) == 404
        assert views(path) == 404


def test_no_more_than_the_largest_file_is_read(pack):
    import asyncio
    from types import SimpleNamespace

    from aiohttp import web

    routes = pack("nodes.library.routes")

    def read(size: int) -> tuple[str, bytes]:
        parts = [b"x" * (1024 * 1024)] * (size // 2**20) + [b"x" * (size % 2**20)]

        async def read_chunk(most: int) -> bytes:
            return parts.pop(0) if parts else b""

        async def reader():
            return SimpleNamespace(next=part)

        async def part():
            return SimpleNamespace(filename="a.safetensors", read_chunk=read_chunk)

        return asyncio.run(routes._file(SimpleNamespace(content_type="multipart/form-data", multipart=reader)))

    name, content = read(4 * 2**20)
    assert (name, len(content)) == ("a.safetensors", 4 * 2**20)
    with pytest.raises(web.HTTPRequestEntityTooLarge):
        read(4 * 2**20 + 1)


def test_a_name_is_a_text_of_at_most_a_thousand_characters(pack):
    from aiohttp import web

    text = pack("nodes.library.routes")._text
    assert text({"name": "x" * 1000}, "name") == "x" * 1000
    for question in ({}, {"name": None}, {"name": 5}, {"name": ["a"]}, {"name": "x" * 1001}):
        with pytest.raises(web.HTTPBadRequest):
            text(question, "name")


BAD_PARTS = {
    "a control character in the name": form("a\x01b.safetensors", b"x"),
    "a bell in the name": form("a\x07.safetensors", b"x"),
    "an endless header": b"--x\r\nContent-Disposition: form-data; filename="
    + b"a" * 100_000
    + b"\r\n\r\nx\r\n--x--\r\n",
    "a header without a colon": b"--x\r\nContent-Disposition\r\n\r\nx\r\n--x--\r\n",
    "a header with a blank in its name": b"--x\r\nContent Disposition: form-data\r\n\r\nx\r\n--x--\r\n",
    "a thousand headers": b"--x\r\n" + b"a: b\r\n" * 1000 + b"\r\nx\r\n--x--\r\n",
    "no end": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.safetensors"\r\n\r\nxxx',
    "no end of the header": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a',
    "parts in parts": b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\nx\r\n--y--\r\n--x--\r\n",
    "parts in parts without a boundary": b"--x\r\nContent-Type: multipart/mixed\r\n\r\nx\r\n--x--\r\n",
    "not UTF-8": b'--x\r\nContent-Disposition: form-data; filename="\xff\xfe.safetensors"\r\n\r\nx\r\n--x--\r\n',
    "nothing": b"",
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_broken_upload_is_answered_with_a_reason(server, case):
    """Regression: control characters in a name, endless and broken headers were answered 500."""
    status, answer = posted(server, "/qsched/presets/import", BAD_PARTS[case], "multipart/form-data; boundary=x")
    assert (status, answer["error"].startswith("Q-Sched: ")) == (400, True)


def test_a_preset_saved_by_a_run_holds_the_workflow_it_came_from(server):
    workflow = {"id": "w", "nodes": [], "links": [], "version": 0.4}
    texts = {"name": "with recipe", "author": "", "license": "", "notes": ""}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 255}},
        "2": {"class_type": "QSchedLoadPreset", "inputs": {"preset_name": "SDXL-Turbo W4A4 (published).safetensors"}},
        "3": {"class_type": "QSchedSavePreset", "inputs": {"preset": ["2", 0], "thumbnail": ["1", 0], **texts}},
    }
    server.client.wait(server.client.submit(graph, workflow), timeout=120)
    path = server.folder("models") / "qsched_presets" / "with recipe.safetensors"
    card = qs.load_preset(path).card
    assert json.loads(card["workflow"]) == workflow
    assert json.loads(card["prompt"]).keys() == graph.keys()
    told_by_host = server.client.get(f"/view_metadata/qsched_presets?filename={quote(path.name)}")
    assert told_by_host["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert not list((ROOT / "presets").glob("with recipe*"))


def test_a_preset_is_checked_off_the_servers_thread(pack, presets_folder, monkeypatch):
    """The host validates a graph in the thread that answers every page."""
    import asyncio
    import threading

    core, presets = pack("qsched_core"), pack("nodes.presets")
    qs.save_preset(preset(), presets_folder / "one.safetensors")
    threads = []
    load = core.load_preset
    monkeypatch.setattr(core, "load_preset", lambda path: [load(path), threads.append(threading.get_ident())])
    assert asyncio.run(presets.QSchedLoadPreset.validate_inputs("one.safetensors")) is True
    assert threads != [threading.get_ident()]
    assert "is not in" in asyncio.run(presets.QSchedLoadPreset.validate_inputs("gone.safetensors"))


@pytest.mark.parametrize("evil", ['<img src="https://example.org/a.png">', "![x](https://example.org/a.png)"])
def test_a_nodes_report_is_no_markup(pack, presets_folder, evil):
    """Regression: the host's text preview takes it for HTML, and loaded a stranger's picture from his server."""
    qs.save_preset(
        preset(card={"modelspec.title": evil, "modelspec.description": evil}), presets_folder / "evil.safetensors"
    )
    result = pack("nodes.presets").QSchedLoadPreset.execute("evil.safetensors")
    for text in (result.args[1], str(result.ui)):
        assert "example.org" in text
        assert "<" not in text
        assert "![" not in text
    prompts = pack("nodes.prompts").QSchedPrompts.execute(prompts=["\n".join([evil, "<lora:a:1> b", "c", "d"])])
    assert prompts.args[0].texts[:2] == (evil, "<lora:a:1> b")
    assert "<" not in prompts.args[1]
    assert "\u2039lora:a:1> b" in prompts.args[1]
