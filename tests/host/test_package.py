"""The package as the registry gets it, unpacked into a ComfyUI that has nothing else."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from scripts import package


def test_it_loads_once_without_a_word_has_the_promised_nodes_and_runs(host, tmp_path):
    built = package.build(tmp_path / "q-sched.zip")
    assert package.try_out(built.path, host, Path(sys.executable)) == []


def test_a_file_that_is_missing_shows(host, tmp_path, monkeypatch):
    """The trial itself can fail: a package without its pages, and with a module that two names lead to."""
    # Without the environment check, which takes as long as a start and has no part in these two.
    graph = {key: node for key, node in package.small_graph().items() if node["class_type"] != "QSchedCheck"}
    monkeypatch.setattr(package, "small_graph", lambda: graph)
    built, poorer = package.build(tmp_path / "q-sched.zip"), tmp_path / "poorer.zip"
    with zipfile.ZipFile(built.path) as archive, zipfile.ZipFile(poorer, "w") as copy:
        for name in archive.namelist():
            if name not in ("web/qsched.js", "nodes/demo_model.py"):
                copy.writestr(name, archive.read(name))
        door = "\nimport sys\nfrom pathlib import Path\nsys.path.append(str(Path(__file__).parents[1]))"
        door += "\nimport qsched_core.errors\n"
        with copy.open("nodes/demo_model.py", "w") as file:
            file.write(archive.read("nodes/demo_model.py") + door.encode())
    faults = package.try_out(poorer, host, Path(sys.executable))
    assert [fault for fault in faults if "the page does not get qsched.js" in fault]
    assert [fault for fault in faults if "errors.py was imported 2 times" in fault]
