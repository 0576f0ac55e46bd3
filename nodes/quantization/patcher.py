"""The host's patcher over a model with packed layers: it never merges a patch into packed codes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import comfy.hooks
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import LazyCastingParam, LowVramPatch, ModelPatcher
from torch import Tensor, nn

from ...qsched_core.quant.layers import prepare
from .layer_patches import LayerPatches
from .layers import HostLayer, PatchedAtOutput
from .packed_bytes import PackedBytes

ROOT = "diffusion_model"

_FLOAT_COPIES = 3
"""float32 weights that a call makes for a moment where a patch is dense: original, patched, and the difference."""


def network_of(model: nn.Module) -> nn.Module:
    """What is quantised of the host's model object: the network of a MODEL, or a text encoder, which is one itself."""
    return getattr(model, ROOT, model)


def key_of(model: nn.Module, name: str) -> str:
    """How the host's patches name a value of the network."""
    return f"{ROOT}.{name}" if hasattr(model, ROOT) else name


def float_dtype(model: nn.Module) -> torch.dtype:
    """Of the floats that the packed weights were made of."""
    if hasattr(model, "get_dtype"):
        return model.get_dtype()
    kinds = (value.dtype for value in model.parameters() if value.is_floating_point() and value.element_size() > 1)
    return next(kinds, torch.float16)


class PackedPatcher(ModelPatcher):
    """A ``ModelPatcher`` whose packed layers keep their bytes; their patches act at the output (``PatchedAtOutput``).

    Where the host would merge a patch into a weight, load it or restore it, this hands it to the layer instead. Every
    other weight goes the host's own way. ``clone`` keeps the class.
    """

    def packed_layers(self) -> Iterator[tuple[str, PatchedAtOutput]]:
        """(key of its weight, layer) of every packed layer."""
        for name, module in self.model.named_modules():
            if isinstance(module, PatchedAtOutput):
                yield f"{name}.weight", module

    def packed_layer(self, key: str) -> PatchedAtOutput | None:
        """The layer that this key is the packed weight of, if it is one."""
        name, _, leaf = key.rpartition(".")
        if leaf != "weight":
            return None
        try:
            layer = self.model.get_submodule(name)
        except AttributeError:
            return None
        return layer if isinstance(layer, PatchedAtOutput) else None

    # --- weights

    def patch_weight_to_device(self, key, device_to=None, inplace_update=False, return_weight=False, **more):
        layer = self.packed_layer(key)
        if layer is None:
            return super().patch_weight_to_device(key, device_to, inplace_update, return_weight, **more)
        if return_weight:
            if not isinstance(layer, HostLayer):  # the host saves its own layouts as such
                return super().patch_weight_to_device(key, device_to, inplace_update, return_weight, **more)
            return self.float_value(key, device_to)
        if key in self.patches:
            layer.loaded_patches = self._ready(layer, key, self.patches[key])
        return None

    def float_value(self, key: str, device: torch.device | None = None) -> Tensor:
        """A packed weight as the float one that it acts as, patches in it, in the model's dtype."""
        layer = self.packed_layer(key)
        weight = layer.float_weight(device or layer.weight.device)
        if key in self.patches:
            weight = layer.layer_patches(key, self.patches[key]).merged(weight)
        return weight.to(float_dtype(self.model))

    def _ready(self, layer: PatchedAtOutput, key: str, patches: list[tuple]) -> LayerPatches:
        return layer.layer_patches(key, patches).stay_on(self.load_device, self._dtype())

    def _dtype(self) -> torch.dtype:
        """What the model computes in."""
        return getattr(self.model, "manual_cast_dtype", None) or self.model.get_dtype()

    def load(self, *args, **kwargs):
        # Layers that stay offloaded are never moved there, and compute there all the same.
        prepare(self.load_device)
        super().load(*args, **kwargs)
        if self.model.model_lowvram or self.model.model_loaded_weight_memory != self.model_size():
            self.model.model_loaded_weight_memory += self._resident_bytes()

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        super().unpatch_model(device_to, unpatch_weights)
        if unpatch_weights:
            for _, layer in self.packed_layers():
                layer.loaded_patches = None

    def partially_unload(self, *args, **kwargs):
        before = self._resident_bytes()
        freed = super().partially_unload(*args, **kwargs)
        for _, layer in self.packed_layers():
            if any(isinstance(function, LowVramPatch) for function in layer.weight_function):
                layer.loaded_patches = None
        more = before - self._resident_bytes()
        self.model.model_loaded_weight_memory -= more
        return freed + more

    # --- memory

    def model_size(self) -> int:
        return super().model_size() + self._patch_bytes()

    def clone(self, *args, **kwargs):
        twin = super().clone(*args, **kwargs)
        twin.size = self.size  # the host hands on model_size(), patches counted
        return twin

    def _patch_bytes(self) -> int:
        """What all patches take on the device when every layer is loaded."""
        stamp = self.patches_uuid
        if stamp not in getattr(self, "_patch_sizes", {}):
            layers = ((key, self.packed_layer(key)) for key in self.patches)
            sizes = (
                layer.layer_patches(key, self.patches[key]).bytes(self._dtype())
                for key, layer in layers
                if layer is not None
            )
            self._patch_sizes = {stamp: sum(sizes)}
        return self._patch_sizes[stamp]

    def _resident_bytes(self) -> int:
        loaded = (layer.loaded_patches for _, layer in self.packed_layers())
        return sum(patches.bytes(self._dtype()) for patches in loaded if patches is not None)

    def _load_list(self, *args, **kwargs):
        """The host reckons what a layer needs from its packed bytes; it is the float weight that a call makes.

        A layer with a low-rank part is not a leaf, and those the host passes over: it is listed as one.
        """
        layers = {module: name for name, module in self.model.named_modules() if isinstance(module, PatchedAtOutput)}
        parts = {part for layer in layers for part in layer.modules() if part is not layer}
        entries = super()._load_list(*args, **kwargs)
        others = [entry for entry in entries if entry[3] not in layers and entry[3] not in parts]
        return others + [self._entry(name, layer) for layer, name in layers.items()]

    def _entry(self, name: str, layer: PatchedAtOutput) -> tuple:
        """(bytes while it runs offloaded, bytes, name, layer, own parameters): what the host sorts by and loads."""
        key, size = f"{name}.weight", comfy.model_management.module_size(layer)
        patches = self.patches.get(key)
        dense = patches is not None and layer.layer_patches(key, patches).is_dense
        weights = prod(layer.float_shape)
        need = weights * (4 * _FLOAT_COPIES if dense else self._dtype().itemsize)
        return (size + need, size, name, layer, dict(layer.named_parameters(recurse=False)))

    # --- hooks

    def patch_hook_weight_to_device(self, hooks, combined_patches, key, original_weights, memory_counter):
        layer = self.packed_layer(key)
        if layer is None:
            super().patch_hook_weight_to_device(hooks, combined_patches, key, original_weights, memory_counter)
        elif key in combined_patches:
            layer.hook_patches = self._ready(layer, key, combined_patches[key])
            if self.hook_mode == comfy.hooks.EnumHookMode.MaxSpeed:
                self.cached_hook_patches.setdefault(hooks, {})[key] = (layer.hook_patches, self.load_device)

    def patch_cached_hook_weights(self, cached_weights, key, memory_counter):
        layer = self.packed_layer(key)
        if layer is None:
            super().patch_cached_hook_weights(cached_weights, key, memory_counter)
        else:
            layer.hook_patches = cached_weights[key][0]

    def unpatch_hooks(self, whitelist_keys_set=None) -> None:
        for key, layer in self.packed_layers():
            if not whitelist_keys_set or key in whitelist_keys_set:
                layer.hook_patches = None
        super().unpatch_hooks(whitelist_keys_set)

    # --- readers of other nodes

    def get_key_patches(self, filter_prefix=None):
        key_patches = super().get_key_patches(filter_prefix)
        for patches in key_patches.values():
            weight, *convert = patches[0]
            if isinstance(weight, PackedBytes):  # the host casts the bytes to floats, and then has them unpacked
                patches[0] = (weight.detach(), *convert)
        return key_patches

    def model_state_dict(self, filter_prefix=None):
        layers = {key: layer for key, layer in self.packed_layers() if isinstance(layer, HostLayer)}
        with reading_bytes(self.model):  # what is read as floats would all be unpacked here
            values = super().model_state_dict(filter_prefix)
        return FloatWeights(values, layers, float_dtype(self.model))

    def model_state_dict_for_saving(self, model=None, prefix=""):
        """The host's own checkpoint: our weights as floats, each unpacked when it is written, the host's as they are.

        Patches are in them. A layout of the host's is rounded once more for that, which loses most of a small patch.
        """
        layers = dict(self.packed_layers())
        with reading_bytes(self.model), _as_loaded(list(layers.values())):
            values = super().model_state_dict_for_saving(model, prefix)
        for key, layer in layers.items():
            inner = key.removeprefix(prefix)
            if inner not in values:
                continue
            if isinstance(layer, HostLayer):
                shape = torch.empty(layer.float_shape, dtype=float_dtype(self.model), device="meta")
                values[inner] = LazyCastingParam(self, key, shape)
            elif key in self.patches:
                values.update(self.patch_weight_to_device(key, return_weight=True).state_dict(inner))
        return values


class PackedTextPatcher(PackedPatcher):
    """The same of a CLIP: its model object is the network, and says nothing of types."""

    def _dtype(self) -> torch.dtype:
        return torch.float32  # what the host gives every text encoder as input, whatever its weights are


@contextmanager
def _as_loaded(layers: list[nn.Module]) -> Iterator[None]:
    """The host's stand-ins for what is written later cannot be of integers: of these layers it takes what is there."""
    before = [getattr(layer, "comfy_patched_weights", None) for layer in layers]
    for layer in layers:
        layer.comfy_patched_weights = True
    try:
        yield
    finally:
        for layer, mark in zip(layers, before, strict=True):
            if mark is None:
                del layer.comfy_patched_weights
            else:
                layer.comfy_patched_weights = mark


class FloatWeights(OrderedDict):
    """A state dict that unpacks a packed weight when it is read: all of them at once would be the float model."""

    def __init__(self, values, layers: dict[str, PatchedAtOutput], dtype: torch.dtype):
        super().__init__(values)
        self._layers, self._dtype = layers, dtype

    def __getitem__(self, key: str) -> Tensor:
        value = super().__getitem__(key)
        layer = self._layers.get(key)
        return value if layer is None else layer.patched_weight(value.device).to(self._dtype)

    def get(self, key, default=None):
        return self[key] if key in self else default

    def items(self):
        return ((key, self[key]) for key in self)

    def values(self):
        return (self[key] for key in self)


class FloatReader:
    """A hook of the network's ``state_dict``: who asks the network itself for its weights gets floats (ControlLora).

    The host asks the whole model, and gets the bytes as they are.
    """

    reads_bytes = False

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __call__(self, network: nn.Module, values: dict[str, Tensor], prefix: str, metadata) -> dict | None:
        if prefix or self.reads_bytes:
            return None
        layers = {f"{name}.weight": layer for name, layer in network.named_modules() if isinstance(layer, HostLayer)}
        return FloatWeights(values, layers, self.dtype)


def read_as_floats(model: nn.Module) -> None:
    """From now on the network's own ``state_dict`` gives floats."""
    network = network_of(model)
    if not _readers(network):
        network._register_state_dict_hook(FloatReader(float_dtype(model)))


def bytes_of(model: nn.Module) -> dict[str, Tensor]:
    """The network's state dict as it lies in memory."""
    with reading_bytes(model):
        return network_of(model).state_dict()


@contextmanager
def reading_bytes(model: nn.Module) -> Iterator[None]:
    readers = _readers(network_of(model))
    for reader in readers:
        reader.reads_bytes = True
    try:
        yield
    finally:
        for reader in readers:
            reader.reads_bytes = False


def _readers(network: nn.Module) -> list[FloatReader]:
    return [hook for hook in network._state_dict_hooks.values() if isinstance(hook, FloatReader)]


def packed_patcher(patcher: ModelPatcher) -> PackedPatcher:
    """A patcher of the host's, made ours: everything it holds stays."""
    if not hasattr(patcher.model, ROOT):
        patcher.__class__ = PackedTextPatcher  # here the host itself asks for the state dict, to count bytes
        return patcher
    patcher.__class__ = PackedPatcher
    read_as_floats(patcher.model)
    return patcher
