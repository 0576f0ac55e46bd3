"""A real ComfyUI with the pack in it, and a page of it in a headless Chromium."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts import server as comfyui
from scripts.browser import NoBrowser, chromium
from scripts.browser import open_page as visit
from scripts.host import HostError, host_at, local_host
from scripts.layout import ROOT

SHOTS = ROOT / "output" / "screenshots"


@pytest.fixture(scope="session")
def browser() -> Iterator:
    with ExitStack() as stack:
        try:
            running = stack.enter_context(chromium())
        except NoBrowser as error:
            pytest.skip(str(error))
        yield running


@pytest.fixture(scope="session")
def server(browser) -> Iterator[comfyui.Server]:
    named = os.environ.get("QSCHED_HOST_PATH")
    host = host_at(Path(named), "QSCHED_HOST_PATH") if named else local_host()
    if host is None:
        raise HostError("There is no ComfyUI to test on. Run `make env`, or set COMFYUI_PATH.")
    with comfyui.running(host, Path(sys.executable)) as running:
        yield running


@pytest.fixture
def open_page(server, browser, request) -> Iterator[Callable]:
    """``open_page(nodes_2=…)``: a page in one of the host's renderers. An error of ours on it fails the test.

    How it looked at the end is kept in ``output/screenshots``.
    """
    opened, errors = [], []

    def watch(page):
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.text.startswith("Q-Sched:") else None)

    def open_one(*, nodes_2: bool):
        settings = {"Comfy.VueNodes.Enabled": nodes_2, "Comfy.ColorPalette": "dark"}
        return visit(browser, server, settings, watch)

    yield open_one
    for number, page in enumerate(opened):
        page.screenshot(path=SHOTS / f"{request.node.name} {number}.png")
        page.close()
    assert errors == []
