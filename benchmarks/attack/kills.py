"""SIGKILL at any moment of a save: a file is the old one, the new one or not there, and never empty."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import qsched_core as qs
from qsched_core import PresetError, QuantizationError, atomic, load_preset
from qsched_core.quant import load_quantized, quantize, save_quantized

from .tally import Tally

KILLS = 100
"""Of each way of writing."""
LONGEST = 0.03
"""Seconds until the kill: a save takes 2 to 10 ms."""


def run() -> Tally:
    tally, draw = Tally(), random.Random(0)
    torch.set_num_threads(1)  # a forked process has none of the threads
    network = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 512))
    quantize(network, "w4a8", include=("*",))
    preset = qs.Preset(
        qs.Coefficients.identity(900), tuple(900.0 - i for i in range(901)), record={"x": ["y" * 90] * 3000}
    )
    content = qs.encode_preset(preset)

    def replace(folder: Path, _number: int) -> None:
        qs.save_preset(preset, folder / "a.safetensors")

    def create(folder: Path, number: int) -> None:
        with atomic.creating(folder / f"{number}.safetensors") as temporary:
            atomic.write_new(temporary, content)

    def model(folder: Path, _number: int) -> None:
        save_quantized(network, folder / "m.safetensors")

    for write in (replace, create, model):
        with tempfile.TemporaryDirectory() as place:
            for _ in range(KILLS):
                _kill(write, Path(place), draw.uniform(0.0, LONGEST))
                _look(Path(place), write.__name__, tally)
    return tally


def _kill(write: Callable[[Path, int], None], folder: Path, after: float) -> None:
    context = multiprocessing.get_context("fork")
    started = context.Event()

    def loop() -> None:
        started.set()
        for number in itertools.count():
            write(folder, number)

    process = context.Process(target=loop)
    process.start()
    started.wait()
    time.sleep(after)
    process.kill()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the writer ended by itself, with status {process.exitcode}")


def _look(folder: Path, way: str, tally: Tally) -> None:
    left = [path for path in folder.iterdir() if path.name.startswith(".")]
    old = time.time() - 2 * atomic.ABANDONED_SECONDS
    for path in (*(inside for place in left for inside in place.iterdir()), *left):
        os.utime(path, (old, old))
    if sorted(atomic.sweep(folder)) != sorted(left):
        tally.hurt(f"{way}: {[path.name for path in left]} were not swept")
        return
    for path in folder.iterdir():
        problem = _problem(path, way)
        if problem:
            tally.hurt(f"{way}: {path.name}: {problem}")
            return
        if way == "create":
            path.unlink()
    tally.count("killed in mid-save" if left else "killed between saves")


def _problem(path: Path, way: str) -> str:
    try:
        load_quantized(path) if way == "model" else load_preset(path)
        return ""
    except (PresetError, QuantizationError) as error:
        return str(error)
