"""ComfyUI inside the test process, and the pack in it under a name of its own, as the host's loader does it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PACK = "qsched_pack_under_test"


def import_host(path: Path) -> None:
    """Put the host first on sys.path, as its own main.py is, and import it for the CPU."""
    if "comfy.samplers" in sys.modules:
        return
    sys.path.insert(0, str(path))
    arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the host's own imports warn; ours are checked apart from them
            # First, as main.py does: older hosts then put comfy/ on the path, in which `utils` is another module.
            importlib.import_module("utils")
            importlib.import_module("comfy.options").enable_args_parsing()
            for name in ("comfy.samplers", "comfy.sd", "comfy.sample", "folder_paths", "nodes", "comfy_api.latest"):
                importlib.import_module(name)
    finally:
        sys.argv = arguments


def pack(name: str) -> ModuleType:
    """A module of the pack, for example ``nodes.sampling.patch``."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{PACK}.{name}")
