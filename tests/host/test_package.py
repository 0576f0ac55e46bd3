"""The package as the registry gets it, unpacked into a ComfyUI that has nothing else."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

from scripts import package

DOOR = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("another_name", Path(__file__).parents[1] / "qsched_core" / "errors.py")
sys.modules["another_name"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["another_name"])
"""
"""A second name that leads to a module."""


def test_it_loads_once_without_a_word_has_the_promised_nodes_and_runs(host, tmp_path):
    """But for what it was robbed of and given, so that the trial is seen to find faults: a page that is missing, and a
    module that two names lead to."""
    built, poorer = package.build(tmp_path / "q-sched.zip"), tmp_path / "poorer.zip"
    with zipfile.ZipFile(built.path) as archive, zipfile.ZipFile(poorer, "w") as copy:
        for name in archive.namelist():
            if name not in ("web/qsched.js", "nodes/demo_model.py"):
                copy.writestr(name, archive.read(name))
        copy.writestr("nodes/demo_model.py", archive.read("nodes/demo_model.py") + DOOR.encode())
    faults = package.try_out(poorer, host, Path(sys.executable))
    assert [re.sub(r"^/.*/|: \[.*", "", fault) for fault in faults] == [
        "errors.py was imported 2 times",
        "the page does not get qsched.js",
    ]
