"""One observation of a network, shared by all who ask what its layers see: rounding, sensitivity, layer choice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import QuantizationError
from .checked_write import write_checked
from .convolutions import has_own_call
from .input_recorder import FIT_ROWS, Calls, Observed, Usage, judging_rows, observing
from .select import MIN_WEIGHTS, candidates, kinds_of
from .sources import is_layer
from .stored_calls import read_calls, record_of

BUDGET = 2_000_000_000
"""Bytes of input rows held at once; of a larger network's layers they are gathered in further runs."""

EDGE_SHARE = 0.01
"""Of the weights: a layer behind a tiny first one is kept where it is that cheap. On the terrain U-Net the second
convolution, 0.1 % of the weights, moved the picture's mean by 5 to 36 % of its norm, at random in each fit."""

CALLS = 4
"""Calls of the network that a study repeats for every layer and format: its time grows with them, and SDXL's 800 layers
in two formats are 6400 evaluations."""

CORRECTED_CALLS = 16
"""Calls by which the means of packed layers are corrected: twelve to learn from, four that judge."""

FORMAT, VERSION = "qsched-observation", "3"
_VERSIONS = ("2", VERSION)
"""Those that are read: files of version 2 hold no calls."""

_PARTS = ("judged", "fitted", "largest", "first_token")
_FINGERPRINT_VALUES = 16
"""Of each layer's weight, that a network is known by: training moves all of them."""

CPU = torch.device("cpu")

WeightOf = Callable[[str, Tensor], Tensor]


@dataclass
class LayerInputs:
    """What one layer saw. ``judged`` are rows (R, K) or patches (R, C, …) to judge a rounding by, ``fitted``
    others to fit it to, None where a further run has to gather them; ``first_token`` (K,) is a constant one."""

    usage: Usage
    judged: Tensor
    fitted: Tensor | None = None
    first_token: Tensor | None = None


@dataclass
class Unfinished:
    """The layers of one job that were rounded before it was cancelled: the same job goes on from there."""

    job: Hashable = None
    layers: dict[Hashable, Any] = field(default_factory=dict)

    def of(self, job: Hashable) -> dict[Hashable, Any]:
        """Those of a job, empty where the last one was another."""
        if job != self.job:
            self.job, self.layers = job, {}
        return self.layers

    def clear(self) -> None:
        self.job, self.layers = None, {}


@dataclass
class Observation:
    """What ``observe`` recorded. ``layers`` by name in the module's order; ``idle`` were never reached; ``calls`` are
    whole calls of the network (None after loading a file that could not hold them); ``fingerprint`` tells the network
    by its layers."""

    layers: dict[str, LayerInputs]
    fingerprint: str
    idle: tuple[str, ...] = ()
    calls: Calls | None = None
    key: str = ""
    budget: int = BUDGET
    root: nn.Module | None = field(default=None, repr=False)
    run: Callable[[], None] | None = field(default=None, repr=False)
    on_call: Callable[[int], None] = field(default=lambda number: None, repr=False)
    unfinished: Unfinished = field(default_factory=Unfinished, repr=False)

    def rows_to_fit(self, name: str) -> Tensor | None:
        """The rows that a layer's rounding is fitted to. Where they are not held, one more run gathers those of this
        layer and of as many after it as the budget holds; earlier ones are let go. None: there are none to be had."""
        layer = self.layers.get(name)
        if layer is None:
            return None
        if layer.fitted is None and self.run is not None:
            self._gather(name)
        return layer.fitted

    def missing_rows(self) -> int:
        """How many layers' rows another run has to gather."""
        return 0 if self.run is None else sum(layer.fitted is None for layer in self.layers.values())

    def _gather(self, name: str) -> None:
        for layer in self.layers.values():
            layer.fitted = None
        names = list(self.layers)
        there = {}
        for other in names[names.index(name) :]:
            module = self.root.get_submodule(other)
            if is_layer(module, kinds_of("compact")) and _fits(module):
                there[other] = module
        group = _within(there, self.budget)
        layers = {other: there[other] for other in group}
        with torch.no_grad(), observing(self.root, layers, 0, self.on_call, group) as recording:
            self.run()
        for other in group:
            rows, layer = recording.rows[other], self.layers[other]
            if rows.values is not None:
                layer.fitted, layer.judged = rows.split(judging_rows(there[other]), recording.calls.seen)

    def edges(self) -> dict[str, str]:
        """The layers that read the network's input and write its output, told from the order of calls, with why.

        Where the outermost layer is too small to be packed at all, the one next to it is an edge as well, if it is
        small against the network: what it rounds away is the picture's mean, which nothing behind it can bring back.
        """
        order = sorted((n for n in self.layers if not self.layers[n].usage.one_row), key=self._order)
        if len(order) < 3:
            return {}
        total = sum(layer.usage.weights for layer in self.layers.values())
        edges = {order[0]: "it reads the network's input", order[-1]: "it writes the network's output"}
        for side, why in ((order, "it is the first that is large enough"), (order[::-1], "it is the last so large")):
            for outer, name in zip(side, side[1:], strict=False):
                if self.layers[outer].usage.weights >= MIN_WEIGHTS:
                    break
                if self.layers[name].usage.weights > EDGE_SHARE * total:
                    break
                edges.setdefault(name, why)
        return edges

    def _order(self, name: str) -> int:
        return self.layers[name].usage.order

    def one_row(self, name: str) -> bool:
        """Whether a layer sees at most one row per picture."""
        return name in self.layers and self.layers[name].usage.one_row

    def check(self, module: nn.Module, weight_of: WeightOf = lambda name, weight: weight) -> None:
        """Raises QuantizationError for another network than the one that was observed."""
        same = fingerprint(module, [*self.layers, *self.idle], weight_of) == self.fingerprint != ""
        if not same or not self._fits(module):
            raise QuantizationError("this observation is of another model.", "observe the model that you quantise")

    def _fits(self, module: nn.Module) -> bool:
        """Whether what was recorded is as wide as the layers: a file may say anything."""
        means = [] if self.calls is None else [pair for call in self.calls.kept for pair in call.means.items()]
        return all(_rows_fit(module.get_submodule(name), inputs) for name, inputs in self.layers.items()) and all(
            name in self.layers
            and all(getattr(module.get_submodule(name).bias, "shape", None) == value.shape for value in values)
            for name, values in means
        )

    def save(self, path: str | os.PathLike[str], about: Mapping[str, str] | None = None) -> None:
        """Write the rows that are held, the facts, and the calls, to a ``.safetensors`` file; it is read back and
        compared. Calls are left out where they hold more than tensors, numbers, texts and containers.

        Raises:
            QuantizationError: it cannot be written.
        """
        calls, tensors = record_of(self.calls)
        facts = {}
        for name, layer in self.layers.items():
            values = (layer.judged, layer.fitted, layer.usage.largest, layer.first_token)
            tensors |= {f"{part}/{name}": v for part, v in zip(_PARTS, values, strict=True) if v is not None}
            facts[name] = {
                "order": layer.usage.order, "one_row": layer.usage.one_row, "weights": layer.usage.weights,
            }  # fmt: skip
        record = {"layers": facts, "idle": list(self.idle), "fingerprint": self.fingerprint, "key": self.key}
        metadata = {**(about or {}), "format": FORMAT, "version": VERSION, "observation": json.dumps(record)}
        metadata |= {"calls": calls} if calls else {}
        write_checked(tensors, path, metadata, lambda file: _read(file)[1])


def observe(
    module: nn.Module,
    run: Callable[[], Any],
    *,
    recipe: str = "compact",
    budget: int = BUDGET,
    calls: int = CALLS,
    fit: bool = True,
    weight_of: WeightOf = lambda name, weight: weight,
    on_call: Callable[[int], None] = lambda number: None,
    key: str = "",
    is_source: Callable[[nn.Module], bool] = lambda layer: False,
) -> Observation:
    """Record what the Linear layers and convolutions of ``module`` see while ``run()`` calls it on real inputs.

    At most ``budget`` bytes of input rows are held at once: of a larger network ``run`` is called again, while
    ``quantize`` reaches the layers whose rows are missing, and must give the same inputs each time. ``module`` is only
    read. ``fit`` False keeps only what sensitivity needs. ``on_call(number)`` may raise to cancel; ``key`` is whatever
    the caller compares a saved observation by. Layers that others have packed are observed where ``is_source`` says
    that ``weight_of`` can read them.

    Raises:
        QuantizationError: an unknown recipe, or a run that reached no layer.
    """
    layers = {name: layer for name, layer in candidates(module, recipe) if is_source(layer) or _is_plain(layer)}
    group = _within({name: layer for name, layer in layers.items() if _fits(layer)}, budget) if fit else []
    call_count = max(calls, CORRECTED_CALLS) if fit else calls
    with torch.no_grad(), observing(module, layers, call_count, on_call, group, calls) as recording:
        run()
    inputs = {
        name: _inputs(name, layer, recording, name in group)
        for name, layer in layers.items()
        if name in recording.usage
    }
    if not inputs:
        raise QuantizationError("the run reached no layer to study.", "let run() call the module itself")
    idle = tuple(name for name in layers if name not in inputs)
    mark = fingerprint(module, [*inputs, *idle], weight_of)
    return Observation(inputs, mark, idle, recording.calls, key, budget, module, run if fit else None, on_call)


def _inputs(name: str, layer: nn.Module, recording: Observed, has_fit_rows: bool) -> LayerInputs:
    rows = recording.rows[name]
    fit, check_rows = rows.split(judging_rows(layer), recording.calls.seen) if has_fit_rows else (None, rows.values)
    token = recording.first_tokens[name].found if name in recording.first_tokens else None
    return LayerInputs(recording.usage[name], check_rows, fit, token)


def _is_plain(layer: nn.Module) -> bool:
    weight = layer.weight
    plain = isinstance(weight, Tensor) and type(weight.data) is Tensor and weight.is_floating_point()
    return plain and getattr(layer, "padding_mode", "zeros") == "zeros" and not has_own_call(layer)


def _fits(layer: nn.Module) -> bool:
    return layer.weight.numel() >= MIN_WEIGHTS


def _rows_fit(layer: nn.Module, inputs: LayerInputs) -> bool:
    """Whether recorded rows are as wide as a layer's inputs."""
    width = getattr(layer, "in_channels", getattr(layer, "in_features", inputs.judged.shape[1]))
    shape = (width, *getattr(layer, "kernel_size", ()))
    return tuple(inputs.judged.shape[1:]) == shape


def _within(layers: Mapping[str, nn.Module], budget: int) -> list[str]:
    """The first layers whose rows the budget holds, at least one."""
    names: list[str] = []
    for name, layer in layers.items():
        columns = prod(layer.weight.shape[1:]) * getattr(layer, "groups", 1)
        budget -= (FIT_ROWS + judging_rows(layer)) * columns * layer.weight.element_size()
        if budget < 0 and names:
            break
        names.append(name)
    return names


def fingerprint(module: nn.Module, names: Iterable[str], weight_of: WeightOf = lambda name, weight: weight) -> str:
    """A hash of these layers' names, shapes and first weights: another checkpoint of the same kind has another."""
    digest = hashlib.sha256()
    for name in sorted(names):
        try:
            layer = module.get_submodule(name)
        except AttributeError:
            return ""
        weight = layer.weight
        digest.update(f"{name} {tuple(getattr(layer, 'shape', weight.shape))};".encode())
        if not weight.is_meta and weight.is_floating_point():
            values = weight_of(f"{name}.weight", weight).detach().flatten()[:_FINGERPRINT_VALUES]
            digest.update(values.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def load_observation(path: str | os.PathLike[str], device: torch.device = CPU) -> Observation:
    """Read and check a file of ``Observation.save``. ``run`` is not in it. What calls were given on an accelerator is
    brought to ``device``.

    Raises:
        QuantizationError: not such a file, another version, or contents that cannot be true.
    """
    path = Path(path)
    try:
        metadata, tensors = _read(path)
    except OSError as error:
        raise QuantizationError(f"cannot read {path.name}: {error}", "check the file and its folder") from error
    except SafetensorError as error:
        raise QuantizationError(f"{path.name} is not a safetensors file.", "observe again") from error
    if metadata.get("format") != FORMAT or metadata.get("version") not in _VERSIONS:
        raise QuantizationError(f"{path.name} is no observation of ours.", "observe again")
    try:
        record = json.loads(metadata["observation"])
        layers = {str(name): _layer(name, facts, tensors) for name, facts in record["layers"].items()}
        idle = tuple(str(name) for name in record["idle"])
        calls = read_calls(metadata["calls"], tensors, device) if "calls" in metadata else None
        return Observation(layers, str(record["fingerprint"]), idle, calls, key=str(record["key"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantizationError(f"{path.name}: its contents are damaged.", "observe again") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}


def _layer(name: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LayerInputs:
    """Raises ValueError, KeyError or TypeError for a record that cannot be true."""
    check_rows, fit_rows, largest, token = (tensors.get(f"{part}/{name}") for part in _PARTS)
    weights = facts["weights"]
    if not isinstance(facts["order"], int) or not isinstance(facts["one_row"], bool):
        raise ValueError(name)
    if type(weights) is not int or not 0 < weights < 2**62:
        raise ValueError(name)
    if check_rows is None or check_rows.ndim not in (2, 4, 5) or not len(check_rows):
        raise ValueError(name)
    for rows in (check_rows, fit_rows):
        if rows is not None and not (rows.is_floating_point() and rows.shape[1:] == check_rows.shape[1:]):
            raise ValueError(name)
    for values in (largest, token):
        if values is not None and not (
            values.is_floating_point() and tuple(values.shape) == tuple(check_rows.shape[1:2])
        ):
            raise ValueError(name)
    return LayerInputs(Usage(facts["order"], facts["one_row"], largest, weights), check_rows, fit_rows, token)
