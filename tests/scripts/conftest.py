"""Stand-ins for ComfyUI: a folder that looks like one, and a server that speaks its HTTP interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

MakeHost = Callable[[Path], Path]


@pytest.fixture
def make_host() -> MakeHost:
    """Makes a folder that passes for a ComfyUI."""

    def make(path: Path) -> Path:
        (path / "comfy").mkdir(parents=True)
        (path / "main.py").write_text("", "utf-8")
        (path / "requirements.txt").write_text("", "utf-8")
        (path / "comfyui_version.py").write_text('__version__ = "9.8.7"\n', "utf-8")
        return path

    return make


class FakeComfy:
    """Answers each path with what `answers` holds for it: a status and a value (bytes as they are, else JSON)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.received: list[tuple[str, object]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def comfy() -> Iterator[FakeComfy]:
    fake = FakeComfy()
    yield fake
    fake.close()


def _handler(fake: FakeComfy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fake.received.append((self.path, json.loads(body)))
            self._answer()

        def _answer(self) -> None:
            status, value = fake.answers.get(self.path, (404, "no such thing"))
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    return Handler
