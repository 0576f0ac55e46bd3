"""Keeps a benchmark's last result as JSON beside it, with machine, versions and date."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

FOLDER = Path(__file__).parent / "results"


def earlier(name: str) -> dict:
    """The result that is kept, for a benchmark that measures a part of it anew; empty where there is none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def record(name: str, result: dict) -> None:
    """Write ``results/<name>.json`` and print it."""
    import torch

    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    text = json.dumps({**result, "ran_on": facts}, indent=2)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
