"""What the environment check looks at, in the order of its report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import comfy.model_management
import folder_paths
from comfy.quant_ops import QUANT_ALGOS

from ...calibration.metrics.open_clip_network import import_open_clip
from ...calibration.search.guard import can_guard
from ...calibration.search.storage import STUDIES
from ...qsched_core import environment
from ...qsched_core.environment import OK, OPTIONAL, TO_DO, Line, Section
from ...qsched_core.quant import Backend, KitchenBackend, QuantoBackend, TorchBackend
from ...qsched_core.quant.backends.kitchen import W4A8
from ..host.demo_model import load_model
from ..host.folders import (
    METRICS_FOLDER,
    MODELS_FOLDER,
    PRESETS_FOLDER,
    SUFFIX,
    TEXT_ENCODERS_FOLDER,
    journal_path,
    observations_folder,
)
from ..quantization.layers import QUANTO_TWINS, TWINS
from .quick_check import SECONDS, Deadline, model_lines, product_lines

NATIVE_FORMAT = W4A8.algo


def sections(on_progress: Callable[[float], None] = lambda share: None) -> Iterator[Section]:
    """What the report is made of, in its order. ``on_progress`` gets the share of the time for measuring that is over,
    and may raise to cancel."""
    yield "ComfyUI", host
    yield "Python and torch", environment.versions
    yield "the device", compute_device
    yield "comfy-kitchen", environment.kitchen
    yield "the native layout", native_layout
    backends = (KitchenBackend(algorithms=QUANT_ALGOS.keys()), TorchBackend(TWINS), QuantoBackend(QUANTO_TWINS))
    for backend in backends:
        yield f"backend {backend.name}", partial(quantizer, backend)
    deadline = Deadline(SECONDS, on_progress)
    yield "products", partial(product_lines, backends, deadline)
    yield "a small model", partial(model_lines, load_model, deadline)
    yield "kernels", environment.kernels
    yield "packages", environment.packages
    yield "optuna", search
    yield "metrics", metrics
    yield "folders", folders
    yield "studies", studies


def host() -> Iterator[Line]:
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        version = "of an unknown version"
    try:
        frontend = metadata.version("comfyui-frontend-package")
    except metadata.PackageNotFoundError:
        frontend = "not installed as a package"
    yield Line(OK, f"ComfyUI {version}, front end {frontend}")


def compute_device() -> Iterator[Line]:
    management = comfy.model_management
    device = management.get_torch_device()
    total, free = management.get_total_memory(device), management.get_free_memory(device)
    memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    yield Line(OK, f"device {management.get_torch_device_name(device)}, {memory}")


def quantizer(backend: Backend) -> list[Line]:
    return environment.quantizer(backend, comfy.model_management.get_torch_device())


def native_layout() -> Iterator[Line]:
    if NATIVE_FORMAT in QUANT_ALGOS:
        yield Line(OK, f"native W4A8 layout: {NATIVE_FORMAT}")
    else:
        yield Line(OPTIONAL, "no native W4A8 layout. Update ComfyUI to write W4A8 files that its own loaders read")


def search() -> Iterator[Line]:
    """Silent where optuna can be imported and is new enough: its version is among the packages."""
    try:
        if not can_guard():
            fix = f"Run: {environment.pip_command()} --upgrade optuna"
            yield Line(TO_DO, f"optuna is too old to hold a search to a reference. {fix}")
    except Exception as error:  # noqa: BLE001 - a broken install fails in its own ways
        why = " ".join(str(error.__cause__ or error).split())[:120]
        fix = f"Run: {environment.pip_command()} --force-reinstall optuna"
        yield Line(TO_DO, f"optuna cannot be imported ({why}). {fix}")


def metrics() -> Iterator[Line]:
    """Silent where open_clip can be imported: every metric but pyiqa's needs it, and no TC does without."""
    try:
        import_open_clip()
    except Exception as error:  # noqa: BLE001 - a broken install fails in its own ways
        why = " ".join(str(error.__cause__ or error).split())[:120]
        fix = f"Run: {environment.pip_command()} --force-reinstall --no-deps open_clip_torch"
        yield Line(TO_DO, f"no metric can run, and nothing be calibrated: open_clip cannot be imported ({why}). {fix}")


def folders() -> Iterator[Line]:
    for name, title, suffix in (
        (PRESETS_FOLDER, "presets", SUFFIX),
        (METRICS_FOLDER, "metrics", ""),
        (MODELS_FOLDER, "quantised models", SUFFIX),
        (TEXT_ENCODERS_FOLDER, "quantised text encoders", SUFFIX),
    ):
        for number, path in enumerate(folder_paths.get_folder_paths(name)):
            yield environment.folder(title, Path(path), suffix, write=number == 0)  # others are only read
    yield environment.folder("unfinished studies", journal_path("any").parent, ".jsonl")
    yield environment.folder("observations", observations_folder(), SUFFIX)


def studies() -> Iterator[Line]:
    yield environment.storage(os.environ.get(STUDIES), STUDIES)
