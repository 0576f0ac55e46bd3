"""A quantised module as a file, and back: packed weights, the floats that were kept, and what each layer is.

``.safetensors`` with string metadata. Files come from strangers: kinds, formats, shapes and byte counts are checked
before a layer is made of them, and the module they are put into decides what names, shapes, types and convolutions
there may be. What can be known without the values is checked before they are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import QuantizationError
from .backends.torch import TWINS
from .branch import LowRank
from .checked_write import write_checked
from .convolutions import OPTIONS, QuantizedConvolution
from .layers import FIRST_TOKEN, INPUT_SCALE, NORM_SHIFT, QuantizedLayer
from .packing import sound_scales
from .records import LOW_RANK, checked_records, format_of, layer_records

FORMAT, VERSION = "qsched-quantized", "2"


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
    layers = layer_records(module)
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
                raise QuantizationError(
                    f"{path.name} is no quantised model of ours.", "use a file that this pack has saved"
                )
            if (version := about.pop("version", "")) != VERSION:
                fix = "update the pack, or quantise the model again"
                raise QuantizationError(f"{path.name} has version {version[:20]!r}.", fix)
            about.pop("padding", None)
            slices = {name: file.get_slice(name) for name in file.keys()}
            layers = checked_records(about.pop("layers", ""), slices, path)
            # clone: what lies in the mapped file starts at odd addresses, and a matrix product rounds otherwise there.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except OSError as error:
        raise QuantizationError(f"cannot read {path.name}: {error}", "check the file and its folder") from error
    except SafetensorError as error:
        raise QuantizationError(f"{path.name} is not a safetensors file.", "download or save it again") from error
    for name, layer in layers.items():
        if not layer.get("native") and not sound_scales(
            tensors[f"{name}.weight"], prod(layer["shape"][1:]), format_of(layer)
        ):
            raise QuantizationError(
                f"layer {name[:40]} holds scales that are no numbers.", "download or save the file again", name=name
            )
    return Stored(tensors, layers, about)


def restore(
    module: nn.Module,
    content: Stored,
    twins: Mapping[type[nn.Module], type[QuantizedLayer]] = TWINS,
    native: Callable[[nn.Linear, dict[str, Tensor]], nn.Module] | None = None,
) -> None:
    """Put a file's layers and values into ``module``, the float one it was made of. Its own values are not read; floats
    take the type that they have in it. ``native(layer, values)`` makes a host's layer of its part of a file, to take
    the place of the float ``layer``.

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
        return _native(name, old, content, native)
    layer, packed = content.layers[name], content.tensors[f"{name}.weight"]
    form, bias = format_of(layer), None if old.bias is None else torch.empty_like(old.bias)
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


def _native(name: str, old: nn.Linear, content: Stored, make: Callable[..., nn.Module] | None) -> nn.Module:
    if make is None:
        raise QuantizationError("this file holds native layers of ComfyUI.", "load it in ComfyUI", name=name)
    try:
        return make(old, content.values_of(name))
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        fix = "update ComfyUI, or save the model again"
        raise QuantizationError(
            f"this ComfyUI cannot read layer {name[:40]}.", f"{fix} ({error})", name=name
        ) from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
