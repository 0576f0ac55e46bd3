"""Which presets fit the graph on the page, as far as that can be known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import eq
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.utils
import folder_paths
import torch
from safetensors import SafetensorError, safe_open

from ...demo import files as demo_files
from ...qsched_core import Mismatch
from ...qsched_core.quant import FORMATS, UNQUANTIZED, may_be, resolve_format, same_quantization
from ..host.folders import MODELS_FOLDER
from ..quantization.group_sizes import GROUPS
from .card import clean

LOADERS = {
    "UNETLoader": "diffusion_models",
    "CheckpointLoaderSimple": "checkpoints",
    "QSchedLoadQuantized": MODELS_FOLDER,
}
DEMO = "QSchedDemoModel"

_MAX_ITEMS = 200
"""Nodes of a kind that are read of a page's graph: no graph has as many, and a request may claim any number."""
_FLOAT_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Known:
    """What a model's file tells: each "" where it does not."""

    family: str = ""
    fingerprint: str = ""
    quantization: str = ""


@dataclass(frozen=True)
class Graph:
    """What the page told of its graph, all of it plain and short. ``steps``, ``sampler``, ``scheduler`` and ``cfg`` are
    the values that sampler nodes have; ``formats`` those of quantiser nodes, as a label prints them ("w4a8/g32"),
    without a scope where that is not known, "" where nothing is."""

    models: tuple[Known, ...]
    formats: tuple[str, ...]
    sampling: Mapping[str, frozenset]


def read_graph(question: object) -> Graph:
    """``{"models": [{"loader", "file"}], "quantizers": [{"format", "group_size", …}], "samplers": [{"steps", …}]}``;
    whatever is not as it should be counts as not known."""
    question = question if isinstance(question, dict) else {}
    models = [known_model(_text(item, "loader"), _text(item, "file")) for item in _items(question, "models")]
    formats = [_format(item) for item in _items(question, "quantizers")]
    samplers = list(_items(question, "samplers"))
    sampling = {
        "steps": frozenset(n for item in samplers if (n := _number(item, "steps")) is not None),
        "sampler": frozenset(filter(None, (_text(item, "sampler") for item in samplers))),
        "scheduler": frozenset(filter(None, (_text(item, "scheduler") for item in samplers))),
        "cfg": frozenset(n for item in samplers if (n := _number(item, "cfg")) is not None),
    }
    return Graph(tuple(models), tuple(formats), sampling)


@dataclass(frozen=True)
class Match:
    """``differs``: what is known not to fit. ``unknown``: what only a run can tell. Neither: it fits."""

    differs: tuple[Mismatch, ...]
    unknown: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        """None where nothing is known to differ, but the model is not known either."""
        return False if self.differs else None if "model" in self.unknown else True


def match(preset, graph: Graph) -> Match:
    """Compares as a run does (fit.mismatches), as far as the graph tells; a preset's "" and 0 fit all."""
    differences: list[Mismatch] = []
    unknown: list[str] = []
    bound = preset.binding
    for what, ours, theirs, same in (
        ("model", bound.model, [model.family for model in graph.models], eq),
        ("fingerprint", bound.fingerprint, [model.fingerprint for model in graph.models], eq),
        ("quantization", bound.quantization, *_quantizations(graph)),
    ):
        answers = [same(ours, one) if one else None for one in theirs]
        if not ours or True in answers:
            continue
        if not answers or None in answers:
            unknown.append(what)
        else:
            differences.append(Mismatch(what, clean(ours, 80), clean(", ".join(dict.fromkeys(theirs)), 80)))
    for what, ours in (
        ("steps", preset.steps),
        ("sampler", bound.sampler),
        ("scheduler", bound.scheduler),
        ("cfg", bound.cfg),
    ):
        theirs = graph.sampling[what]
        if ours and theirs and ours not in theirs:
            here = ", ".join(f"{value:g}" if isinstance(value, float) else value for value in sorted(theirs))
            differences.append(
                Mismatch(what, f"{ours:g}" if what in ("steps", "cfg") else clean(ours, 80), clean(here, 80))
            )
    return Match(tuple(differences), tuple(unknown))


def known_model(loader: str, name: str) -> Known:
    """What a loader node's file says about the model it will give."""
    if loader == DEMO:
        return _read(demo_files.MODEL, 0, True)
    folder = LOADERS.get(loader)
    full_path = folder_paths.get_full_path(folder, name) if folder and name else None
    if full_path is None:
        return Known()
    path = Path(full_path)
    try:
        return _read(path, path.stat().st_mtime_ns, loader != "QSchedLoadQuantized")
    except OSError:
        return Known()


@lru_cache(maxsize=64)
def _read(path: Path, _mtime_ns: int, stock: bool) -> Known:
    if path.suffix.lower() != ".safetensors":
        return Known()
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if not stock:
                return Known(*(clean(about.get(key, ""), 200) for key in ("model", "fingerprint", "quantization")))
            pieces = {name: file.get_slice(name) for name in file.keys()}
            kinds = {name: (piece.get_dtype(), piece.get_shape()) for name, piece in pieces.items()}
    except (OSError, SafetensorError):
        return Known()
    network = _network(kinds)
    if any(kind not in _FLOAT_TYPES for kind, _ in network.values()):
        return Known()  # packed weights have other shapes than the model that they are
    shapes = {
        name: torch.empty(shape, dtype=_FLOAT_TYPES[kind], device="meta") for name, (kind, shape) in network.items()
    }
    family = _family(shapes)
    return Known(family, quantization=UNQUANTIZED if family else "")


def _network(kinds: dict[str, tuple]) -> dict[str, tuple]:
    """The diffusion model's part of a file, under its own names."""
    prefix = comfy.model_detection.unet_prefix_from_state_dict(kinds)
    inner = {name.removeprefix(prefix): kind for name, kind in kinds.items() if name.startswith(prefix)}
    return inner or kinds


def _family(shapes: dict[str, torch.Tensor]) -> str:
    """The class that the host will take, in the words a preset is bound by; as its own loader finds it."""
    detection = comfy.model_detection
    try:
        config = detection.model_config_from_unet(shapes, "")
        if config is None:
            diffusers = detection.convert_diffusers_mmdit(shapes, "")
            if diffusers is None:
                config = detection.model_config_from_diffusers_unet(shapes)
            else:
                config = detection.model_config_from_unet(diffusers, "")
    except Exception:  # noqa: BLE001 - made for tensors with values; whatever it misses here, the run will tell
        return ""
    return "" if config is None else type(config).__name__


def _quantizations(graph: Graph) -> tuple[list[str], Callable[[str, str], bool | None]]:
    """(What may be there, how a preset's label is compared with it)."""
    if not graph.formats:
        return [model.quantization for model in graph.models], same_quantization
    # Several, one after the other, are what only a run can tell.
    return [graph.formats[0]] if len(graph.formats) == 1 else [""], _may_be


def _may_be(label: str, format: str) -> bool | None:
    name, _, scope = format.partition("/")
    return may_be(label, name, scope)


def _format(item: dict) -> str:
    """What a quantiser node writes: "w4a8/g32"."""
    name, group = _text(item, "format"), _text(item, "group_size")
    if name not in FORMATS:
        return ""
    if group not in GROUPS or _text(item, "recipe") != "compact" or not _text(item, "scales"):
        return name  # stock gives some layers another format, depending on their width
    return str(resolve_format(name, GROUPS[group], _text(item, "scales") != "asymmetric"))


def _items(question: dict, key: str) -> Iterable[dict[str, Any]]:
    items = question.get(key)
    return (item for item in (items if isinstance(items, list) else [])[:_MAX_ITEMS] if isinstance(item, dict))


def _text(item: dict, key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) and len(value) <= 400 else ""


def _number(item: dict, key: str) -> float | None:
    value = item.get(key)
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e6 else None
