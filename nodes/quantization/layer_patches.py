"""Patches of a packed weight, applied at the layer's output: packed codes are never rounded a second time.

A LoRA of 1 % of the weights' norm is smaller than a step of a 4-bit grid, so a weight that is unpacked, patched and
packed again is the old one. Added at the output, the patch keeps its whole effect. The host's tuples are used as they
are: (strength, value, strength_model, offset, function), see ``comfy.lora.calculate_weight``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import prod

import comfy.lora
import torch
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

_DORA_SCALE = {"lora": 4, "loha": 7, "lokr": 8, "glora": 5, "oft": 3, "boft": 3}
"""Adapters, and where their ``weights`` hold DoRA's scale: with one they rescale the weight by its norm."""

_ADDING = ("lora", "loha", "lokr")
"""Adapters that add to the weight, where they have none."""

_LORA_MID, _LORA_RESHAPE = 3, 5
"""Places in the host's tuple of a LoRA's weights."""


class LayerPatches:
    """All patches of one layer's weight, in order. ``wrappers`` are functions weight -> weight that come after them.

    What is a plain LoRA runs as two thin products, down and up, all of them in one pair. Everything else becomes the
    difference that it makes to the weight, in float32, for each call anew: it would be as large as the float weight.
    """

    def __init__(
        self,
        key: str,
        patches: Sequence[tuple],
        shape: tuple[int, ...],
        wrappers: Sequence[Callable[[Tensor], Tensor]] = (),
        groups: int = 1,
        norm_shift: Tensor | None = None,
    ):
        self.key, self.shape, self.wrappers = key, tuple(shape), tuple(wrappers)
        self.patches = [patch for patch in patches if _fits(patch, self.shape, key)]
        self.additive = not self.wrappers and all(_is_additive(patch) for patch in self.patches)
        self._thin: list[tuple] = []
        self._dense = list(self.patches)
        if self.additive and groups == 1:
            self._thin = [patch for patch in self.patches if _is_thin(patch, self.shape)]
            self._dense = [patch for patch in self.patches if not _is_thin(patch, self.shape)]
            if self.rank * (self.shape[0] + prod(self.shape[1:])) >= prod(self.shape):
                self._thin, self._dense = [], self.patches
        # DoRA divides by the norm of the weight that it was trained on, which packing has changed. A weight that is
        # replaced, or made larger, has no such norm.
        rescales = any(_has_dora(patch) for patch in self.patches) and all(map(is_adapter, self.patches))
        self._norm_shift = norm_shift if rescales else None
        self._resident: tuple[Tensor, Tensor] | None = None

    @property
    def rank(self) -> int:
        """Columns of the two thin matrices together."""
        return sum(patch[1].weights[1].shape[0] for patch in self._thin)

    @property
    def is_dense(self) -> bool:
        """Whether a call makes a matrix of the weight's size."""
        return bool(self._dense or self.wrappers)

    def bytes(self, dtype: torch.dtype) -> int:
        """Bytes of the thin matrices where they stay on the device."""
        return self.rank * (self.shape[0] + prod(self.shape[1:])) * dtype.itemsize

    def stay_on(self, device: torch.device, dtype: torch.dtype) -> LayerPatches:
        """Make the thin matrices there, once for all calls, as the host merges a patch when it loads a layer."""
        if self._thin:
            self._resident = self._factors(device, dtype)
        if self._norm_shift is not None:
            self._norm_shift = self._norm_shift.to(device)
        return self

    def added(self, layer, x: Tensor, out: Tensor) -> Tensor:
        """``out``, the layer's output for ``x`` without the patches, with them."""
        if self._thin:
            down, up = self._resident if self._resident is not None else self._factors(x.device, x.dtype)
            out = layer.add_thin(x, out, down.to(x), up.to(x))
        if not self.is_dense:
            return out
        before, after = self._weights(layer, x.device, self._dense)
        if after.shape != before.shape:  # a patch that makes the layer wider
            return layer.float_product(x, after.to(x.dtype), layer.bias)
        return out + layer.float_product(x, (after - before).to(x.dtype), None)

    def merged(self, weight: Tensor) -> Tensor:
        """A float weight with the patches in it, float32 and in its own shape."""
        weight = weight.float()
        long = self._as_long(weight)
        full = self._apply(long.clone(), long, self.patches)
        if long is weight or full.shape != weight.shape:
            return full
        return weight + (full - long)

    def _as_long(self, weight: Tensor) -> Tensor:
        """A packed weight with rows as long as the float one's."""
        if self._norm_shift is None:
            return weight
        factor = 1 + self._norm_shift.to(weight)
        return weight * factor.view(-1, *[1] * (weight.ndim - 1))

    def _weights(self, layer, device: torch.device, patches: Sequence[tuple]) -> tuple[Tensor, Tensor]:
        if self.additive:
            before = torch.zeros(self.shape, device=device)
        else:
            before = self._as_long(layer.float_weight(device))
        return before, self._apply(before.clone(), before, patches)

    def _apply(self, weight: Tensor, original: Tensor, patches: Sequence[tuple]) -> Tensor:
        originals = {self.key: [(original, lambda value, **_: value)]}
        weight = comfy.lora.calculate_weight(
            patches, weight, self.key, intermediate_dtype=torch.float32, original_weights=originals
        )
        for wrapper in self.wrappers:
            weight = wrapper(weight)
        return weight

    def _factors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(down (R, …), up (N, R)): the patches side by side, scaled, padded with zeros where they have an offset."""
        rows, columns = self.shape[0], prod(self.shape[1:])
        downs, ups = [], []
        for patch in self._thin:
            (top, high), (left, wide) = _window(patch[3], rows, columns)
            up, down, scale = _up_down(patch)
            # Cast before it is moved: host memory to the device is the slow way.
            down = torch.nn.functional.pad(down.float() * scale, (left, columns - left - wide))
            up = torch.nn.functional.pad(up.float(), (0, 0, top, rows - top - high))
            downs.append(down.to(dtype).to(device))
            ups.append(up.to(dtype).to(device))
        return torch.cat(downs).reshape(-1, *self.shape[1:]), torch.cat(ups, dim=1)


def is_adapter(patch: tuple) -> bool:
    """Whether a patch is a LoRA or one of its kin, small beside the weight."""
    return isinstance(patch[1], WeightAdapterBase)


def _has_dora(patch: tuple) -> bool:
    place = _DORA_SCALE.get(getattr(patch[1], "name", None)) if is_adapter(patch) else None
    return place is not None and len(patch[1].weights) > place and patch[1].weights[place] is not None


def _is_additive(patch: tuple) -> bool:
    """Whether it adds the same to every weight: then the weight need not be unpacked for it."""
    _, value, strength_model, _, _ = patch
    if is_adapter(patch):
        reshapes = value.name == "lora" and value.weights[_LORA_RESHAPE] is not None
        adds = value.name in _ADDING and not _has_dora(patch) and not reshapes
    elif isinstance(value, tuple):
        kind, parts = ("diff", value) if len(value) == 1 else value
        adds = kind == "diff" and not (len(parts) > 1 and parts[1]["pad_weight"])
    else:
        adds = False
    return adds and strength_model == 1.0


def _is_thin(patch: tuple, shape: tuple[int, ...]) -> bool:
    """Whether it is a LoRA of two matrices over the weight, or over a range of its rows or columns."""
    _, value, _, offset, function = patch
    if not is_adapter(patch) or value.name != "lora" or value.weights[_LORA_MID] is not None or function is not None:
        return False
    return offset is None or offset[0] == 0 or (offset[0] == 1 and len(shape) == 2)


def _fits(patch: tuple, shape: tuple[int, ...], key: str) -> bool:
    """Whether a LoRA is of this weight's shape. The host says it of another model's and leaves it out; so do we."""
    if not (is_adapter(patch) and _is_thin(patch, shape) and _is_additive(patch)):
        return True
    (_, high), (_, wide) = _window(patch[3], shape[0], prod(shape[1:]))
    up, down, _ = _up_down(patch)
    if (up.shape[0], down.shape[1], up.shape[1]) == (high, wide, down.shape[0]):
        return True
    logging.error("ERROR lora %s %s is not of this model's shape %s", key, (len(up), down.shape[1]), tuple(shape))
    return False


def _up_down(patch: tuple) -> tuple[Tensor, Tensor, float]:
    strength, value, *_ = patch
    up, down, alpha = value.weights[:3]
    up, down = up.flatten(1), down.flatten(1)
    return up, down, strength * (1.0 if alpha is None else float(alpha) / down.shape[0])


def _window(offset: tuple[int, int, int] | None, rows: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """((first row, rows), (first column, columns)) that a patch is of."""
    if offset is None:
        return (0, rows), (0, columns)
    dim, start, length = offset
    return ((start, length), (0, columns)) if dim == 0 else ((0, rows), (start, length))
