"""A quantised twin of a loaded MODEL: the same structure with packed layers, the source left untouched."""

from __future__ import annotations

import copy
import uuid
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor, nn

from ...qsched_core import QuantizationError, QuantReport
from ...qsched_core.quant import (
    HAS_BITS,
    Job,
    LayerReport,
    candidates,
    label_of,
    module_bytes,
    quantized_layers,
    require_some,
    unpackable,
)
from ..host.model_info import mark_fitted
from ..sampling.step_precision import put_last_steps
from .layer_patches import is_adapter
from .mean_correction import correct_means
from .patcher import PackedPatcher, key_of, network_of, packed_patcher
from .sources import copied, float_value, is_source, require_readable

_PASSED_THROUGH = "Nothing to gain: the model goes through as it is. Choose fewer bits, or leave this node out."
_INJECTED = "LoRAs in bypass mode are not carried over: load them after Quantize Model W4A8"


def quantized_twin(source, job: Job, on_layer: Callable[[int, int], None] = lambda done, total: None):
    """(MODEL, QuantReport): a new MODEL with packed weights that keeps the source's LoRAs, patches and options. The
    patcher of a CLIP is quantised as a MODEL is.

    LoRAs and their kin stay patches, applied at the packed layer. A merge with another model is as large as the
    weight: it is packed with it, once. ``on_layer(done, total)`` is called after each layer and may raise to cancel;
    the host's own cancel is also looked for while a layer is fitted, which takes minutes for the widest on a CPU.

    Raises:
        QuantizationError: a model that was quantised here or by a pack of its own, or without a layer to quantise.
    """
    job = replace(job, check=comfy.model_management.throw_exception_if_processing_interrupted)
    with ExitStack() as stack:
        for patcher in _sharing(source):  # what they injected into the modules is none of the model's
            stack.enter_context(patcher.use_ejected())
        return _quantized_twin(source, job, on_layer)


def _sharing(source) -> list:
    """The MODEL and every loaded clone of it."""
    loaded = (entry.model for entry in comfy.model_management.current_loaded_models)
    return [source, *(patcher for patcher in loaded if patcher is not None and patcher.is_clone(source))]


def _quantized_twin(source, job: Job, on_layer: Callable[[int, int], None]):
    original = Originals(source)
    network = network_of(source.model)
    require_readable(network)
    before = module_bytes(network)
    packed: dict[str, nn.Module] = {}
    reports = []
    total = len(list(candidates(network, job.recipe)))
    with torch.no_grad():
        for twin, report in quantized_layers(
            network, job, lambda name, _: original.merged(key_of(source.model, name)), is_source=is_source
        ):
            reports.append(report)
            if twin is not None:
                packed[report.name] = twin.to(source.offload_device)
            on_layer(len(reports), total)
        if not packed and any(report.reason.startswith(HAS_BITS) for report in reports):
            return source.clone(), _nothing_to_gain(network, reports)
        base = _copy_model(source, original, packed)
    notes = [*job.notes_on(network), *unpackable(network), *([_INJECTED] if source.injections else [])]
    steps = job.wide_steps if hasattr(base, "diffusion_model") else 0  # text encoders have no steps
    size = module_bytes(network_of(base))
    report = QuantReport(tuple(reports), before, size, tuple(notes), label_of(network), steps)
    require_some(report, job)
    patcher = patcher_over(source, base)
    put_last_steps(patcher, report.last_steps)
    if report.is_fitted:
        mark_fitted(patcher, str(job.ways[0].form) if job.plan is None else label_of(network_of(base)))
    for name in packed:
        _keep_adapters(patcher, key_of(base, f"{name}.weight"))
    if job.fits:
        report = replace(report, correction=correct_means(
            patcher, packed, job.observation, lambda: on_layer(total, total)
        ))  # fmt: skip
    if source.cached_patcher_init is not None:
        # An observation holds inputs and the model it was made of: a twin does not keep it alive.
        observation_ref = None if job.observation is None else weakref.ref(job.observation)
        patcher.cached_patcher_init = (
            make_again,
            (source.cached_patcher_init, replace(job, observation=None), observation_ref),
        )
    return patcher, report


def _nothing_to_gain(network: nn.Module, reports: list[LayerReport]) -> QuantReport:
    """What is said of a model that is as small as it would become."""
    size = module_bytes(network)
    return QuantReport(tuple(reports), size, size, (_PASSED_THROUGH,), label_of(network))


def make_again(init: tuple, job: Job, observation_ref: weakref.ref | None = None, disable_dynamic: bool = False):
    """The host loads a model once more for another GPU, by the loader's recipe: ours goes on from there.

    Raises:
        QuantizationError: it was rounded by an observation that is gone.
    """
    if observation_ref is not None:
        if (observation := observation_ref()) is None:
            fix = "run the workflow again from Observe Layers"
            raise QuantizationError("the observation that rounded this model is gone.", fix)
        job = replace(job, observation=observation)
    loader, arguments, *index = init
    source = loader(*arguments, disable_dynamic=disable_dynamic)
    return quantized_twin(source[index[0]] if index else source, job)[0]


class Originals:
    """Parameters as loaded: a LoRA that some clone has merged in place is looked through (the host keeps a backup)."""

    def __init__(self, source):
        self.source = source

    def __call__(self, key: str) -> Tensor:
        backup = self.source.backup.get(key)
        value = backup.weight if backup is not None else comfy.utils.get_attr(self.source.model, key)
        # A weight that the checkpoint did not have is zero, which the host makes when it first needs it.
        return torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value

    def merged(self, key: str) -> Tensor:
        """The parameter with those of its patches in it that are as large as itself."""
        weight, patches = self.floats(key), self.source.patches.get(key, [])
        large = patches[: _large(patches)] if key.endswith(".weight") else []
        if not large:
            return weight
        return comfy.lora.calculate_weight(large, weight.detach().float().clone(), key)

    def floats(self, key: str) -> Tensor:
        """The parameter as floats, whoever packed its layer."""
        name, _, leaf = key.rpartition(".")
        return float_value(self.source.model.get_submodule(name), leaf, self(key))


def _large(patches: list[tuple]) -> int:
    """How many of the patches, from the first, are packed with the weight: all up to the last that is no adapter."""
    return max((place + 1 for place, patch in enumerate(patches) if not is_adapter(patch)), default=0)


def _keep_adapters(patcher: PackedPatcher, key: str) -> None:
    """Forget the patches that were packed with the weight."""
    if rest := patcher.patches.get(key, [])[_large(patcher.patches.get(key, [])) :]:
        patcher.patches[key] = rest
    else:
        patcher.patches.pop(key, None)


def _copy_model(source, original: Originals, packed: dict[str, nn.Module]) -> nn.Module:
    """A deep copy of the host's model object in which the packed layers stand in for the float ones.

    Copying keeps every family's own structure without knowing any family. The memo of ``deepcopy`` holds what must
    not be copied as it stands: packed layers, parameters and buffers as they were loaded, the model config (shared by
    design), and what the loader keeps of a loaded model, which starts empty.
    """
    model = source.model
    memo: dict[int, object] = {}
    if (config := getattr(model, "model_config", None)) is not None:
        memo[id(config)] = config
    for name, layer in packed.items():
        memo[id(network_of(model).get_submodule(name))] = layer
    owners = {key_of(model, name) for name in packed}
    for key, parameter in model.named_parameters():
        if key.rpartition(".")[0] not in owners:
            value = copied(original(key), source.offload_device)
            memo[id(parameter)] = nn.Parameter(value, requires_grad=False)
    for key, buffer in model.named_buffers():
        memo[id(buffer)] = source.backup_buffers.get(key, buffer).detach().to(source.offload_device, copy=True)
    for name, value in vars(model).items():
        if name.startswith("dynamic_"):
            memo[id(value)] = type(value)()
    if (patcher := getattr(model, "current_patcher", None)) is not None:
        memo[id(patcher)] = None
    for module in model.modules():
        memo.update({id(value): None for value in _loaded_state(module).values() if not _is_atom(value)})
    twin = copy.deepcopy(model, memo)
    for name, value in source.object_patches_backup.items():
        comfy.utils.set_attr(twin, name, copy.deepcopy(value, memo))
    for module in twin.modules():
        for name in _loaded_state(module):
            delattr(module, name)
        comfy.model_patcher.wipe_lowvram_weight(module)
    return twin.to(source.offload_device)


_LOADED_STATE = ("_v", "_pin", "_prefetch", "seed_key", "comfy_patched_weights", "comfy_force_cast_weights")
"""What attributes of a module begin with that the host sets when it loads it: pages and handles in the device's
memory (dynamic VRAM), pinned memory, and marks. A copied handle would be freed twice, in use."""


def _loaded_state(module: nn.Module) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith(_LOADED_STATE) or name.endswith("_lowvram_function")
    }


def _is_atom(value) -> bool:
    """Small numbers and texts are one object wherever they stand: the memo must not name them."""
    return value is None or isinstance(value, (bool, int, float, str, bytes, type))


def patcher_over(source, base: nn.Module) -> PackedPatcher:
    """The source's patcher over another model: LoRAs, wrappers and options kept, nothing else shared."""
    # disable_dynamic: the streaming loader requantises a patched weight, which loses most of a LoRA.
    patcher = source.clone(disable_dynamic=True, model_override=(base, ({}, {}, {}, set())))
    patcher.size = 0
    patcher.patches_uuid = uuid.uuid4()
    patcher.clone_base_uuid = uuid.uuid4()
    patcher.injections, patcher.is_injected = {}, False
    # Hooks that hold on the source are none of the twin's.
    patcher.hook_backup, patcher.cached_hook_patches, patcher.current_hooks = {}, {}, None
    base.device = source.offload_device
    base.model_loaded_weight_memory = base.lowvram_patch_counter = base.model_offload_buffer_memory = 0
    base.model_lowvram = False
    base.current_weight_patches_uuid = None
    return packed_patcher(patcher)
