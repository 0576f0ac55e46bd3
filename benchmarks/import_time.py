"""What the pack adds to ComfyUI's start: ``python -m benchmarks.import_time`` in the environment of ``make env``.

Each run is a fresh process in which ComfyUI is loaded first as its main.py does it, with its server and its own nodes;
then the pack and all its nodes. Modules are compiled before, as on every start but the first. Seconds of the processor
are counted; where hyperthreads are shared, other work on the machine lengthens them all the same.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.host import local_host

from .record import record

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
MOST_MS = 60

_CODE = """
import asyncio, importlib.util, json, sys, time
sys.path.insert(0, {host!r}); sys.argv = ["main.py", "--cpu", "--disable-api-nodes"]
began = time.process_time()
import comfy.options; comfy.options.enable_args_parsing()
import nodes, server
loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop); server.PromptServer(loop)
loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
host = time.process_time() - began
began = time.process_time()
spec = importlib.util.spec_from_file_location("pack", {door!r}, submodule_search_locations=[{root!r}])
pack = importlib.util.module_from_spec(spec); sys.modules["pack"] = pack; spec.loader.exec_module(pack)
door = time.process_time() - began
extension = loop.run_until_complete(pack.comfy_entrypoint()); loop.run_until_complete(extension.on_load())
schemas = [node.GET_SCHEMA() for node in loop.run_until_complete(extension.get_node_list())]
seconds = time.process_time() - began
print(json.dumps([host, door, seconds, sum(name.partition(".")[0] == "pack" for name in sys.modules)]))
"""


def main() -> None:
    host = local_host()
    if host is None:
        raise SystemExit("There is no ComfyUI. Run `make env`, or set COMFYUI_PATH.")
    code = _CODE.format(host=str(host.path), door=str(ROOT / "__init__.py"), root=str(ROOT))
    runs = []
    with tempfile.TemporaryDirectory(prefix="q-sched-import-") as compiled:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(RUNS + 1):  # the first compiles
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    own, door, all_nodes, files = (statistics.median(column) for column in zip(*runs[1:], strict=True))
    record(
        "import_time",
        {
            "host_ms": round(1000 * own, 1),
            "door_ms": round(1000 * door, 2),
            "pack_with_all_nodes_ms": round(1000 * all_nodes, 1),
            "pack_to_host": round(all_nodes / own, 4),
            "files_loaded": int(files),
            "allowed_ms": MOST_MS,
            "runs": RUNS,
        },
    )


if __name__ == "__main__":
    main()
