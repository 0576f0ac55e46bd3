"""A server that is started again while the page is open and a calibration runs."""

from __future__ import annotations

import sys
from pathlib import Path

from module_files import beside

from scripts import server as comfyui
from scripts.browser import open_page, wait_for

common = beside(__file__, "test_page")
MANY = f"""() => {{
  ({common.FIND})({common.CALIBRATE}).widgets.find(w => w.name === "trials").value = 60;
}}"""


def test_nothing_is_shown_as_running_after_it_and_the_next_run_goes_on_with_what_there_was(host, browser, tmp_path):
    python = Path(sys.executable)
    with comfyui.running(host, python, base=tmp_path) as first:
        page = open_page(browser, first, {"Comfy.VueNodes.Enabled": False})
        common.load(page, seed=31)
        page.evaluate(MANY)
        common.run(page)
        points = int(common.wait_for_points(page, 4)["points"])
    with comfyui.running(host, python, base=tmp_path, port=first.port):
        wait_for(page, f"id => ({common.DATA})([id, 'qsched_map'])?.running === 'no'", arg=common.CALIBRATE)
        assert int(common.drawn(page, common.CALIBRATE)["points"]) >= points
        common.run(page)
        wait_for(page, f"id => ({common.DATA})([id, 'qsched_map'])?.running === 'yes'", arg=common.CALIBRATE)
        assert int(common.wait_for_points(page, points + 1)["points"]) > points
        page.close()
