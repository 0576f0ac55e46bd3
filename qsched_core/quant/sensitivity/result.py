"""What a study of a network's layers found, and the best format for each of them under a budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil, prod, sqrt

from torch import Tensor

from ...errors import QuantizationError
from ..formats import Format
from ..plan import Plan
from ..report import size_text
from .budget import check_bits, solve


@dataclass(frozen=True)
class Measure:
    """One layer in one format (None: as it is). ``bytes`` of its weight; ``content`` and ``quality`` are the
    network's, None where only the layer was looked at."""

    form: Format | None
    bytes: int
    error: float
    content: float | None = None
    quality: float | None = None

    @property
    def damage(self) -> float:
        """What a plan adds up: the squared error, of the network where it was measured."""
        if self.content is None or self.quality is None:
            return self.error**2
        return self.content**2 + self.quality**2


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer with its weight's ``shape`` (N, K) or (N, C, kh, kw). ``kurtosis`` is the 99th percentile over its
    output channels, 3 for normal weights: long tails want more bits (MPQ-DM, arXiv 2412.11549). ``first_token`` (K,)
    is the constant first token of its inputs, if it has one. ``measures`` end with the layer as it is."""

    name: str
    shape: tuple[int, ...]
    kurtosis: float
    measures: tuple[Measure, ...]
    first_token: Tensor | None = None

    def measure(self, form: Format | None) -> Measure | None:
        """The measure of a format, None where it was not tried."""
        return next((measure for measure in self.measures if measure.form == form), None)


@dataclass(frozen=True)
class Sensitivity:
    """Layers in the network's order. ``other_bytes`` is what the rest of the model takes, floats as FP16, ``idle``
    are layers that the run never reached, ``calls`` how often the network ran while it was recorded."""

    layers: tuple[LayerSensitivity, ...]
    formats: tuple[Format, ...]
    depth: str
    other_bytes: int
    calls: int
    idle: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Weights in the layers studied."""
        return sum(prod(layer.shape) for layer in self.layers)

    def plan(self, *, average_bits: float | None = None, total_bytes: int | None = None) -> Plan:
        """The formats with the least summed squared errors within a budget, found exactly: ``average_bits`` that a
        weight of these layers takes with its scales, or ``total_bytes`` of the whole model.

        Raises:
            QuantizationError: a budget that the smallest formats do not meet (it says what they take), or not one
                budget.
        """
        if (average_bits is None) == (total_bytes is None):
            raise QuantizationError("a plan has one budget.", "give average_bits or total_bytes")
        if average_bits is not None:
            least = 8 * sum(min(measure.bytes for measure in layer.measures) for layer in self.layers) / self.weights
            check_bits(average_bits, least)
            budget = ceil(average_bits * self.weights / 8)
        else:
            budget = total_bytes - self.other_bytes
        costs = [[measure.bytes for measure in layer.measures] for layer in self.layers]
        damages = [[measure.damage for measure in layer.measures] for layer in self.layers]
        choices = solve(costs, damages, budget)
        return Plan(
            {layer.name: layer.measures[i].form for layer, i in zip(self.layers, choices, strict=True)},
            {layer.name: layer.first_token for layer in self.layers if layer.first_token is not None},
        )

    def uniform(self, form: Format) -> Plan:
        """The same format everywhere, first tokens kept all the same."""
        tokens = {layer.name: layer.first_token for layer in self.layers if layer.first_token is not None}
        return Plan({layer.name: form for layer in self.layers}, tokens)

    def chosen(self, plan: Plan) -> tuple[Measure, ...]:
        """What was measured of each layer in the format that a plan of this study gives it."""
        return tuple(layer.measure(plan.forms[layer.name]) for layer in self.layers)

    def bytes(self, plan: Plan) -> int:
        """Of the whole model."""
        return self.other_bytes + sum(measure.bytes for measure in self.chosen(plan))

    def bits(self, plan: Plan) -> float:
        """That a weight takes on average, scales counted."""
        return 8 * sum(measure.bytes for measure in self.chosen(plan)) / self.weights

    def predicted(self, plan: Plan) -> float:
        """The plan's error, if errors of layers are independent: their squares add up."""
        return sqrt(sum(measure.damage for measure in self.chosen(plan)))

    def text(self, plan: Plan, worst: int = 12) -> str:
        """An account of a plan for a person: totals against the same format everywhere, what each format got, and
        the ``worst`` layers, those that lose most in their smallest format."""
        target = "the network's output" if self.depth == "network" else "the layers' outputs"
        lines = [
            f"{len(self.layers)} layers studied on {self.calls} evaluations; errors are of {target}, relative.",
            f"Plan: {self._totals(plan)}.",
        ]
        for form in self.formats:
            everywhere = self.uniform(form)
            best = self.predicted(self.plan(total_bytes=self.bytes(everywhere)))
            # A sum in another order is not a better plan.
            better = f", a plan of that size {best:.4f}" if best < 0.9999 * self.predicted(everywhere) else ""
            lines.append(f"{form} everywhere: {self._totals(everywhere)}{better}.")
        counts = Counter(_name(measure.form) for measure in self.chosen(plan))
        lines.append("Layers: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()) + ".")
        if plan.first_tokens:
            lines.append(f"The constant first token's row is kept exactly in {len(plan.first_tokens)} layers.")
        if self.idle:
            lines.append(f"Not reached, so not in the plan: {len(self.idle)}, for example {self.idle[0]}.")
        return "\n".join([*lines, "", *self._table(plan, worst)])

    def _totals(self, plan: Plan) -> str:
        whole = size_text(self.bytes(plan))
        return f"{self.bits(plan):.2f} bits a weight, model {whole}, error {self.predicted(plan):.4f}"

    def _table(self, plan: Plan, worst: int) -> list[str]:
        """Errors, at depth "network" followed by content/quality."""
        counts = Counter(measure.form for layer in self.layers for measure in layer.measures if measure.form)
        rows = [["layer", "kurtosis", *map(str, counts), "chosen"]]
        layers = sorted(self.layers, key=lambda layer: -min(layer.measures, key=lambda m: m.bytes).damage)
        for layer in layers[:worst]:
            cells = [_cell(layer.measure(form)) for form in counts]
            rows.append([layer.name, f"{layer.kurtosis:.1f}", *cells, _name(plan.forms[layer.name])])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _name(form: Format | None) -> str:
    return "float" if form is None else str(form)


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    if measure.content is None or measure.quality is None:
        return f"{measure.error:.4f}"
    return f"{measure.error:.4f} {measure.content:.4f}/{measure.quality:.4f}"
