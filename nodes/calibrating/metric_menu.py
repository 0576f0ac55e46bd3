"""The metrics that menus offer, from the files that are there."""

from __future__ import annotations

from ...calibration.metrics.alignment import AQMap
from ...calibration.metrics.catalog import Entry, catalog
from ...calibration.metrics.preference import HPSv21
from ..host.folders import metric_folders, metric_roots

DEMO = "demo"
"""The demo's own nets."""

NEAR = "nearness to the reference"
"""No net at all: the picture that is right is known, as in restoration."""


def metric_names() -> list[str]:
    """Ready pairs, from the files in ``models/qsched_metrics``: the paper's for SD1.5 (CLIPScore + CLIP-IQA) of every
    open_clip model, by its folder's name; its pair for SDXL and FLUX (AQ-Map + HPSv2.1) where both are there; the
    demo's own nets; and the distance to the reference's pictures."""
    return [*metric_folders(), *paper_sdxl(), DEMO, NEAR]


def paper_sdxl() -> dict[str, tuple[str, str]]:
    """(TC, IQ) by what the menu says."""
    entries = catalog(metric_roots())
    if HPSv21.name not in entries:
        return {}
    maps = [name for name, entry in entries.items() if entry.metric is AQMap]
    return {f"{name} + {HPSv21.name}": (name, HPSv21.name) for name in maps}


def metric_entries(role: str) -> dict[str, Entry]:
    """What can be scored with the files in ``models/qsched_metrics``, by name."""
    return {name: entry for name, entry in catalog(metric_roots()).items() if role in entry.roles}
