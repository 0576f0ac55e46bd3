"""A real ComfyUI with the pack in it, and a page of it in a headless Chromium."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from host_at_hand import host_at_hand

from scripts import server as comfyui
from scripts.browser import WINDOW, NoBrowser, chromium, set_settings
from scripts.browser import open_page as visit
from scripts.front_ends import NEWEST, OWN, front_end
from scripts.host import Host
from scripts.layout import NEWER_NODES, ROOT

SHOTS = ROOT / "output" / "screenshots"
PAUSE_NODE = Path(__file__).with_name("pause_node")
USERS_CHOICE = os.environ.get("QSCHED_FRONT_ENDS")
FRONT_ENDS = (USERS_CHOICE or f"{OWN} {NEWEST}").split()
"""What the tests marked `front_ends` run in; the others run in the first one."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "front_ends: run in every front end, because the host's page differs there")
    config.addinivalue_line("markers", "newest: runs in the newest front end; a run of its own in the whole command")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("front_ends")
        names = FRONT_ENDS if marked else FRONT_ENDS[:1]
        metafunc.parametrize("server", names, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Unless front ends are named, what runs in both of them has the classic renderer in the host's own and Nodes 2.0
    in the newest: tests of a page are the longest of all. `make browsers` runs all pairs."""
    for item in items:
        if _pair(item)[0] == NEWEST:
            item.add_marker("newest")
    if USERS_CHOICE:
        return
    two = [item for item in items if item.get_closest_marker("front_ends")]
    left_out = [item for item in two if _pair(item) in ((OWN, True), (NEWEST, False))]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _pair(item: pytest.Item) -> tuple:
    """(front end, whether in Nodes 2.0); None for what a test does not depend on."""
    values = item.callspec.params if hasattr(item, "callspec") else {}
    return values.get("server"), values.get("nodes_2")


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
    with comfyui.running(host, python, flags=flags, extra_packs=[NEWER_NODES, PAUSE_NODE]) as running:
        yield running


AS_NEW = """async () => {
  const { workflow: flows, sidebarTab: sidebar } = app.extensionManager;
  if (sidebar.activeSidebarTabId) sidebar.toggleSidebarTab(sidebar.activeSidebarTabId);
  await app.loadGraphData(); // the host's own first one
  for (const one of [...flows.openWorkflows]) if (one !== flows.activeWorkflow) await flows.closeWorkflow(one);
  [app.canvas.ds.scale, app.canvas.ds.offset] = [1, [0, 0]];
}"""
"""A page that a test has used shows again what a new one shows."""

PAUSE = """() => {
  const { requestAnimationFrame } = window, frames = [];
  window.requestAnimationFrame = draw => frames.push(draw);
  window.qschedResume = () => {
    window.requestAnimationFrame = requestAnimationFrame;
    for (const draw of frames) requestAnimationFrame(draw);
  };
}"""
"""A page that no test uses draws nothing: each would take a tenth of a core."""


class OpenPages:
    """Pages of one server, and what went wrong on each. A page is handed on from test to test of the same settings: to
    load one takes longer than most tests."""

    def __init__(self, browser, server: comfyui.Server):
        self.browser, self.server = browser, server
        self.errors: dict[object, list[str]] = {}
        self.waiting: dict[tuple, object] = {}
        """By settings: the page that no test uses now."""

    def open(self, settings: Mapping[str, object], *, fresh: bool = False):
        """A page; ``fresh``: that no test has used. `settings` are the host's. One that is handed on has one tab, as a
        new one: the host's first workflow."""
        page = None if fresh else self.waiting.pop(tuple(settings.items()), None)
        if page is None:
            return visit(self.browser, self.server, settings, self._watch)
        set_settings(self.server, settings)  # another page has changed them, and this one may be reloaded
        page.evaluate("() => qschedResume()")
        return page

    def _watch(self, page) -> None:
        errors = self.errors[page] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.text.startswith("Q-Sched:") else None)

    def keep(self, page, settings: Mapping[str, object]) -> None:
        """For the next test that wants such a page."""
        page.keyboard.press("Escape")  # a dialog of the host
        page.set_viewport_size(WINDOW)
        page.evaluate(AS_NEW)
        page.evaluate(PAUSE)
        self.waiting[tuple(settings.items())] = page

    def close(self, page) -> None:
        del self.errors[page]
        page.close()


@pytest.fixture(scope="session")
def pages(server, browser) -> Iterator[OpenPages]:
    """The pages of the server that runs."""
    pages = OpenPages(browser, server)
    yield pages
    for page in [*pages.errors]:
        pages.close(page)


@pytest.fixture
def open_page(pages, request) -> Iterator[Callable]:
    """``open_page(nodes_2=…)``: a page in one of the host's renderers, see `OpenPages.open`; in the one that this front
    end has a page of anyway, if it does not matter. More settings are written with a "_" for every dot:
    ``Comfy_Locale="fr"``. An error of ours on the page fails the test.

    How it looked at the end is kept in ``output/screenshots``.
    """
    own, failures = [], request.session.testsfailed
    newest = request.node.callspec.params.get("server") == NEWEST

    def open_one(*, nodes_2: bool | None = None, fresh: bool = False, **more: object):
        nodes_2 = newest if nodes_2 is None else nodes_2
        settings = {"Comfy.VueNodes.Enabled": nodes_2, "Comfy.ColorPalette": "dark", "Comfy.Locale": "en"}
        settings |= {name.replace("_", "."): value for name, value in more.items()}
        page = pages.open(settings, fresh=fresh)
        own.append((page, settings, fresh))
        return page

    yield open_one
    errors = []
    for number, (page, settings, fresh) in enumerate(own):
        page.screenshot(path=SHOTS / f"{request.node.name} {number}.png")
        errors += pages.errors[page]
        clean = not fresh and not errors and request.session.testsfailed == failures
        if clean and tuple(settings.items()) not in pages.waiting:
            pages.keep(page, settings)
        else:
            pages.close(page)
    assert errors == []
