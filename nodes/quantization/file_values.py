"""Values of quantised networks in files: as they act, patches beside packed weights, and the places they come back to.

The same for a MODEL and for the patcher of a CLIP.
"""

from __future__ import annotations

import comfy.lora
import comfy.utils
import torch
from torch import Tensor, nn

from ...qsched_core.quant import is_packed
from .patch_files import is_written
from .patcher import bytes_of, key_of, network_of
from .twin_model import Originals

KIND, TEXT_ENCODER = "kind", "text encoder"
"""What a file's metadata says of its content; those of MODELs say nothing."""


def is_native(model) -> bool:
    """Whether every packed layer is in one of the host's own layouts, none of them in ours."""
    layers = [layer for layer in network_of(model.model).modules() if is_packed(layer)]
    return bool(layers) and all("comfy_quant" in layer.state_dict() for layer in layers)


def is_stock(model) -> bool:
    """Whether stock loaders read the network whole: native layouts, and no LoRA on a packed layer, which the host's own
    files have no place for."""
    return is_native(model) and not any(model.patches.get(key) for key in _packed_keys(model))


def values_and_patches(model) -> tuple[dict[str, Tensor], dict[str, list[tuple]]]:
    """(the network's values with what is merged into them, the patches that are written beside them), by key.

    Nothing is loaded for it, and nothing that another clone has merged is in it.
    """
    original, patches = Originals(model), {}
    values = dict(bytes_of(model.model))
    packed = set(_packed_keys(model))
    for key in [*values]:
        whole = key_of(model.model, key)
        if whole in packed:
            merged, patches[key] = _merged_and_rest(model, whole)
            values.update(_packed_value(model, key, original, merged))
        elif whole in model.backup or whole in model.patches:
            weight = original(whole)
            values[key] = _merged(weight, model.patches.get(whole, []), whole).to(weight.dtype)
        elif whole in model.backup_buffers:
            values[key] = model.backup_buffers[whole]
    return values, patches


def _packed_keys(model) -> list[str]:
    modules = network_of(model.model).named_modules()
    return [key_of(model.model, f"{name}.weight") for name, layer in modules if is_packed(layer)]


def _merged_and_rest(model, key: str) -> tuple[list[tuple], list[tuple]]:
    """A packed weight's patches: those that no file holds, with all before them, and those after them."""
    patches = model.patches.get(key, [])
    merged = max((place + 1 for place, patch in enumerate(patches) if not is_written(patch)), default=0)
    return patches[:merged], patches[merged:]


def _packed_value(model, key: str, original: Originals, patches: list[tuple]) -> dict[str, Tensor]:
    """A packed layer's weight as it lies in files, with large patches packed into it anew."""
    layer, whole = network_of(model.model).get_submodule(key.rpartition(".")[0]), key_of(model.model, key)
    weight = original(whole)
    if patches:
        wide = _merged(layer.convert_weight(weight).float(), patches, whole)
        weight = layer.set_weight(wide, return_weight=True, seed=comfy.utils.string_to_seed(whole))
    return {key: weight} if type(weight.data) is Tensor else weight.data.state_dict(key)


def _merged(weight: Tensor, patches: list[tuple], key: str) -> Tensor:
    return comfy.lora.calculate_weight(patches, weight.detach().float().clone(), key) if patches else weight


def give_weights(network: nn.Module) -> None:
    """With dynamic VRAM the host makes layers without a weight until they are loaded: here are their shapes and types.

    Nothing is allocated. Every one of them is replaced by a value of the file.
    """

    def empty(dtype: torch.dtype | None, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=False)

    for layer in network.modules():
        dtype = getattr(layer, "weight_comfy_model_dtype", None)
        if isinstance(layer, nn.Linear) and layer.weight is None:
            layer.weight = empty(dtype, layer.out_features, layer.in_features)
            if getattr(layer, "comfy_need_lazy_init_bias", False):
                layer.bias = empty(dtype, layer.out_features)
