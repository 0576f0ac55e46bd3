"""What can be scored with the files on this disk, and the pairs that the paper uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from .alignment import AQMap
from .base import WATCH, Metric
from .clip import ClipIQA, ClipScore
from .open_clip_network import CONFIG, WEIGHTS
from .preference import HPSv21, PickScore
from .pyiqa import WITHOUT_WEIGHTS, PyIQA

PAPER_SD15 = (ClipScore, ClipIQA)
"""(TC, IQ) of the paper's LCM and PCM runs."""

PAPER_SDXL = (AQMap, HPSv21)
"""(TC, IQ) of its SDXL-Turbo and FLUX runs."""


@dataclass(frozen=True)
class Entry:
    """A metric that can be loaded. ``bytes`` is the size of its weights on the disk, which a folder's entries share."""

    name: str
    metric: type[Metric]
    bytes: int
    load: Callable[[], Metric]

    @property
    def roles(self) -> tuple[str, ...]:
        """What it is made for, then what anything can be: watched."""
        return (self.metric.role, WATCH)

    @property
    def license(self) -> str:
        return self.metric.license


def catalog(roots: Iterable[Path]) -> dict[str, Entry]:
    """Every metric of the folders in ``roots``, by name; the first of a name wins. Nothing is loaded.

    Known are folders of open_clip models (CLIPScore, CLIP-IQA, and AQ-Map for vision transformers), the published file
    of HPSv2.1 in any folder, and those of PickScore in a folder whose name begins so; with pyiqa installed, its metrics
    without weights too. A broken file is listed all the same, and its ``load`` says what is wrong.
    """
    entries: dict[str, Entry] = {}
    for root in roots:
        for folder in sorted(path for path in root.glob("*") if path.is_dir()):
            for entry in (*_of_open_clip(folder), *_published(folder)):
                entries.setdefault(entry.name, entry)
    if find_spec("pyiqa") is not None:
        for name in WITHOUT_WEIGHTS:
            entries[f"pyiqa {name}"] = Entry(f"pyiqa {name}", PyIQA, 0, partial(PyIQA, name))
    return entries


def _of_open_clip(folder: Path) -> Iterator[Entry]:
    if not (folder / CONFIG).is_file():
        return
    size = next(((folder / name).stat().st_size for name in WEIGHTS if (folder / name).is_file()), 0)
    kinds = {"CLIPScore": ClipScore, "CLIP-IQA": ClipIQA} | ({"AQ-Map": AQMap} if _is_transformer(folder) else {})
    for name, metric in kinds.items():
        yield Entry(f"{name} ({folder.name})", metric, size, partial(metric.open, folder))


def _is_transformer(folder: Path) -> bool:
    try:
        vision = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["vision_cfg"]
        return "timm_model_name" not in vision and isinstance(vision.get("layers", 12), int)  # ResNets have a list
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return False


def _published(folder: Path) -> Iterator[Entry]:
    for metric in (HPSv21, PickScore):
        file = next((folder / name for name in metric.files if (folder / name).is_file()), None)
        if file and (metric is HPSv21 or folder.name.lower().startswith("pickscore")):
            yield Entry(metric.name, metric, file.stat().st_size, partial(metric, file))
