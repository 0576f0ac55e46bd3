"""A quantised MODEL as a file of a quarter of the size, and back without the float one ever being held."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from safetensors.torch import load_file

from ..qsched_core import QuantizationError
from ..qsched_core.quant import is_packed, load_quantized, restore, save_quantized, write_checked
from .backends import NativeLinears
from .describe import fingerprint, quantization
from .layers import TWINS
from .model_size import check_size

_SETTINGS = "sampling_settings"


def is_stock(model) -> bool:
    """Whether stock loaders read the MODEL's network: every packed layer is in a native layout, none of it is ours."""
    layers = [layer for layer in model.model.diffusion_model.modules() if is_packed(layer)]
    return bool(layers) and all("comfy_quant" in layer.state_dict() for layer in layers)


def save_stock(model, path: Path) -> None:
    """Write a checkpoint for Load Diffusion Model, LoRAs merged in. The stock loader reads it back before it counts.

    Raises:
        QuantizationError: the host would not recognise it, or it cannot be written.
    """
    comfy.model_management.load_models_gpu([model], force_patch_weights=True)
    values = model.state_dict_for_saving()
    network = model.model.diffusion_model.state_dict()

    def read(file: Path) -> dict[str, torch.Tensor]:
        found = load_file(file)
        try:
            loaded = comfy.sd.load_diffusion_model_state_dict(dict(found))
        except AttributeError:  # what the host raises for a quantised model that it does not recognise
            loaded = None
        same = loaded is not None and type(loaded.model.model_config) is type(model.model.model_config)
        if not same or loaded.model.diffusion_model.state_dict().keys() != network.keys():
            raise QuantizationError(
                "ComfyUI would not know this model again.", 'quantise it with recipe "stock", and not its first layers'
            )
        return found

    write_checked(values, path, _about(model, path), read)


def save_model(model, path: Path) -> None:
    """Write the MODEL's network as it samples, LoRAs merged in.

    Raises:
        QuantizationError: a model that Quantize Model did not make, or a file that cannot be written.
    """
    if model.patches:  # what is not merged is not in the weights
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
    save_quantized(model.model.diffusion_model, path, _about(model, path))


def _about(model, path: Path) -> dict[str, str]:
    base = model.model
    settings = {key: value for key, value in base.model_config.sampling_settings.items() if _plain(value)}
    return {
        "model": type(base.model_config).__name__,
        "model_type": base.model_type.name,
        "fingerprint": fingerprint(model),
        "quantization": quantization(model),
        _SETTINGS: json.dumps(settings),
        "modelspec.title": path.stem,
        "modelspec.architecture": type(base.model_config).__name__,
    }


def load_model(path: Path):
    """The MODEL of a file. Weights are read as they are packed; the host detects the family by their float shapes.

    Raises:
        QuantizationError: not such a file, or no model of this ComfyUI has these shapes.
    """
    stored = load_quantized(path)
    kept = comfy.utils.weight_dtype({name: t for name, t in stored.tensors.items() if t.is_floating_point()})
    shapes = {
        name: torch.empty(shape, dtype=kept or torch.float16, device="meta") for name, shape in stored.shapes().items()
    }
    config = comfy.model_detection.model_config_from_unet(shapes, "")
    if config is None:
        raise QuantizationError(
            f"this ComfyUI knows no model like {path.name}.", "update ComfyUI", model=stored.about.get("model", "")
        )
    management = comfy.model_management
    device, offload = management.get_torch_device(), management.unet_offload_device()
    supported = list(config.supported_inference_dtypes)
    count = comfy.utils.calculate_parameters(shapes)
    dtype = management.unet_dtype(model_params=count, supported_dtypes=supported, weight_dtype=kept)
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    config.sampling_settings = {**config.sampling_settings, **_settings(stored.about)}
    check_size(config, shapes, path.name)
    base = config.get_model(shapes, "")
    _set_model_type(base, stored.about.get("model_type", ""))
    # Not the streaming patcher: it casts weights itself and knows no packed ones.
    patcher = comfy.model_patcher.ModelPatcher(base, device, offload)
    restore(base.diffusion_model, stored, TWINS, NativeLinears(patcher).loaded)
    base.to(offload)
    if stored.about.get("fingerprint") not in (None, fingerprint(patcher)):
        logging.warning("Q-Sched: %s is not the model it says it is; presets bound to it may not fit.", path.name)
    return patcher


def _set_model_type(base, name: str) -> None:
    """The parameterisation the file was made of: some checkpoints tell theirs by a key outside the network."""
    known = comfy.model_base.ModelType.__members__
    if name in known and known[name] is not base.model_type:
        base.model_type = known[name]
        base.model_sampling = comfy.model_base.model_sampling(base.model_config, base.model_type)


def _settings(about) -> dict[str, float | bool]:
    try:
        found = json.loads(about.get(_SETTINGS, "{}"))
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if _plain(value)} if isinstance(found, dict) else {}


def _plain(value) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) < 1e6
