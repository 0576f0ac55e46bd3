"""The preset of the demo model that comes with the pack: ``python -m scripts.demo_preset``, some minutes on a CPU.

It is what JAQ Calibrate finds and saves in a real ComfyUI, with its verdict, re-tuning included: the card says which it
is. The workflow is left out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from . import server
from .client import Prompt
from .demo import PRESET_FOLDER, PROMPTS_NAME, load_workflow
from .host import host_at, local_host
from .layout import DEMO_PROMPTS, DEMO_WORKFLOW, ROOT
from .workflows.parts import DEMO_PRESET

CARD = {
    "author": "Q-Sched",
    "license": "CC0-1.0",
    "notes": "For the Q-Sched Demo Model in W4A4, all layers, one scale per channel.",
    "with_workflow": False,
}


def graph() -> Prompt:
    """The demo's first search with all that it needs, and a node that saves what it finds."""
    demo = load_workflow(DEMO_WORKFLOW)
    nodes, pending = set(), ["4"]
    while pending:
        node = pending.pop()
        nodes.add(node)
        pending += [value[0] for value in demo[node]["inputs"].values() if isinstance(value, list)]
    save = {"preset": ["4", 0], "thumbnail": ["4", 2], "name": Path(DEMO_PRESET).stem, **CARD}
    return {**{node: demo[node] for node in nodes}, "save": {"class_type": "QSchedSavePreset", "inputs": save}}


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.demo_preset", description=__doc__.splitlines()[0])
    parser.add_argument("--host", type=Path, help="the ComfyUI folder; default: the one at hand")
    arguments = parser.parse_args()
    host = host_at(arguments.host, "--host") if arguments.host else local_host()
    (ROOT / "presets" / DEMO_PRESET).unlink(missing_ok=True)
    with server.running(host, Path(sys.executable)) as comfy:
        shutil.copyfile(DEMO_PROMPTS, comfy.folder("input") / PROMPTS_NAME)
        comfy.client.run(graph())
        shutil.copyfile(comfy.base / PRESET_FOLDER / DEMO_PRESET, ROOT / "presets" / DEMO_PRESET)
    print(ROOT / "presets" / DEMO_PRESET)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
