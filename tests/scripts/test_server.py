"""Starting and stopping, with a main.py that only pretends to be ComfyUI."""

import sys
import textwrap
from pathlib import Path

import pytest

from scripts import server
from scripts.host import host_at

PRETENDER = """
    import argparse, pathlib
    from http.server import BaseHTTPRequestHandler, HTTPServer

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--base-directory", type=pathlib.Path)
    args, rest = parser.parse_known_args()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    print("flags:", *rest)
    print("packs:", *(entry.name for entry in (args.base_directory / "custom_nodes").iterdir()))
    HTTPServer(("127.0.0.1", args.port), Handler).serve_forever()
"""


@pytest.fixture
def host_running(tmp_path, make_host):
    """Makes a host whose main.py is the given source."""

    def make(source: str):
        path = make_host(tmp_path / "host")
        (path / "main.py").write_text(textwrap.dedent(source), "utf-8")
        return host_at(path, "test")

    return make


@pytest.fixture
def pack(tmp_path) -> Path:
    path = tmp_path / "pack"
    path.mkdir()
    (path / "__init__.py").write_text("mine", "utf-8")
    return path


def test_a_server_has_the_pack_and_is_gone_afterwards(host_running, pack):
    with server.running(host_running(PRETENDER), Path(sys.executable), pack=pack) as comfy:
        assert comfy.client.system_stats() == {}
        assert "packs: q-sched" in comfy.log_text()
        assert "--disable-api-nodes" in comfy.log_text()
        assert "--cpu" in comfy.log_text()
        assert (comfy.folder("custom_nodes") / "q-sched" / "__init__.py").read_text("utf-8") == "mine"
        assert comfy.process.poll() is None
    assert comfy.process.poll() is not None
    assert not comfy.base.exists()
    assert pack.is_dir(), "only the link to the pack may be removed"


def test_other_packs_are_put_beside_it_under_their_own_names(host_running, pack, tmp_path):
    other = tmp_path / "other-nodes"
    other.mkdir()
    with server.running(host_running(PRETENDER), Path(sys.executable), pack=pack, extra_packs=[other]) as comfy:
        packs = next(line for line in comfy.log_text().splitlines() if line.startswith("packs:"))
        assert set(packs.split()[1:]) == {"q-sched", "other-nodes"}
    assert other.is_dir()


def test_the_server_is_stopped_when_the_work_fails(host_running):
    host = host_running(PRETENDER)
    with pytest.raises(KeyboardInterrupt), server.running(host, Path(sys.executable), pack=None) as comfy:
        raise KeyboardInterrupt
    assert comfy.process.poll() is not None


def test_a_base_and_a_log_of_ones_own_are_kept(host_running, pack, tmp_path):
    base, log, host = tmp_path / "base", tmp_path / "my.log", host_running(PRETENDER)
    for _ in range(2):  # the second time the link is there already
        with server.running(host, Path(sys.executable), pack=pack, base=base, log_path=log):
            pass
    assert (base / "output").is_dir()
    assert "packs: q-sched" in log.read_text("utf-8")


def test_without_the_right_to_link_the_pack_is_copied(host_running, pack, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (pack / ".venv").mkdir()
    with server.running(host_running(PRETENDER), Path(sys.executable), pack=pack) as comfy:
        copied = comfy.folder("custom_nodes") / "q-sched"
        assert sorted(path.name for path in copied.iterdir()) == ["__init__.py"]


def test_a_server_that_ends_at_once_shows_its_log(host_running):
    host = host_running("import sys; print('no module named torch'); sys.exit(3)")
    with pytest.raises(server.ServerError, match=r"(?s)status 3 before it was ready.*no module named torch"):
        with server.running(host, Path(sys.executable), pack=None):
            pass


def test_a_pack_that_does_not_load_is_an_error(host_running, pack):
    line = "   0.0 seconds (IMPORT FAILED): /x/custom_nodes/q-sched"
    host = host_running(f"print({line!r})\n{textwrap.dedent(PRETENDER)}")
    with pytest.raises(server.ServerError, match=r"could not load the pack: 0.0 seconds \(IMPORT FAILED\)"):
        with server.running(host, Path(sys.executable), pack=pack):
            pass
