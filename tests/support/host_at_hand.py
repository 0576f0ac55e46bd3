"""The ComfyUI that tests run on."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.host import Host, HostError, host_at, local_host


def host_at_hand() -> Host:
    """`QSCHED_HOST_PATH` (set by `scripts/dev.py test`), else the one that is found here."""
    path = os.environ.get("QSCHED_HOST_PATH")
    host_here = host_at(Path(path), "QSCHED_HOST_PATH") if path else local_host()
    if host_here is None:
        raise HostError("There is no ComfyUI to test on. Run `make env`, or set COMFYUI_PATH.")
    return host_here
