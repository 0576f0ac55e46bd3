"""The host inside a benchmark's process, for what is measured without its server."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

from scripts.host import local_host

ROOT = Path(__file__).resolve().parent.parent


def import_host() -> None:
    """Put ComfyUI on the path and import what sampling needs; on the CPU where there is no GPU."""
    host = local_host()
    if host is None:
        raise SystemExit("There is no ComfyUI. Run `make env`, or set COMFYUI_PATH.")
    sys.path.insert(0, str(host.path))
    arguments, sys.argv = sys.argv, ["main.py", *([] if torch.cuda.is_available() else ["--cpu"])]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("comfy.sample")
    sys.argv = arguments


def import_pack() -> None:
    """The pack as the module ``pack``, the way the host loads it: under a name of its own."""
    door = ROOT / "__init__.py"
    spec = importlib.util.spec_from_file_location("pack", door, submodule_search_locations=[str(ROOT)])
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pack"])
