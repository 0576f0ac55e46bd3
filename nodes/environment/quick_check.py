"""The short form of ``benchmarks.gpu`` for the environment check: products and a small model, in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import comfy.model_management
import torch

from ...qsched_core import QuantizationError
from ...qsched_core.environment import OK, OPTIONAL, TO_DO, Line
from ...qsched_core.quant import Backend
from ...qsched_core.quant.product_errors import ProductError, product_errors
from .model_check import WAYS, SmallModel, difference, effect_of

SECONDS = 10.0
"""For everything here. What is begun is ended: a slow machine may take a few more."""

PRODUCTS_SHARE = 0.4
"""Of the time, at most, for the products."""

LORA_SIZE = 0.05
"""Beside the norm of the weights. The rounding of activations hides smaller ones in an output of one call."""

_LEAST_EFFECT, _MOST_EFFECT = 0.95, 1.05
"""Of a LoRA, as a share of its effect on the float model with the same rounded weights: what is outside is more than
the rounding of activations."""

_MOST_DIFFERENCE = 0.01
"""Of outputs fully and half loaded: in 16 bits other kernels may take part, which round otherwise."""

_SEND = "Send us this line."


class Deadline:
    """``spent()`` is also where a cancel takes effect and the bar moves."""

    def __init__(self, seconds: float, on_progress: Callable[[float], None] = lambda share: None):
        self.seconds, self.start, self.on_progress = seconds, time.monotonic(), on_progress

    def spent(self, share: float = 1.0) -> bool:
        """Whether that share of the time is over."""
        passed = (time.monotonic() - self.start) / self.seconds
        self.on_progress(min(passed, 1.0))
        return passed > share


def product_lines(backends: Sequence[Backend], deadline: Deadline) -> Iterator[Line]:
    """A line for each backend: every format that it has here at a few widths, against the exact product."""
    device = comfy.model_management.get_torch_device()
    for place, backend in enumerate(backends, 1):
        results, complete = [], True
        for one in product_errors([backend], device=device):
            results.append(one)
            # Each backend has its part of the time, and what others before it left.
            if deadline.spent(PRODUCTS_SHARE * place / len(backends)):
                complete = False
                break
        computed = [one for one in results if one.errors]
        if computed:
            yield _product_line(backend.name, device.type, computed, complete)


def _product_line(name: str, device: str, rows: list[ProductError], complete: bool) -> Line:
    wrong = [f"{one.form} at {one.inputs} inputs errs by {one.worst:.2g}" for one in rows if not one.is_right]
    if wrong:
        return Line(TO_DO, f"{name} multiplies wrongly on {device}: {', '.join(wrong)}. {_SEND}")
    worst = max(rows, key=lambda one: one.worst)
    count = f"{len(rows)} products" if complete else f"the {len(rows)} products that there was time for"
    return Line(OK, f"{name} on {device}: {count} are right, {worst.form} errs most, by {worst.worst:.2g}")


def model_lines(load: Callable[[], object], deadline: Deadline) -> Iterator[Line]:
    """A line for each way to pack a small model, which ``load`` gives: a LoRA's effect, half loaded, a step's time. The
    first is tried however late it is."""
    with torch.no_grad():
        small = SmallModel(load())
        seconds, size = small.step_seconds(small.model), small.model.model_size()
        remaining = list(WAYS)
        while remaining and (len(remaining) == len(WAYS) or not deadline.spent()):
            name, backend = remaining.pop(0)
            try:
                twin = small.twin(name, backend)
            except QuantizationError:
                continue  # the backend's own line says why
            yield _model_line(f"{name} by {backend}", small, twin, seconds, size)
    if remaining:
        names = ", ".join(f"{name} by {backend}" for name, backend in remaining)
        yield Line(OPTIONAL, f"no time was left to try {names}: run this check again when the machine is idle")


def _model_line(name: str, small: SmallModel, twin, seconds: float, size: int) -> Line:
    exact = small.lora_change(small.with_weights_of(twin), LORA_SIZE)
    effect = effect_of(small.lora_change(twin, LORA_SIZE), exact)
    twin_with_lora = small.with_lora(twin, LORA_SIZE)
    whole = small.output(twin_with_lora)
    off = difference(small.partly_loaded(twin_with_lora, 0.5), whole)
    ratio = small.step_seconds(twin) / seconds
    text = (
        f"{name}: a LoRA has {effect.part:.2f} of its effect (cosine {effect.cosine:.2f}), half loaded the output is "
        f"{off:.1g} off, a small model's step takes {ratio:.1f} times as long, in {twin.model_size() / size:.2f} of "
        "its memory"
    )
    right = _LEAST_EFFECT < effect.part < _MOST_EFFECT and off < _MOST_DIFFERENCE
    return Line(OK, text) if right else Line(TO_DO, f"{text}. {_SEND}")
