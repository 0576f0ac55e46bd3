"""ComfyUI's page in the Chromium that the system has: no browser is downloaded. Needs playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import DevError
from .server import Server

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
SECONDS = 120_000
"""How long a page may take for anything, in its own milliseconds: the machine may be busy."""

QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.VersionCompatibility.DisableWarnings": True,
}
"""Settings without which the page talks about itself."""

WINDOW = {"width": 1800, "height": 1100}
"""Of a page, in pixels."""

READY = "window.app?.extensionManager?.workflow?.activeWorkflow?.changeTracker && app.canvas && app.graph"
"""The page has loaded its own first workflow: on a busy machine that comes late, and would take the place of ours."""


LOOK_MS = 200
"""Between two looks of `wait_for`. playwright alone looks at every frame: Chromium then draws sixty a second, without a
GPU on the cores that the server computes on, and what is read of a canvas is read as often."""


STILL = """(() => {
  window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 100);
  window.cancelAnimationFrame = clearTimeout;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("*, ::before, ::after { animation: none !important; transition: none !important }");
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
})()"""
"""Run in a page before its own scripts: ten frames a second and nothing that moves by itself. While a graph runs the
host's page moves all the time, and to draw that without a GPU took as much of the cores as the graph."""


class NoBrowser(DevError):
    """playwright or Chromium is missing; the text says how to get it."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser, as playwright has it.

    Raises:
        NoBrowser: there is none on this machine.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise NoBrowser("playwright is not installed (requirements-dev.txt)") from error
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise NoBrowser("there is no Chromium on this machine (apt-get install chromium fonts-liberation)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        running.close()


def open_page(
    browser: Any,
    comfy: Server,
    settings: Mapping[str, object],
    watch: Callable[[Any], None] = lambda page: None,
    **options: Any,
) -> Any:
    """A page of the server that is ready to be used, with the user's ``settings`` beside QUIET. ``watch`` is called
    with it before it is loaded; ``options`` are those of playwright's ``new_page``."""
    page = browser.new_page(**{"viewport": WINDOW, **options})
    page.set_default_timeout(SECONDS)
    page.add_init_script(STILL)
    watch(page)
    set_settings(comfy, {**QUIET, **settings})
    page.goto(comfy.client.base_url)
    wait_for(page, READY)
    return page


def set_settings(comfy: Server, settings: Mapping[str, object]) -> None:
    """The host's settings of a user: a page has them when it is loaded."""
    for name, value in settings.items():
        comfy.client.post(f"/api/settings/{name}", value)


def wait_for(page: Any, expression: str, arg: Any = None) -> Any:
    """A handle of what ``expression`` gives in the page, once that is true for JavaScript."""
    return page.wait_for_function(expression, arg=arg, polling=LOOK_MS)
