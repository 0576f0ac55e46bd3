"""A quantised module as a file, and back: packed weights, the floats that were kept, and what each layer is.

``.safetensors`` with string metadata. Files come from strangers: kinds, formats, shapes and byte counts are checked
before a layer is made of them, and the module they are put into decides what names there may be.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import QuantizationError
from .formats import Format
from .layers import QuantizedConv2d, QuantizedLayer
from .packing import row_bytes
from .quantize import TWINS

FORMAT, VERSION = "qsched-quantized", "1"
_CONVOLUTION = ("stride", "padding", "dilation", "groups")


@dataclass(frozen=True)
class Stored:
    """What a file holds. ``layers`` maps a packed layer's name to its format, float shape and convolution options;
    ``about`` is whatever else the writer noted."""

    tensors: Mapping[str, Tensor]
    layers: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, str]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape as the float module has it: what a host's model detection reads."""
        found = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        return found | {f"{name}.weight": tuple(layer["shape"]) for name, layer in self.layers.items()}


def save_quantized(module: nn.Module, path: str | os.PathLike[str], about: Mapping[str, str] | None = None) -> None:
    """Write a quantised module atomically: beside the target, read back and compared, then renamed over it.

    Raises:
        QuantizationError: nothing in it is quantised, or the file cannot be written (nothing is left behind).
    """
    path = Path(path)
    layers = {name: _record(child) for name, child in module.named_modules() if isinstance(child, QuantizedLayer)}
    if not layers:
        raise QuantizationError("this model is not quantised.", "plug in Quantize Model W4A8's model")
    tensors = {name: value.detach().to("cpu").contiguous() for name, value in module.state_dict().items()}
    metadata = {**(about or {}), "format": FORMAT, "version": VERSION, "layers": json.dumps(layers)}
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, temporary, metadata)
            written = load_quantized(temporary).tensors
            if written.keys() != tensors.keys() or not all(torch.equal(written[k], tensors[k]) for k in tensors):
                raise OSError("what was read back differs")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise QuantizationError(f"cannot write {path.name}: {error}", "free some space, or another folder") from error


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
                raise QuantizationError(f"{path.name} has version {version[:20]!r}.", "update the Q-Sched pack")
            # clone: what lies in the mapped file starts at odd addresses, and a matrix product rounds otherwise there.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except OSError as error:
        raise QuantizationError(f"cannot read {path.name}: {error}", "check the file and its folder") from error
    except SafetensorError as error:
        raise QuantizationError(f"{path.name} is not a safetensors file.", "download or save it again") from error
    try:
        layers = json.loads(about.pop("layers", ""))
        for name, layer in layers.items():
            _check(name, layer, tensors[f"{name}.weight"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantizationError(f"{path.name}: its list of layers is damaged.", "download or save it again") from error
    return Stored(tensors, layers, about)


def restore(module: nn.Module, stored: Stored, twins: Mapping[type[nn.Module], type[QuantizedLayer]] = TWINS) -> None:
    """Put a file's layers and values into ``module``, the float one it was made of. Its own values are not read; floats
    take the type that they have in it.

    Raises:
        QuantizationError: the module has other layers or shapes.
    """
    for name, layer in stored.layers.items():
        try:
            old = module.get_submodule(name)
        except AttributeError:
            old = None
        kind = next((twin for kind, twin in twins.items() if isinstance(old, kind)), None)
        if kind is None or tuple(old.weight.shape) != tuple(layer["shape"]):
            raise QuantizationError(
                f"layer {name[:60]} does not fit this model.", "use the file's own model", name=name
            )
        form, packed = _format(layer), stored.tensors[f"{name}.weight"]
        bias = None if old.bias is None else torch.empty_like(old.bias)
        if issubclass(kind, QuantizedConv2d):
            options = {key: _tuple(layer[key]) for key in _CONVOLUTION}
            twin = kind(packed, bias, tuple(layer["shape"]), form, **options)
        else:
            twin = kind(packed, bias, layer["shape"][1], form)
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, twin)
    expected = module.state_dict()
    for name in sorted(expected.keys() ^ stored.tensors.keys()):
        where = "the file" if name in expected else "this model"
        raise _unfit(f"{where} has no {name[:60]}.", name)
    for name, value in stored.tensors.items():
        if value.is_floating_point():
            value = value.to(expected[name].dtype)
        if expected[name].shape != value.shape:
            raise _unfit(f"{name[:60]} has another shape.", name)
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
        else:
            owner._buffers[leaf] = value


def _unfit(what: str, name: str) -> QuantizationError:
    return QuantizationError(what, "use the model that the file was made of", name=name)


def _record(layer: QuantizedLayer) -> dict[str, Any]:
    found = {"format": asdict(layer.format), "shape": list(layer.shape)}
    if isinstance(layer, QuantizedConv2d):
        found |= {key: getattr(layer, key) for key in _CONVOLUTION}
    return found


def _format(layer: Mapping[str, Any]) -> Format:
    return Format(**{item.name: layer["format"][item.name] for item in fields(Format)})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(name: str, layer: Mapping[str, Any], packed: Tensor) -> None:
    """Raises ValueError, TypeError or KeyError for a record that cannot be true."""
    shape, form = layer["shape"], _format(layer)
    if len(shape) not in (2, 4) or not all(isinstance(size, int) and 0 < size < 2**31 for size in shape):
        raise ValueError(name)
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (shape[0], row_bytes(prod(shape[1:]), form)):
        raise ValueError(name)
    if len(shape) == 4:
        for key in _CONVOLUTION:
            values = layer[key] if isinstance(layer[key], list) else [layer[key]]
            known = values == ["same"] or values == ["valid"]
            if not (known and key == "padding") and not all(isinstance(v, int) and 0 <= v < 4096 for v in values):
                raise ValueError(name)
