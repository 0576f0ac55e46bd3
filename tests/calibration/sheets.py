"""What the plots draw, as marks in the coordinates of the picture; and one picture or more of each plot."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from calibration import Evaluation, Settings, Trial
from calibration.plots import canvas, curves, paired_gains, search_map, sensitivity, step_losses
from calibration.plots.canvas import FAINT
from calibration.search.space import Space
from calibration.step_plan import StepOption
from calibration.step_study import StepResult
from qsched_core import Coefficients
from qsched_core.quant import FORMATS
from qsched_core.quant.plan import Plan
from qsched_core.quant.sensitivity.result import LayerSensitivity, Measure, Sensitivity


@dataclass(frozen=True)
class Mark:
    """One call of a canvas: ``kind`` is its name. (x, y) is its anchor, its middle or its start, (left, top, right,
    bottom) its extent. ``size`` is that of a font, or a stroke's width."""

    kind: str
    x: float
    y: float
    left: float
    top: float
    right: float
    bottom: float
    colour: tuple[int, int, int]
    text: str = ""
    size: float = 0.0

    @property
    def number(self) -> float | None:
        """Of a text that is one."""
        return float(self.text) if re.fullmatch(r"[-+]?\d+(\.\d+)?", self.text) else None


class Sheet(canvas.Canvas):
    """A canvas that notes what it is asked for and draws nothing."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(1, 1)
        self.size, self.marks = (width, height), []

    def text(self, x, y, text, size, colour=canvas.INK, anchor="lm"):
        from PIL import ImageFont

        left, top, right, bottom = ImageFont.load_default(size).getbbox(text, anchor=anchor)
        self.marks.append(Mark("text", x, y, x + left, y + top, x + right, y + bottom, colour, text, size))
        return x + self.width(text, size)

    def line(self, start, end, colour, width):
        self._note("line", start, end, colour, width)

    def box(self, start, end, colour):
        assert start[0] <= end[0] and start[1] <= end[1]
        self._note("box", start, end, colour)

    def frame(self, start, end, colour, width):
        self._note("frame", start, end, colour, width)

    def dot(self, x, y, radius, colour):
        self._note_round("dot", x, y, radius, colour)

    def ring(self, x, y, radius, colour, width):
        self._note_round("ring", x, y, radius, colour, width)

    def cross(self, x, y, radius, colour, width):
        self._note_round("cross", x, y, radius, colour, width)

    def saltire(self, x, y, radius, colour, width):
        self._note_round("saltire", x, y, radius, colour, width)

    def of(self, kind: str, colour: tuple[int, int, int] | None = None) -> list[Mark]:
        return [mark for mark in self.marks if mark.kind == kind and colour in (None, mark.colour)]

    def words(self, text: str) -> Mark:
        """The only text that reads so."""
        (mark,) = (mark for mark in self.of("text") if mark.text == text)
        return mark

    def numbers(self, *, x: float | None = None, y: float | None = None) -> list[Mark]:
        """Of an axis: faint ones in one column or in one row."""
        texts = (mark for mark in self.of("text", FAINT) if mark.number is not None)
        return [mark for mark in texts if (x is None or mark.x == x) and (y is None or mark.y == y)]

    def _note(self, kind, start, end, colour, size=0.0):
        (x, y), (other_x, other_y) = start, end
        extent = min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y)
        self.marks.append(Mark(kind, x, y, *extent, colour, size=size))

    def _note_round(self, kind, x, y, radius, colour, size=0.0):
        extent = x - radius, y - radius, x + radius, y + radius
        self.marks.append(Mark(kind, x, y, *extent, colour, size=size))


@contextmanager
def sheets() -> Iterator[list[Sheet]]:
    """The sheets that are begun inside."""
    new: list[Sheet] = []

    def begin(width: int, height: int) -> Sheet:
        new.append(Sheet(width, height))
        return new[-1]

    with pytest.MonkeyPatch.context() as patch:
        for module in (curves, paired_gains, search_map, sensitivity, step_losses):
            patch.setattr(module, "Canvas", begin)
        yield new


def sheet_of(plot: Callable, *arguments, **options) -> Sheet:
    with sheets() as new:
        plot(*arguments, **options)
    (sheet,) = new
    return sheet


def reading(numbers: Sequence[Mark], along: str, scale: Callable[[float], float] = float) -> Callable:
    """From a place on the picture to the value there, as the numbers of an axis say; they must agree to a hundredth of
    a pixel. ``along`` is "x" or "y"."""
    places, values = np.array([getattr(mark, along) for mark in numbers]), np.array([scale(m.number) for m in numbers])
    assert len(numbers) >= 2
    slope, start = np.polyfit(values, places, 1)
    assert slope > 0 if along == "x" else slope < 0
    assert np.abs(start + slope * values - places).max() < 0.01
    return lambda place: (np.asarray(place) - start) / slope


def near(values: object, margin: float = 1e-6) -> object:
    return pytest.approx(np.asarray(values), abs=margin)


def centre(mark: Mark) -> tuple[float, float]:
    return (mark.left + mark.right) / 2, (mark.top + mark.bottom) / 2


# --- what is drawn


def space(kind: str, n_steps: int = 4, **changed) -> Space:
    return Space(Settings(**{"space": kind, "radius": 0.2, "strategy": "guided", **changed}), n_steps)


def trials_of(own: Space, count: int = 30, **first) -> list[Trial]:
    """The identity, then candidates all over the region: some dropped early, some that could not be scored."""
    generator = np.random.default_rng(1)
    trials = [Trial(own.identity(), **{"value": 0.5, "pictures": 12, "whole": True, **first})]
    for i in range(count):
        point = {axis: generator.uniform(own.low, own.high) for axis in own.axes}
        value = math.nan if i % 7 == 3 else generator.normal(0.5, 0.1)
        trials.append(Trial(point, value, 12, i % 3 > 0))
    return trials


def rows(gains: Sequence[float], metric: str = "jaq", base: float = 0.5) -> tuple[Evaluation, Evaluation]:
    """One prompt per gain, with two noises."""
    n = len(gains)
    before = base + 0.01 * np.arange(n)
    indices = tuple(range(n, 3 * n))
    return tuple(Evaluation(indices, {metric: np.tile(scores, 2)}) for scores in (before, before + np.asarray(gains)))


def step_result(steps: int = 4) -> StepResult:
    """Three precisions of a model in ``steps`` steps, the last one is the best."""
    options = tuple(StepOption(f"w{bits}", i, bits, cost, 1) for i, (bits, cost) in enumerate(((4, 1), (6, 2), (8, 4))))
    generator = np.random.default_rng(2)
    distances = generator.uniform(0.0005, 0.002, (steps, 3)) * (2, 1, 0)
    plans = {(i,) * steps: error for i, error in enumerate((0.12, 0.06, 0.0))}
    if steps > 1:
        plans |= {(0,) * (steps - 1) + (2,): 0.1, (1,) * (steps - 1) + (2,): 0.04}
    evaluations = {
        plan: Evaluation((0, 1), {"distance to full": np.array([0.9, 1.1]) * error}) for plan, error in plans.items()
    }
    plan = list(plans)[-1]
    costs = np.array([0.25, 0.5, 1.0])
    return StepResult(
        options, 2, distances, 0 * distances, costs, (), evaluations, plan, (1,) * steps, {}, (), True, 100
    )  # fmt: skip


def study_of_layers(count: int = 24, formats: Sequence[str] = ("w4a8", "w8a8")) -> tuple[Sensitivity, Plan]:
    """Layers of a network in three parts with blocks of four, and a plan that gives each another format in turn."""
    generator = np.random.default_rng(3)
    forms = [FORMATS[name] for name in formats]
    layers = []
    for i in range(count):
        errors = generator.uniform(0.5, 1.5) * 0.2 / 7.0 ** np.arange(len(forms))
        measures = [Measure(form, 32 * form.weight_bits, error) for form, error in zip(forms, errors, strict=True)]
        name = f"{('down', 'middle', 'up')[3 * i // count]}.{i // 4}.{i}"
        layers.append(LayerSensitivity(name, (16, 16), 3 + i, (*measures, Measure(None, 512, 0.0))))
    plan = Plan({layer.name: [*forms, None][i % (len(forms) + 1)] for i, layer in enumerate(layers)})
    return Sensitivity(tuple(layers), tuple(forms), "layer", 0, 12), plan


def _map(kind: str, n_steps: int = 4, best: float = 1.1, **first) -> Callable[[], Sheet]:
    own = space(kind, n_steps)
    return lambda: sheet_of(
        search_map.jaq_map, trials_of(own, **first), own, Coefficients.constant(n_steps, c_x=best, c_eps=1 / best)
    )


def _paired(gains: Sequence[float], metric: str = "jaq", prompts: Sequence[str] = ()) -> Callable[[], Sheet]:
    return lambda: sheet_of(paired_gains.paired_plot, *rows(gains, metric), len(gains), prompts=prompts, metric=metric)


def _curves(coefficients: Coefficients, sigmas: Sequence[float] = ()) -> Callable[[], Sheet]:
    return lambda: sheet_of(curves.curves, coefficients, sigmas)


GAINS = (0.21, -0.13, 0.0, 0.05, math.nan, 0.3)
FOUR = ("w3a8", "w4a8", "w6a8", "w8a8")
RAMP = Coefficients.ramp(12, c_x=(0.8, 1.0), c_eps=(1.3, 1.05))

PLOTS = {
    "map": _map("constant"),
    "map of two steps": _map("both ends"),
    "map of three steps": _map("table", 16),
    "map without the identity": _map("constant", value=math.nan),
    "pairs": _paired(GAINS, prompts=["a red circle on a white table", "a dog", "w" * 400, "rain", "", "two cats"]),
    "pairs of a distance": _paired(GAINS[:2], "distance to full"),
    "pairs of one prompt": _paired(GAINS[:1]),
    "pairs of many": _paired(np.random.default_rng(0).normal(0.1, 0.2, 60), prompts=["a prompt"] * 60),
    "curves": _curves(RAMP, np.geomspace(14.6, 0.03, 13)),
    "curves without sigmas": _curves(RAMP),
    "curves of one step": _curves(Coefficients((0.9,), (1.2,)), (14.6, 0.0)),
    "curves of many steps": _curves(Coefficients.ramp(50, c_x=(0.8, 1), c_eps=(1.3, 1)), np.geomspace(14, 0.01, 51)),
    "equal curves": _curves(Coefficients.identity(4)),
    "steps": lambda: sheet_of(step_losses.step_losses, step_result()),
    "many steps": lambda: sheet_of(step_losses.step_losses, step_result(50)),
    "one step": lambda: sheet_of(step_losses.step_losses, step_result(1)),
    "layers": lambda: sheet_of(sensitivity.sensitivity_plot, *study_of_layers()),
    "many layers": lambda: sheet_of(sensitivity.sensitivity_plot, *study_of_layers(400, FOUR)),
    "one layer": lambda: sheet_of(sensitivity.sensitivity_plot, *study_of_layers(1)),
}  # fmt: skip
"""By name: each draws its picture on a new sheet."""
