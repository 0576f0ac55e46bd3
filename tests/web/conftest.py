"""A real ComfyUI with the pack in it, and a page of it in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import server as comfyui
from scripts.host import HostError, host_at, local_host
from scripts.layout import ROOT

SHOTS = ROOT / "output" / "screenshots"

SECONDS = 120_000
"""How long a page may take for anything, in its own milliseconds: the machine may be busy."""

QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.VersionCompatibility.DisableWarnings": True,
}
READY = "window.app?.extensionManager && app.canvas && app.graph"


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Chromium as the system has it: no browser is downloaded."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-dev.txt)")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine (apt-get install chromium fonts-liberation)")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=flags)
        yield running
        running.close()


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

    def open_one(*, nodes_2: bool):
        page = browser.new_page(viewport={"width": 1800, "height": 1100})
        opened.append(page)
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.text.startswith("Q-Sched:") else None)
        for name, value in {**QUIET, "Comfy.VueNodes.Enabled": nodes_2, "Comfy.ColorPalette": "dark"}.items():
            assert page.request.post(f"{server.client.base_url}/api/settings/{name}", data=value_of(value)).ok
        page.goto(server.client.base_url)
        page.wait_for_function(READY)
        return page

    yield open_one
    for number, page in enumerate(opened):
        page.screenshot(path=SHOTS / f"{request.node.name} {number}.png")
        page.close()
    assert errors == []


def value_of(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
