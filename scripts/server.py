"""A real ComfyUI server with the pack in it, on a free port and a base directory of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from . import processes
from .client import Client, ServerUnreachable
from .errors import DevError
from .host import Host
from .layout import PACK_NAME, ROOT

FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
CPU = ("--cpu",)
FLAGS = ("--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:")
# About 9 s on an idle machine; the first start on a cold disk reads gigabytes of libraries.
START_SECONDS = 300.0
LOG_TAIL_LINES = 60
NOT_COPIED = (".git", ".venv", ".cache", "output", "__pycache__", ".pytest_cache", ".ruff_cache")


class ServerError(DevError):
    """The server did not start, or did not load the pack. The message ends with the tail of its log."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    host: Host
    base: Path
    log_path: Path
    port: int
    process: subprocess.Popen = field(repr=False)
    client: Client = field(repr=False)

    def log_text(self) -> str:
        """Everything that the server has printed so far."""
        return self.log_path.read_text("utf-8", "replace")

    def folder(self, name: str) -> Path:
        """One of the folders in the base directory: "input", "output", "models", …"""
        return self.base / name


@contextmanager
def running(
    host: Host,
    python: Path,
    *,
    pack: Path | None = ROOT,
    extra_packs: Sequence[Path] = (),
    base: Path | None = None,
    log_path: Path | None = None,
    port: int | None = None,
    flags: Sequence[str] = CPU,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """Start `host` with `python` and stop it at the end, whatever happens.

    Without `base` everything that the server writes is thrown away at the end. `pack` is linked into its custom_nodes,
    and so are `extra_packs`, under their own names.
    `flags` are ComfyUI's own, `env` is added to the environment.
    Raises ServerError when the server does not start or the pack does not load.
    """
    with _base_directory(base) as folder:
        if pack is not None:
            _put_in(pack, folder / "custom_nodes" / PACK_NAME)
        for extra in extra_packs:
            _put_in(extra, folder / "custom_nodes" / extra.name)
        log = log_path or folder / "server.log"
        own_port = port or _free_port()
        with log.open("wb") as sink:
            process = _start(host, [python, *_arguments(host, folder, own_port), *flags], sink, env)
            try:
                server = Server(host, folder, log, own_port, process, Client(f"http://127.0.0.1:{own_port}"))
                _wait_until_ready(server)
                _require_loaded_packs(server)
                yield server
            finally:
                processes.stop(process)


@contextmanager
def _base_directory(folder_path: Path | None) -> Iterator[Path]:
    if folder_path is not None:
        yield _furnished(folder_path)
        return
    with tempfile.TemporaryDirectory(prefix="q-sched-server-") as folder:
        yield _furnished(Path(folder).resolve())


def _furnished(folder: Path) -> Path:
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def _put_in(pack: Path, place: Path) -> None:
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    try:
        place.symlink_to(pack, target_is_directory=True)
    except OSError:  # Windows allows links only to administrators and in developer mode
        shutil.copytree(pack, place, ignore=shutil.ignore_patterns(*NOT_COPIED))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _arguments(host: Host, base: Path, port: int) -> list[str | Path]:
    return [host.path / "main.py", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", base, *FLAGS]


def _start(host: Host, command: Sequence[str | Path], log: BinaryIO, more: Mapping[str, str]) -> subprocess.Popen:
    # Unbuffered, so that the log is complete when the process is stopped; UTF-8 on every system.
    # PASSIVE: threads that wait for work by spinning starve whatever else runs on a small machine.
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **more}
    words = [str(word) for word in command]
    return subprocess.Popen(words, cwd=host.path, env=env, stdout=log, stderr=subprocess.STDOUT)


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(server):
        if server.process.poll() is not None:
            raise _error(server, f"The server ended with status {server.process.returncode} before it was ready.")
        if time.monotonic() > deadline:
            raise _error(server, f"The server did not answer within {START_SECONDS:g} s.")
        time.sleep(0.2)


def _answers(server: Server) -> bool:
    try:
        server.client.system_stats(timeout=5)
    except ServerUnreachable:
        return False
    return True


def _require_loaded_packs(server: Server) -> None:
    # The host goes on without a pack that failed to import, and so would every later error message.
    failed = [line for line in server.log_text().splitlines() if "(IMPORT FAILED)" in line]
    if failed:
        raise _error(server, f"ComfyUI could not load the pack: {failed[0].strip()}")


def _error(server: Server, what: str) -> ServerError:
    tail = "\n".join(server.log_text().splitlines()[-LOG_TAIL_LINES:])
    return ServerError(f"{what}\n--- end of its log ---\n{tail}")
