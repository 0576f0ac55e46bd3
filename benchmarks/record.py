"""Keeps a benchmark's last result as JSON beside it, with machine, versions, date and the demo it was made on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from functools import cache
from pathlib import Path

from demo import files

FOLDER = Path(__file__).parent / "results"


def earlier(name: str) -> dict:
    """The result that is kept, for a benchmark that measures a part of it anew; empty where there is none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def earlier_of_demo(name: str, key: str) -> dict:
    """What is kept under ``key``; empty where it was measured on another demo than the one that lies here."""
    result = earlier(name)
    return result.get(key, {}) if result.get("ran_on", {}).get("demo") == demo_hash() else {}


def record(name: str, result: dict, on_demo: bool = False) -> None:
    """Write ``results/<name>.json`` and print it; one measured on the demo's nets (``on_demo``) says on which."""
    import torch

    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **({"demo": demo_hash()} if on_demo else {}),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    text = json.dumps({**result, "ran_on": facts}, indent=2)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


@cache
def demo_hash() -> str:
    """Which demo model lies here: the beginning of its file's SHA-256."""
    return hashlib.sha256(files.MODEL.read_bytes()).hexdigest()[:12]
