"""A quantised module as a file, and back: packed weights, the floats that were kept, and what each layer is.

``.safetensors`` with string metadata. Files come from strangers: kinds, formats, shapes and byte counts are checked
before a layer is made of them, and the module they are put into decides what names, shapes, types and convolutions
there may be. What can be known without the values is checked before they are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import QuantizationError
from .backends.quanto import QuantoLayer
from .backends.torch import TWINS
from .branch import LowRank
from .checked_write import write_checked
from .convolutions import OPTIONS, QuantizedConvolution
from .formats import Format
from .inspection import is_packed
from .layers import FIRST_TOKEN, INPUT_SCALE, NORM_SHIFT, QuantizedLayer
from .packing import row_bytes, sound_scales
from .rotation import SIZES, rotation_of

FORMAT, VERSION = "qsched-quantized", "2"
LOW_RANK = ("low_rank.up", "low_rank.down")

_FLOATS = ("F16", "BF16", "F32", "F64")

_MOST_PER_VALUE = 2
"""Weights in one stored value of a native layout: two of four bits in a byte."""


@dataclass(frozen=True)
class Stored:
    """What a file holds. ``layers`` maps a packed layer's name to its format, float shape and convolution options, or
    for one in a native layout of ComfyUI to its shape alone; ``about`` is whatever else the writer noted."""

    tensors: Mapping[str, Tensor]
    layers: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, str]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape as the float module has it: what a host's model detection reads."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        for name in filter(self.is_native, self.layers):
            for part in self.values_of(name):
                if part != "bias":
                    del shapes[f"{name}.{part}"]
        for name in self.layers:
            for part in (*FIRST_TOKEN, INPUT_SCALE, NORM_SHIFT, *LOW_RANK):
                shapes.pop(f"{name}.{part}", None)
        return shapes | {f"{name}.weight": tuple(layer["shape"]) for name, layer in self.layers.items()}

    def is_native(self, name: str) -> bool:
        return bool(self.layers[name].get("native"))

    def values_of(self, name: str) -> dict[str, Tensor]:
        """One layer's part of the file, by what stands after its name."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def save_quantized(
    module: nn.Module,
    path: str | os.PathLike[str],
    about: Mapping[str, str] | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a quantised module atomically: beside the target, read back and compared, then renamed over it.

    ``values`` stand in for the module's state dict, where a host has more to write, or patches its weights in place.

    Raises:
        QuantizationError: nothing in it is quantised, or the file cannot be written (nothing is left behind).
    """
    every = module.named_modules(remove_duplicate=False)
    layers = {name: _record(child) for name, child in every if is_packed(child)}
    if not layers:
        raise QuantizationError("this model is not quantised.", "plug in Quantize Model W4A8's model")
    metadata = {**(about or {}), "format": FORMAT, "version": VERSION, "layers": json.dumps(layers)}
    values = module.state_dict() if values is None else values
    values = {**values, **_norm_shifts(module, values)}
    write_checked(values, path, metadata, lambda file: load_quantized(file).tensors)


def _norm_shifts(module: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``NORM_SHIFT`` of each layer whose bytes are among the ``values`` as they are in it."""
    shifts = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        shift = getattr(layer, NORM_SHIFT, None) if isinstance(layer, QuantizedLayer) else None
        if shift is not None and torch.equal(values[f"{name}.weight"].cpu(), layer.weight.cpu()):
            shifts[f"{name}.{NORM_SHIFT}"] = shift
    return shifts


def load_quantized(path: str | os.PathLike[str]) -> Stored:
    """Read and check a file.

    Raises:
        QuantizationError: not such a file, an unknown version, or a layer that its bytes do not fit.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            if about.pop("format", None) != FORMAT:
                raise QuantizationError(f"{path.name} is no quantised model of ours.", "use Save Quantized Model's")
            if (version := about.pop("version", "")) != VERSION:
                fix = "update the pack, or quantise the model again"
                raise QuantizationError(f"{path.name} has version {version[:20]!r}.", fix)
            about.pop("padding", None)
            layers = _layers(about.pop("layers", ""), {name: file.get_slice(name) for name in file.keys()}, path)
            # clone: what lies in the mapped file starts at odd addresses, and a matrix product rounds otherwise there.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except OSError as error:
        raise QuantizationError(f"cannot read {path.name}: {error}", "check the file and its folder") from error
    except SafetensorError as error:
        raise QuantizationError(f"{path.name} is not a safetensors file.", "download or save it again") from error
    for name, layer in layers.items():
        if not layer.get("native") and not sound_scales(
            tensors[f"{name}.weight"], prod(layer["shape"][1:]), _format(layer)
        ):
            raise QuantizationError(
                f"layer {name[:40]} holds scales that are no numbers.", "download or save the file again", name=name
            )
    return Stored(tensors, layers, about)


def _layers(text: str, tensors: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The checked list of layers. Of ``tensors`` no more is asked than what the file's header says of them."""
    try:
        layers = json.loads(text)
        for name, layer in layers.items():
            _check(name, layer, tensors[f"{name}.weight"])
            _check_first_token(layer, [tensors.get(f"{name}.{part}") for part in FIRST_TOKEN])
            _check_input_scale(layer, tensors.get(f"{name}.{INPUT_SCALE}"))
            _check_norm_shift(layer, tensors.get(f"{name}.{NORM_SHIFT}"))
            _check_low_rank(layer, [tensors.get(f"{name}.{part}") for part in LOW_RANK])
        for key in tensors:
            # A layer inside a layer would have its values counted twice.
            owner = next((key.removesuffix(f".{part}") for part in LOW_RANK if key.endswith(f".{part}")), key)
            owner = owner if owner != key else key.rpartition(".")[0]
            while owner := owner.rpartition(".")[0]:
                if owner in layers:
                    raise ValueError(key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantizationError(f"{path.name}: its list of layers is damaged.", "download or save it again") from error
    return layers


def restore(
    module: nn.Module,
    content: Stored,
    twins: Mapping[type[nn.Module], type[QuantizedLayer]] = TWINS,
    native: Callable[[int, int, dict[str, Tensor]], nn.Module] | None = None,
) -> None:
    """Put a file's layers and values into ``module``, the float one it was made of. Its own values are not read; floats
    take the type that they have in it. ``native(inputs, outputs, values)`` makes a host's layer of its part of a file.

    Raises:
        QuantizationError: the module has other layers, convolutions, shapes or types, or native layers where there is
            no host; or a parameter that is not finite.
    """
    places = {name: _place_of(name, layer, module, twins) for name, layer in content.layers.items()}
    packed_layers: dict[int, nn.Module] = {}  # a layer that stands in two places becomes one
    for name, (old, kind) in places.items():
        if id(old) not in packed_layers:
            packed_layers[id(old)] = _twin(name, old, kind, content, native)
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, packed_layers[id(old)])
    _put_values(module, content)


def _twin(
    name: str, old: nn.Module, kind: type[QuantizedLayer], content: Stored, native: Callable[..., nn.Module] | None
) -> nn.Module:
    """The packed layer that takes the place of ``old``."""
    if content.is_native(name):
        return _native(name, content, native)
    layer, packed = content.layers[name], content.tensors[f"{name}.weight"]
    form, bias = _format(layer), None if old.bias is None else torch.empty_like(old.bias)
    if issubclass(kind, QuantizedConvolution):
        twin = kind.of_bytes(old, packed, bias, tuple(layer["shape"]), form)
        twin.norm_shift = _norm_shift(name, content)
        return twin
    twin = kind(packed, bias, layer["shape"][1], form)
    twin.rotation = layer.get("rotation", twin.rotation)
    twin.norm_shift = _norm_shift(name, content)
    for part in (*FIRST_TOKEN, INPUT_SCALE):
        twin._buffers[part] = content.tensors.get(f"{name}.{part}")
    if f"{name}.{LOW_RANK[0]}" in content.tensors:
        twin.low_rank = LowRank(*(content.tensors[f"{name}.{part}"] for part in LOW_RANK))
    return twin


def _norm_shift(name: str, content: Stored) -> Tensor | None:
    shift = content.tensors.get(f"{name}.{NORM_SHIFT}")
    if shift is not None and not _is_finite(shift):
        raise QuantizationError(f"{name[:50]} has norms that are not finite.", "save the file again", name=name)
    return shift


def _place_of(
    name: str, layer: Mapping[str, Any], module: nn.Module, twins: Mapping[type[nn.Module], type[QuantizedLayer]]
) -> tuple[nn.Module, type[QuantizedLayer]]:
    """(the float layer that a packed one takes the place of, the class of the packed one)."""
    try:
        old = module.get_submodule(name)
    except AttributeError:
        old = None
    kind = next((twin for kind, twin in twins.items() if isinstance(old, kind)), None)
    fits = kind is not None and tuple(old.weight.shape) == tuple(layer["shape"])
    if fits and issubclass(kind, QuantizedConvolution):
        fits = all(getattr(old, key) == _tuple(layer[key]) for key in OPTIONS)
    if not fits:
        raise QuantizationError(f"layer {name[:60]} does not fit this model.", "use the file's own model", name=name)
    return old, kind


def _put_values(module: nn.Module, content: Stored) -> None:
    """Every value of the file in its place in ``module``, all of them checked first."""
    expected = module.state_dict()
    shifts = {f"{name}.{NORM_SHIFT}" for name in content.layers}  # no part of a state dict: their layer has them
    tensors = {name: value for name, value in content.tensors.items() if name not in shifts}
    for name in sorted(expected.keys() ^ tensors.keys()):
        where = "the file" if name in expected else "this model"
        raise _unfit(f"{where} has no {name[:60]}.", name)
    values = {}
    for name, value in tensors.items():
        if expected[name].shape != value.shape:
            raise _unfit(f"{name[:60]} has another shape.", name)
        parent, _, leaf = name.rpartition(".")
        if parent in content.layers and content.is_native(parent):
            continue  # its maker has read it
        dtype = expected[name].dtype
        if value.dtype != dtype and not (value.is_floating_point() and dtype.is_floating_point):
            raise _unfit(f"{name[:50]} holds {_name(value.dtype)}, not {_name(dtype)}.", name)
        owner, value = module.get_submodule(parent), value.to(dtype)
        # Buffers may hold infinities: masks do.
        if leaf in owner._parameters and not _is_finite(value):
            raise QuantizationError(f"{name[:50]} is not finite.", "download or save the file again", name=name)
        values[name] = owner, leaf, value
    for owner, leaf, value in values.values():
        if leaf in owner._parameters:
            kind = owner.parameter if isinstance(owner, QuantizedLayer) and leaf == "weight" else nn.Parameter
            owner._parameters[leaf] = kind(value, requires_grad=False)
        else:
            owner._buffers[leaf] = value


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point():
        return True
    # torch has no isfinite for some of the 8-bit floats.
    return bool((value if value.element_size() > 1 else value.to(torch.float16)).isfinite().all())


def _unfit(what: str, name: str) -> QuantizationError:
    return QuantizationError(what, "use the model that the file was made of", name=name)


def _native(name: str, content: Stored, make: Callable[..., nn.Module] | None) -> nn.Module:
    if make is None:
        raise QuantizationError("this file holds native layers of ComfyUI.", "load it in ComfyUI", name=name)
    outputs, inputs = content.layers[name]["shape"]
    try:
        return make(inputs, outputs, content.values_of(name))
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        fix = "update ComfyUI, or save the model again"
        raise QuantizationError(
            f"this ComfyUI cannot read layer {name[:40]}.", f"{fix} ({error})", name=name
        ) from error


def _record(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, QuantoLayer):
        raise QuantizationError(
            "quanto's layers are not written to files.", "quantise with the torch or kitchen backend to save"
        )
    if not isinstance(layer, QuantizedLayer):
        if "comfy_quant" not in layer.state_dict():
            kind = type(layer.weight.data).__name__
            raise QuantizationError(f"layers of {kind} cannot be saved.", "quantise with another backend", kind=kind)
        return {"native": True, "shape": list(layer.weight.shape)}
    record = {"format": asdict(layer.format), "shape": list(layer.shape)}
    if isinstance(layer, QuantizedConvolution):
        record |= {key: getattr(layer, key) for key in OPTIONS}
    elif layer.rotation != rotation_of(layer.in_features):
        record["rotation"] = layer.rotation
    return record


def _format(layer: Mapping[str, Any]) -> Format:
    record = {"symmetric": True, **layer["format"]}  # records of before there were others say nothing of it
    sizes = [record[name] for name in ("weight_bits", "activation_bits", "group_size")]
    # The name goes into presets and messages.
    has_name = isinstance(record["name"], str) and 0 < len(record["name"]) <= 40 and record["name"].isprintable()
    if not has_name or type(record["symmetric"]) is not bool or not all(type(size) is int for size in sizes):
        raise ValueError(record["name"])
    return Format(**{item.name: record[item.name] for item in fields(Format)})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(name: str, layer: Mapping[str, Any], packed: Any) -> None:
    """Raises ValueError, TypeError or KeyError for a record that cannot be true of ``packed``, a slice of the file."""
    shape, packed_shape = layer["shape"], packed.get_shape()
    if not name or len(shape) not in (2, 4, 5) or not all(type(size) is int and 0 < size < 2**31 for size in shape):
        raise ValueError(name)
    if layer.get("native"):
        # Who makes the layer checks its bytes; the width is what the host makes room for, before it has read one.
        if (
            len(shape) != 2
            or len(packed_shape) != 2
            or packed_shape[0] != shape[0]
            or shape[1] > _MOST_PER_VALUE * packed_shape[1]
        ):
            raise ValueError(name)
        return
    form = _format(layer)
    if packed.get_dtype() != "U8" or packed_shape != [shape[0], row_bytes(prod(shape[1:]), form)]:
        raise ValueError(name)
    if len(shape) > 2:
        for key in OPTIONS:
            values = layer[key] if isinstance(layer[key], list) else [layer[key]]
            is_word = values == ["same"] or values == ["valid"]
            if not (is_word and key == "padding") and not all(isinstance(v, int) and 0 <= v < 4096 for v in values):
                raise ValueError(name)


def _check_low_rank(layer: Mapping[str, Any], parts: list[Any]) -> None:
    """Raises ValueError for one without the other, or not of the layer's outputs and inputs. ``parts`` are slices."""
    if all(part is None for part in parts):
        return
    up, down = parts
    if layer.get("native") or len(layer["shape"]) != 2 or any(part is None for part in parts):
        raise ValueError("low rank")
    rank = up.get_shape()[-1]
    if any(part.get_dtype() not in _FLOATS for part in parts) or not 0 < rank <= min(layer["shape"]):
        raise ValueError("low rank")
    if up.get_shape() != [layer["shape"][0], rank] or down.get_shape() != [rank, layer["shape"][1]]:
        raise ValueError("low rank")


def _check_input_scale(layer: Mapping[str, Any], part: Any) -> None:
    """Raises ValueError for a scale of other inputs, or a rotation that does not fit them. ``part`` is a slice."""
    if part is not None and (
        layer.get("native") or len(layer["shape"]) != 2 or part.get_dtype() not in _FLOATS
        or part.get_shape() != layer["shape"][1:]
    ):  # fmt: skip
        raise ValueError(INPUT_SCALE)
    size = layer.get("rotation", 0)
    if type(size) is not int or size not in (0, *SIZES) or (size and layer["shape"][1] % size):
        raise ValueError("rotation")


def _check_norm_shift(layer: Mapping[str, Any], part: Any) -> None:
    """Raises ValueError for one of other outputs. ``part`` is a slice."""
    if part is not None and (
        layer.get("native") or part.get_dtype() not in _FLOATS or part.get_shape() != layer["shape"][:1]
    ):
        raise ValueError(NORM_SHIFT)


def _check_first_token(layer: Mapping[str, Any], parts: list[Any]) -> None:
    """Raises ValueError for one without the other, or not of the layer's inputs and outputs. ``parts`` are slices."""
    if all(part is None for part in parts):
        return
    for part, size in zip(parts, reversed(layer["shape"]), strict=True):
        if layer.get("native") or part is None or part.get_dtype() not in _FLOATS or part.get_shape() != [size]:
            raise ValueError(size)
