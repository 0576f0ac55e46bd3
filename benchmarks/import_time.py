"""What the pack adds to ComfyUI's start: ``python -m benchmarks.import_time`` in the environment of ``make env``.

Each run is a fresh process in which ComfyUI's own modules are loaded first; the ratio compares our nodes with them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from scripts.host import local_host

from .record import record

ROOT = Path(__file__).resolve().parent.parent
RUNS = 3

_CODE = """
import asyncio, importlib.util, json, sys, time
sys.path.insert(0, {host!r}); sys.argv = ["main.py", "--cpu"]
began = time.perf_counter()
import comfy.options; comfy.options.enable_args_parsing()
import nodes, comfy_api.latest
host = time.perf_counter() - began
began = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack", {door!r}, submodule_search_locations=[{root!r}])
pack = importlib.util.module_from_spec(spec); sys.modules["pack"] = pack; spec.loader.exec_module(pack)
door = time.perf_counter() - began
extension = asyncio.run(pack.comfy_entrypoint()); asyncio.run(extension.on_load())
schemas = [node.GET_SCHEMA() for node in asyncio.run(extension.get_node_list())]
print(json.dumps([host, door, time.perf_counter() - began]))
"""


def main() -> None:
    host = local_host()
    if host is None:
        raise SystemExit("There is no ComfyUI. Run `make env`, or set COMFYUI_PATH.")
    code = _CODE.format(host=str(host.path), door=str(ROOT / "__init__.py"), root=str(ROOT))
    runs = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    own, door, all_nodes = (statistics.median(column) for column in zip(*runs, strict=True))
    record(
        "import_time",
        {
            "host_ms": round(1000 * own, 1),
            "door_ms": round(1000 * door, 2),
            "pack_with_all_nodes_ms": round(1000 * all_nodes, 1),
            "pack_to_host": round(all_nodes / own, 4),
            "runs": RUNS,
        },
    )


if __name__ == "__main__":
    main()
