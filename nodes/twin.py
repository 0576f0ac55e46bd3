"""A quantised twin of a loaded MODEL: the same structure with packed layers, the source left untouched."""

from __future__ import annotations

import copy
import uuid
import weakref
from collections.abc import Callable
from dataclasses import replace

import comfy.utils
import torch
from torch import Tensor, nn

from ..qsched_core import QuantizationError, QuantReport
from ..qsched_core.quant import Job, QuantizedLayer, candidates, module_bytes, quantized_layers, require_some

ROOT = "diffusion_model"


def quantized_twin(source, job: Job, on_layer: Callable[[int, int], None] = lambda done, total: None):
    """(MODEL, QuantReport): a new MODEL with packed weights that keeps the source's LoRAs, patches and options.

    ``on_layer(done, total)`` is called after each layer and may raise to cancel.

    Raises:
        QuantizationError: a model that is quantised already, or without a layer to quantise.
    """
    original = Originals(source)
    network = source.model.diffusion_model
    refuse_quantized(network)
    before = module_bytes(network)
    packed: dict[str, nn.Module] = {}
    reports = []
    total = len(list(candidates(network, job.recipe)))
    with torch.no_grad():
        for twin, report in quantized_layers(network, job, lambda name, _: original(f"{ROOT}.{name}")):
            reports.append(report)
            if twin is not None:
                packed[report.name] = twin.to(source.offload_device)
            on_layer(len(reports), total)
        base = _copy_model(source, original, packed)
    report = QuantReport(tuple(reports), before, module_bytes(base.diffusion_model), tuple(job.notes))
    require_some(report)
    patcher = _patcher_for(source, base, all(_is_native(layer) for layer in packed.values()))
    if source.cached_patcher_init is not None:
        # An observation holds inputs and the model it was made of: a twin does not keep it alive.
        seen = None if job.observation is None else weakref.ref(job.observation)
        patcher.cached_patcher_init = (_made_again, (source.cached_patcher_init, replace(job, observation=None), seen))
    return patcher, report


def _made_again(init: tuple, job: Job, seen: weakref.ref | None = None, disable_dynamic: bool = False):
    """The host loads a model once more for another GPU, by the loader's recipe: ours goes on from there.

    Raises:
        QuantizationError: it was rounded by an observation that is gone.
    """
    if seen is not None:
        if (observation := seen()) is None:
            fix = "run the workflow again from Observe Layers"
            raise QuantizationError("the observation that rounded this model is gone.", fix)
        job = replace(job, observation=observation)
    loader, arguments, *index = init
    source = loader(*arguments, disable_dynamic=disable_dynamic)
    return quantized_twin(source[index[0]] if index else source, job)[0]


def _is_native(layer: nn.Module) -> bool:
    return not isinstance(layer, QuantizedLayer)


class Originals:
    """Parameters as loaded: a LoRA that some clone has merged in place is looked through (the host keeps a backup)."""

    def __init__(self, source):
        self.source = source

    def __call__(self, key: str) -> Tensor:
        backup = self.source.backup.get(key)
        return backup.weight if backup is not None else comfy.utils.get_attr(self.source.model, key)


def refuse_quantized(network: nn.Module) -> None:
    """Weights of one byte, and tensor classes of other quantisers (the host's layouts, GGUF), are quantised already."""
    for name, module in network.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and (type(weight.data) is not Tensor or weight.dtype.itemsize == 1):
            kind = f"{type(weight.data).__name__} of {weight.dtype}"
            raise QuantizationError(
                "this model is quantised already.", f"plug in the FP16 or BF16 model ({name} holds {kind})", layer=name
            )


def _copy_model(source, original: Originals, packed: dict[str, nn.Module]) -> nn.Module:
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
        if key.removeprefix(f"{ROOT}.").rpartition(".")[0] not in packed:
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


def _patcher_for(source, base: nn.Module, native: bool):
    """The source's patcher over another model: LoRAs, wrappers and options kept, nothing else shared."""
    # disable_dynamic: the streaming loader casts weights itself and knows no packing but the host's.
    patcher = source.clone(disable_dynamic=not native, model_override=(base, ({}, {}, {}, set())))
    patcher.size = 0
    patcher.patches_uuid = uuid.uuid4()
    patcher.clone_base_uuid = uuid.uuid4()
    base.device = source.offload_device
    base.model_loaded_weight_memory = base.lowvram_patch_counter = base.model_offload_buffer_memory = 0
    base.model_lowvram = False
    base.current_weight_patches_uuid = None
    return patcher
