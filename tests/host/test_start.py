"""What ComfyUI's start loads of the pack: nodes' schemas and addresses, not the work behind them."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
MOST_FILES = 70
"""58 today, at a third of a millisecond each; 163 before their work was imported where it is done."""

WORK = (
    "calibration.plots",
    "calibration.search",
    "calibration.study",
    "calibration.validate",
    "demo",
    "nodes.calibrating.generator",
    "nodes.calibrating.run",
    "nodes.environment",
    "nodes.library.files",
    "nodes.quantization.twin_model",
    "nodes.sampling.driver",
    "nodes.voting.ballots",
    "qsched_core.preset",
    "qsched_core.quant.layers",
    "qsched_core.quant.quantizer",
    "qsched_core.samplers",
)
"""Rooms and files that only a run, or a page's question, needs."""


@pytest.fixture
def loaded(pack, monkeypatch):
    """Names of modules that a second copy of the pack loads as the host loads it, schemas included."""
    folders = pack("nodes.host.folders").folder_paths
    monkeypatch.setattr(folders, "folder_names_and_paths", dict(folders.folder_names_and_paths))
    name = "qsched_start"
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    door = importlib.util.module_from_spec(spec)
    sys.modules[name] = door
    try:
        spec.loader.exec_module(door)
        extension = asyncio.run(door.comfy_entrypoint())
        sys.modules[f"{name}.nodes.host.folders"].register_folders()
        for node in asyncio.run(extension.get_node_list()):
            node.GET_SCHEMA()
        yield {module[len(name) + 1 :] for module in sys.modules if module.startswith(f"{name}.")}
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]


def test_a_start_loads_schemas_and_addresses_and_no_work(loaded):
    """Regression: a start loaded all 163 files, 70 ms that a graph without our nodes paid as well."""
    work = {module for module in loaded if any(module == name or module.startswith(f"{name}.") for name in WORK)}
    assert "nodes.quantize_model" in loaded and "nodes.library.routes" in loaded
    assert work == set()
    assert len(loaded) <= MOST_FILES, sorted(loaded)


ADDRESSES = {
    "GET /qsched/arena", "GET /qsched/curve", "GET /qsched/history", "GET /qsched/presets/picture",
    "POST /qsched/arena/vote", "POST /qsched/presets", "POST /qsched/presets/delete", "POST /qsched/presets/import",
    "POST /qsched/presets/names", "POST /qsched/presets/rename", "POST /qsched/presets/undo",
}  # fmt: skip


def test_a_start_gives_the_server_every_address(pack, monkeypatch, tmp_path):
    import server

    folders = pack("nodes.host.folders").folder_paths
    copies = {name: (list(paths), set(suffixes)) for name, (paths, suffixes) in folders.folder_names_and_paths.items()}
    monkeypatch.setattr(folders, "folder_names_and_paths", copies)
    monkeypatch.setattr(folders, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(folders, "user_directory", str(tmp_path / "user"))
    routes = web.RouteTableDef()
    monkeypatch.setattr(server.PromptServer, "instance", SimpleNamespace(routes=routes), raising=False)
    asyncio.run(pack("nodes").QSchedExtension().on_load())
    assert {f"{route.method} {route.path}" for route in routes} == ADDRESSES
    assert str(tmp_path / "models" / "qsched_presets") in folders.get_folder_paths("qsched_presets")


def test_every_name_of_work_is_a_file_or_room():
    """A list of names that nothing has any more would prove nothing."""
    paths = [ROOT / name.replace(".", "/") for name in WORK]
    assert [path for path in paths if not path.is_dir() and not path.with_suffix(".py").is_file()] == []
