"""A real ComfyUI with the pack in it, and a page of it in a headless Chromium."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from host_at_hand import host_at_hand

from scripts import server as comfyui
from scripts.browser import NoBrowser, chromium
from scripts.browser import open_page as visit
from scripts.front_ends import NEWEST, OWN, front_end
from scripts.host import Host
from scripts.layout import NEWER_NODES, ROOT

SHOTS = ROOT / "output" / "screenshots"
FRONT_ENDS = (os.environ.get("QSCHED_FRONT_ENDS") or f"{OWN} {NEWEST}").split()
"""What the tests marked `front_ends` run in; the others run in the first one."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "front_ends: run in every front end, because the host's page differs there")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("front_ends")
        names = FRONT_ENDS if marked else FRONT_ENDS[:1]
        metafunc.parametrize("server", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    with ExitStack() as stack:
        try:
            running = stack.enter_context(chromium())
        except NoBrowser as error:
            pytest.skip(str(error))
        yield running


@pytest.fixture(scope="session")
def host() -> Host:
    """The ComfyUI to test on."""
    return host_at_hand()


@pytest.fixture(scope="session")
def server(browser, host, request) -> Iterator[comfyui.Server]:
    """A running ComfyUI; its parameter is the front end that it shows."""
    python = Path(sys.executable)
    page = front_end(request.param, python)
    flags = [*comfyui.CPU, *([] if page is None else ["--front-end-root", page])]
    with comfyui.running(host, python, flags=flags, extra_packs=[NEWER_NODES]) as running:
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

    def open_one(*, nodes_2: bool, **settings: object):
        """`settings` are the host's, with a dot for every "_": ``Comfy_Locale="fr"``."""
        options = {"Comfy.VueNodes.Enabled": nodes_2, "Comfy.ColorPalette": "dark", "Comfy.Locale": "en"}
        options |= {name.replace("_", "."): value for name, value in settings.items()}
        return visit(browser, server, options, watch)

    yield open_one
    for number, page in enumerate(opened):
        page.screenshot(path=SHOTS / f"{request.node.name} {number}.png")
        page.close()
    assert errors == []
