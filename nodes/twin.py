"""A quantised twin of a loaded MODEL: the same structure with packed layers, the source left untouched."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Sequence

import comfy.utils
import torch
from torch import Tensor, nn

from ..qsched_core import QuantizationError, QuantReport
from ..qsched_core.quant import (
    Format,
    QuantizedConv2d,
    QuantizedLinear,
    candidates,
    module_bytes,
    quantized_layers,
    require_some,
)
from ..qsched_core.quant.packing import pack

_ROOT = "diffusion_model"


class _HostWeight:
    """The host's weight protocol over packed bytes, so that LoRA, offload and partial loading work.

    ``convert_weight`` and ``set_weight`` are what the host calls around a LoRA: packed → float → packed again.
    ``comfy_cast_weights`` lets it leave the packed weight on the CPU; ``weight_function`` then holds the patches.
    """

    comfy_cast_weights = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight_function: list[Callable[[Tensor], Tensor]] = []
        self.bias_function: list[Callable[[Tensor], Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        weight = self.dequantized(x.dtype, x.device)
        for function in self.weight_function:
            weight = function(weight)
        return self.apply_weight(x, weight)

    def convert_weight(self, weight: Tensor, inplace: bool = False, **kwargs) -> Tensor:
        # The host may have cast the bytes to a float type on the way; 0 … 255 are exact in all of them.
        return self.unpacked(weight.to(torch.uint8))

    def set_weight(self, weight: Tensor, inplace_update=False, seed=None, return_weight=False, **kwargs):
        packed = pack(weight.flatten(1), self.format)
        if return_weight:
            return packed
        if inplace_update:
            self.weight.data.copy_(packed)
        else:
            self.weight = nn.Parameter(packed, requires_grad=False)
        return None


class HostLinear(_HostWeight, QuantizedLinear):
    """A packed Linear of the host."""


class HostConv2d(_HostWeight, QuantizedConv2d):
    """A packed Conv2d of the host."""


TWINS = {nn.Linear: HostLinear, nn.Conv2d: HostConv2d}


def quantized_twin(
    source,
    form: Format,
    *,
    recipe: str = "compact",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    on_layer: Callable[[int, int], None] = lambda done, total: None,
):
    """(MODEL, QuantReport): a new MODEL with packed weights that keeps the source's LoRAs, patches and options.

    ``on_layer(done, total)`` is called after each layer and may raise to cancel.

    Raises:
        QuantizationError: a model that is quantised already, or without a layer to quantise.
    """
    original = _Originals(source)
    network = source.model.diffusion_model
    _refuse_quantized(network)
    before = module_bytes(network)
    packed: dict[str, nn.Module] = {}
    reports = []
    total = len(list(candidates(network, recipe)))
    layers = quantized_layers(
        network,
        form,
        recipe=recipe,
        include=include,
        exclude=exclude,
        twins=TWINS,
        weight_of=lambda n, w: original(f"{_ROOT}.{n}"),
    )
    with torch.no_grad():
        for twin, report in layers:
            reports.append(report)
            if twin is not None:
                packed[report.name] = twin.to(source.offload_device)
            on_layer(len(reports), total)
        base = _copy_model(source, original, packed)
    report = QuantReport(str(form), "torch", tuple(reports), before, module_bytes(base.diffusion_model))
    require_some(report)
    return _patcher_for(source, base), report


class _Originals:
    """Parameters as loaded: a LoRA that some clone has merged in place is looked through (the host keeps a backup)."""

    def __init__(self, source):
        self.source = source

    def __call__(self, key: str) -> Tensor:
        backup = self.source.backup.get(key)
        return backup.weight if backup is not None else comfy.utils.get_attr(self.source.model, key)


def _refuse_quantized(network: nn.Module) -> None:
    """Weights of one byte, and tensor classes of other quantisers (the host's layouts, GGUF), are quantised already."""
    for name, module in network.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and (type(weight.data) is not Tensor or weight.dtype.itemsize == 1):
            kind = f"{type(weight.data).__name__} of {weight.dtype}"
            raise QuantizationError(
                "this model is quantised already.", f"plug in the FP16 or BF16 model ({name} holds {kind})", layer=name
            )


def _copy_model(source, original: _Originals, packed: dict[str, nn.Module]) -> nn.Module:
    """A deep copy of the host's model object in which the packed layers stand in for the float ones.

    Copying keeps every family's own structure without knowing any family. The memo of ``deepcopy`` holds what must
    not be copied as it stands: packed layers, parameters as they were loaded, the model config (shared by design),
    and the loader's own bookkeeping, which starts empty.
    """
    model = source.model
    memo: dict[int, object] = {id(model.model_config): model.model_config}
    for name, layer in packed.items():
        memo[id(model.diffusion_model.get_submodule(name))] = layer
    for key, parameter in model.named_parameters():
        if key.removeprefix(f"{_ROOT}.").rpartition(".")[0] not in packed:
            value = original(key).detach().to(source.offload_device, copy=True)
            memo[id(parameter)] = nn.Parameter(value, requires_grad=False)
    for name, value in vars(model).items():
        if name.startswith("dynamic_"):
            memo[id(value)] = type(value)()
    if (patcher := getattr(model, "current_patcher", None)) is not None:
        memo[id(patcher)] = None
    twin = copy.deepcopy(model, memo)
    for name, value in source.object_patches_backup.items():
        comfy.utils.set_attr(twin, name, copy.deepcopy(value, memo))
    for module in twin.modules():
        if hasattr(module, "comfy_patched_weights"):
            module.comfy_patched_weights = False
    return twin.to(source.offload_device)


def _patcher_for(source, base: nn.Module):
    """The source's patcher over another model: LoRAs, wrappers and options kept, nothing else shared."""
    # disable_dynamic: the streaming loader casts weights itself and knows no packed ones; the classic one does.
    patcher = source.clone(disable_dynamic=True, model_override=(base, ({}, {}, {}, set())))
    patcher.size = 0
    patcher.patches_uuid = uuid.uuid4()
    patcher.clone_base_uuid = uuid.uuid4()
    base.device = source.offload_device
    base.model_loaded_weight_memory = base.lowvram_patch_counter = base.model_offload_buffer_memory = 0
    base.model_lowvram = False
    base.current_weight_patches_uuid = None
    return patcher
