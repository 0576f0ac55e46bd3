"""How much each layer of a network loses in each format, measured on real inputs.

A layer's error is that of its output, on a sample of what it saw. With depth "network" the layer is also replaced in
the running network, and the network's output is judged twice, as MixDQ demands (arXiv 2405.17873, §3.3): *content* is
what is where, the output averaged over 4 x 4 places; *quality* is texture, the rest of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...choices import DEPTHS, LAYERS, NETWORK
from ...errors import QuantizationError
from ..backends import TorchBackend, Way
from ..convolutions import CONVOLUTIONS, convolve, has_own_call, options_of
from ..fitting import fitted_twin
from ..formats import Format, resolve_format
from ..input_recorder import Call
from ..inspection import floats_as_half, packed_weight, stored_bytes
from ..layers import same_token
from ..observation import CALLS, LayerInputs, Observation, observe
from ..packing import row_bytes
from ..report import FLOAT_BYTES, module_bytes
from ..select import candidates, reason_to_keep
from .result import LayerSensitivity, Measure, Sensitivity

FORMATS_TRIED = (resolve_format("w4a8"), resolve_format("w8a8"))

POOL_SIZE = 4
"""Places averaged in each direction: below is texture, above is content."""

FINE_GROUP, MAX_ERROR_SHARE = 32, 0.5
"""A per-channel format is also tried with groups of so many columns, and stays a candidate where that leaves so small
a part of the error. For normally distributed weights it leaves 0.65."""


def measure_sensitivity(
    root: nn.Module,
    drive: Callable[[], None],
    formats: Sequence[Format] = FORMATS_TRIED,
    *,
    depth: str = LAYERS,
    recipe: str = "compact",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    calls: int = CALLS,
    observation: Observation | None = None,
    recording: Observation | None = None,
    device: torch.device | None = None,
    weight_of: Callable[[str, Tensor], Tensor] = lambda name, weight: weight,
    is_source: Callable[[nn.Module], bool] = lambda layer: False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    check: Callable[[], None] = lambda: None,
) -> Sensitivity:
    """Measure every layer that ``quantize`` would pack. ``root`` is only read, and hooked while this runs.

    ``drive()`` lets the network run on real inputs, a few prompts and steps, and leaves it where it can be called
    again. ``weight_of`` and ``is_source`` as for ``quantized_layers``; layers are packed on ``device`` (None: the CPU).
    With depth "network" that is ``calls`` evaluations of the network per layer and format. With an ``observation`` of
    before nothing is driven, and rounding is fitted to it; nor with a ``recording``, an observation with ``fit``
    False: then rounding is to nearest. ``on_progress(done, total, text)`` may raise to cancel, and so may ``check()``,
    which is called often while a layer is fitted.

    Skip connections: where the two halves of a layer's input differ much in scale, one scale per channel rounds the
    smaller weights away, and groups keep the halves apart. Such layers are found by their error: a per-channel format
    is tried with groups too, and where that leaves less than half of the error, it is one more candidate.

    Raises:
        QuantizationError: no formats, an unknown depth or recipe, no layer to study, a run that reached none, or an
            observation of another network, or without the calls that depth "network" repeats.
    """
    if depth not in DEPTHS:
        raise QuantizationError(f"depth {depth!r} is unknown.", f"use {' or '.join(DEPTHS)}", depth=depth)
    if not formats:
        raise QuantizationError("there is no format to study.", "name one or more, for example w4a8, w8a8")
    layers = studied_layers(root, recipe, include, exclude)
    if (recording := observation or recording) is not None:
        _check_recording(recording, root, weight_of, depth)
    meter = _Meter(root, tuple(dict.fromkeys(formats)), device or torch.device("cpu"), weight_of, observation, check)
    with torch.no_grad():
        if recording is None:
            recording = observe(
                root, drive, recipe=recipe, calls=calls, fit=False, weight_of=weight_of, is_source=is_source,
                on_call=lambda number: on_progress(0, len(layers), f"recording, evaluation {number + 1}"),
            )  # fmt: skip
        names = [name for name in layers if name in recording.layers]
        if not names:
            raise QuantizationError("the run reached no layer to study.", "let run() call the module itself")
        results = []
        for number, name in enumerate(names):
            on_progress(number, len(names), f"layer {number + 1} of {len(names)}: {name}")
            results.append(meter.layer(name, recording.layers[name]))
        if depth == NETWORK:
            results = list(_through_the_network(meter, results, recording.calls.some(calls), on_progress))
    idle = tuple(name for name in layers if name not in names)
    number = 0 if recording.calls is None else recording.calls.seen
    return Sensitivity(tuple(results), meter.formats, depth, _other_bytes(root, results), number, idle)


def _other_bytes(root: nn.Module, results: Sequence[LayerSensitivity]) -> int:
    """Of the network beside the weights that were studied; a first token that is kept comes with an output row."""
    weight_bytes = sum(layer.measures[-1].bytes for layer in results)
    tokens = sum(sum(layer.shape) for layer in results if layer.first_token is not None) * FLOAT_BYTES
    return module_bytes(root) - weight_bytes + tokens


def _check_recording(
    recording: Observation, root: nn.Module, weight_of: Callable[[str, Tensor], Tensor], depth: str
) -> None:
    recording.check(root, weight_of)
    if depth == NETWORK and (recording.calls is None or not recording.calls.kept):
        raise QuantizationError("this observation holds no calls of the network.", "observe it again")


def studied_layers(
    root: nn.Module, recipe: str = "compact", include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """The layers that ``quantize`` packs, by name.

    Raises:
        QuantizationError: unknown recipe, or there is none.
    """
    pairs = list(candidates(root, recipe))
    layers = {
        name: layer
        for name, layer in pairs
        if not has_own_call(layer) and not reason_to_keep(root, name, layer, include, exclude)
    }
    if not layers:
        raise QuantizationError("there is no layer to study.", "plug in the FP16 model (in Python: set include)")
    return layers


def least_bits(layers: Mapping[str, nn.Module], formats: Sequence[Format]) -> float:
    """The average bits of these layers in the smallest of the formats: no budget can be below."""
    shapes = [layer.weight.shape for layer in layers.values()]
    least = sum(min(shape[0] * row_bytes(prod(shape[1:]), form) for form in formats) for shape in shapes)
    return 8 * least / sum(prod(shape) for shape in shapes)


def content_and_quality(output: Tensor, exact: Tensor) -> tuple[float, float]:
    """Relative errors of an output's low frequencies and of the rest. Outputs without two axes of places (below four
    axes) are not told apart: both are the whole error."""
    difference = output.float() - exact.float()
    if exact.ndim < 4:
        whole = _relative(difference, exact.float())
        return whole, whole
    coarse, coarse_exact = _averaged(difference), _averaged(exact.float())
    quality = _relative(difference - coarse, exact.float() - coarse_exact)
    return _relative(coarse, coarse_exact), quality


def kurtosis(weight: Tensor) -> float:
    """The 99th percentile over output channels of their weights' fourth standardised moment."""
    rows = weight.detach().float().flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    fourth = rows.pow(4).mean(1) / rows.square().mean(1).square().clamp(min=1e-30)
    return fourth.quantile(0.99).item()


class _Meter:
    """Packs a layer and compares it with itself."""

    def __init__(
        self,
        root: nn.Module,
        formats: tuple[Format, ...],
        device: torch.device,
        weight_of: Callable,
        observation: Observation | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self.root, self.formats, self.device, self.weight_of = root, formats, device, weight_of
        self.backend, self.observation, self.check = TorchBackend(), observation, check

    def layer(self, name: str, inputs: LayerInputs) -> LayerSensitivity:
        weight = self.weight(name)
        token = inputs.first_token
        rows = inputs.judged.to(self.device).float()
        if token is not None:
            rows = rows[~same_token(rows, token)]
        measures = []
        for form in self.formats:
            measures.append(self._measured(name, weight, rows, form))
            fine_form = replace(form, group_size=FINE_GROUP)
            if form.group_size == 0 and fine_form not in self.formats:
                other = self._measured(name, weight, rows, fine_form)
                if other.error < MAX_ERROR_SHARE * measures[-1].error:
                    measures.append(other)
        measures.append(Measure(None, floats_as_half(self.root.get_submodule(name).weight), 0.0))
        return LayerSensitivity(name, tuple(weight.shape), kurtosis(weight), tuple(measures), token)

    def weight(self, name: str) -> Tensor:
        """A layer's float weight, on the device."""
        weight = self.weight_of(f"{name}.weight", self.root.get_submodule(name).weight)
        return weight.detach().to(self.device).float()

    def twin(self, name: str, weight: Tensor, form: Format) -> nn.Module:
        """The layer packed without its bias; rounded as the observation wants it, if one was given."""
        layer = self.root.get_submodule(name)
        if self.observation is None:
            return self.backend.twin(layer, weight, None, form)
        rows, inputs = self.observation.rows_to_fit(name), self.observation.layers[name]
        way, largest = Way(self.backend, form), inputs.usage.largest
        return fitted_twin(way, layer, weight, None, rows, inputs.judged, largest, check=self.check)[0]

    def _measured(self, name: str, weight: Tensor, rows: Tensor, form: Format) -> Measure:
        layer, twin = self.root.get_submodule(name), self.twin(name, weight, form)
        if isinstance(layer, CONVOLUTIONS):
            exact = convolve(rows, weight, groups=layer.groups)
            outputs = convolve(rows, packed_weight(twin), groups=layer.groups)
        else:
            exact, outputs = F.linear(rows, weight), twin(rows)
        return Measure(form, stored_bytes(twin.weight), _relative(outputs - exact, exact))

    @contextmanager
    def replaced(self, layer: LayerSensitivity, form: Format) -> Iterator[None]:
        """While this is open, the layer's output has the error of its packed twin. The error is added to what the
        layer itself gives: a host may have patched that one's weight in place, or cast it on the way."""
        module, weight = self.root.get_submodule(layer.name), self.weight(layer.name)
        twin = self.twin(layer.name, weight, form)
        if layer.first_token is not None:
            twin.keep_first_token(layer.first_token, weight, None)

        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            x = args[0].float()
            there = weight.to(x.device)
            if isinstance(module, CONVOLUTIONS):
                exact = convolve(x, there, **options_of(module))
            else:
                exact = F.linear(x, there)
            return output + (twin(x) - exact).to(output.dtype)

        handle = module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def _through_the_network(
    meter: _Meter, layers: list[LayerSensitivity], calls: Sequence[Call], on_progress: Callable[[int, int, str], None]
) -> Iterator[LayerSensitivity]:
    """The layers with what each format of each does to the network's output."""
    total = sum(len(layer.measures) - 1 for layer in layers) * len(calls)
    done = 0
    exact = [call.again(meter.root).float() for call in calls]
    for layer in layers:
        measures = []
        for measure in layer.measures:
            if measure.form is None:
                measures.append(replace(measure, content=0.0, quality=0.0))
                continue
            errors = []
            with meter.replaced(layer, measure.form):
                for call, reference in zip(calls, exact, strict=True):
                    on_progress(done, total, f"network with {layer.name} in {measure.form}")
                    errors.append(content_and_quality(call.again(meter.root), reference))
                    done += 1
            content, quality = (sqrt(sum(e**2 for e in part) / len(part)) for part in zip(*errors, strict=True))
            measures.append(replace(measure, content=content, quality=quality))
        yield replace(layer, measures=tuple(measures))


def _averaged(x: Tensor) -> Tensor:
    """Means over POOL_SIZE x POOL_SIZE places of the last two axes (fewer at the edges), in x's shape."""
    high, wide = x.shape[-2:]
    coarse = F.avg_pool2d(x.reshape(-1, 1, high, wide), POOL_SIZE, ceil_mode=True)
    fine = coarse.repeat_interleave(POOL_SIZE, -2).repeat_interleave(POOL_SIZE, -1)
    return fine[..., :high, :wide].reshape(x.shape)


def _relative(difference: Tensor, exact: Tensor) -> float:
    return (difference.norm() / exact.norm().clamp(min=1e-30)).item()
