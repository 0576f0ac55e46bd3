"""A quantised MODEL as a file of a quarter of the size, and back without the float one ever being held."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import comfy.lora
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from safetensors.torch import load_file

from ...qsched_core import QuantizationError
from ...qsched_core.coefficients import MAX_STEPS
from ...qsched_core.precision import LastSteps, Precision
from ...qsched_core.quant import load_quantized, restore, save_quantized, write_checked
from ..host.model_info import fingerprint, quantization
from ..sampling.step_precision import precision_of, put_precision
from .backends import NativeLinears
from .file_values import KIND, TEXT_ENCODER, give_weights, values_and_patches
from .layers import TWINS
from .model_size import check_size
from .patch_files import record_of, without_patches
from .patcher import ROOT, packed_patcher

_SETTINGS = "sampling_settings"
_LAST_STEPS, _PRECISION = "last_steps", "precision"


def save_stock(model, path: Path) -> None:
    """Write a checkpoint for Load Diffusion Model. The stock loader reads it back before it counts.

    Raises:
        QuantizationError: the host would not recognise it, or it cannot be written.
    """
    network, _ = values_and_patches(model)
    values = model.model.state_dict_for_saving(dict(network))

    def read(file: Path) -> dict[str, torch.Tensor]:
        content = load_file(file)
        try:
            patcher = comfy.sd.load_diffusion_model_state_dict(dict(content))
        except AttributeError:  # what the host raises for a quantised model that it does not recognise
            patcher = None
        same = patcher is not None and type(patcher.model.model_config) is type(model.model.model_config)
        if not same or patcher.model.diffusion_model.state_dict().keys() != network.keys():
            raise QuantizationError(
                "ComfyUI would not know this model again.", 'quantise it with recipe "stock", and not its first layers'
            )
        return content

    write_checked(values, path, _about(model, path), read)


def save_model(model, path: Path) -> None:
    """Write the MODEL's network as it samples: LoRAs beside the packed weights, other patches merged in.

    Nothing is loaded for it, and nothing that another clone has merged is in it.

    Raises:
        QuantizationError: a model that Quantize Model did not make, or a file that cannot be written.
    """
    values, patches = values_and_patches(model)
    metadata, tensors = record_of(patches)
    save_quantized(model.model.diffusion_model, path, {**_about(model, path), **metadata}, {**values, **tensors})


def _about(model, path: Path) -> dict[str, str]:
    base = model.model
    settings = {key: value for key, value in base.model_config.sampling_settings.items() if _plain(value)}
    return {
        **_plan_text(precision_of(model)),
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
    content = load_quantized(path)
    if content.about.get(KIND) == TEXT_ENCODER:
        fix = "move it to your folder of quantised text encoders, and use Load Quantized Text Encoder"
        raise QuantizationError(f"{path.name[:40]} holds a text encoder.", fix)
    content, patches = without_patches(content)
    plan = _plan(content.about)
    float_dtype = comfy.utils.weight_dtype({name: t for name, t in content.tensors.items() if t.is_floating_point()})
    shapes = {
        name: torch.empty(shape, dtype=float_dtype or torch.float16, device="meta")
        for name, shape in content.shapes().items()
    }
    config = comfy.model_detection.model_config_from_unet(shapes, "")
    if config is None:
        raise QuantizationError(
            f"this ComfyUI knows no model like {path.name}.", "update ComfyUI", model=content.about.get("model", "")
        )
    management = comfy.model_management
    device, offload = management.get_torch_device(), management.unet_offload_device()
    supported = list(config.supported_inference_dtypes)
    count = comfy.utils.calculate_parameters(shapes)
    dtype = management.unet_dtype(model_params=count, supported_dtypes=supported, weight_dtype=float_dtype)
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    config.sampling_settings = {**config.sampling_settings, **_settings(content.about)}
    check_size(config, shapes, path.name)
    base = config.get_model(shapes, "")
    give_weights(base.diffusion_model)
    _set_model_type(base, content.about.get("model_type", ""))
    # Not the streaming patcher: it requantises patched weights.
    patcher = comfy.model_patcher.ModelPatcher(base, device, offload)
    restore(base.diffusion_model, content, TWINS, NativeLinears(patcher).loaded)
    patcher = packed_patcher(patcher)
    base.to(offload)
    patcher.patches = {f"{ROOT}.{key}": layer_patches for key, layer_patches in patches.items()}
    put_precision(patcher, plan)
    if content.about.get("fingerprint") not in (None, fingerprint(patcher)):
        logging.warning("Q-Sched: %s is not the model it says it is; presets bound to it may not fit.", path.name)
    return patcher


def _set_model_type(base, name: str) -> None:
    """The parameterisation the file was made of: some checkpoints tell theirs by a key outside the network."""
    types = comfy.model_base.ModelType.__members__
    if name in types and types[name] is not base.model_type:
        base.model_type = types[name]
        base.model_sampling = comfy.model_base.model_sampling(base.model_config, base.model_type)


def _plan_text(plan) -> dict[str, str]:
    """A plan of the steps' precision as a file has it. One of several models is of no use without the others."""
    if plan is None:
        return {}
    if hasattr(plan, "count"):
        return {_LAST_STEPS: str(plan.count)}
    return {} if plan.models else {_PRECISION: plan.as_json()}


def _plan(about) -> Precision | LastSteps | None:
    """Raises QuantizationError for what is no plan."""
    if _PRECISION in about:
        return Precision.read_json(about[_PRECISION])
    steps = _last_steps(about)
    return LastSteps(steps) if steps else None


def _last_steps(about) -> int:
    """Raises QuantizationError for what is no number of steps."""
    text = about.get(_LAST_STEPS, "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and int(text) <= MAX_STEPS):
        raise QuantizationError(f"this file says last_steps {text[:20]!r}.", "download or save it again")
    return int(text)


def _settings(about) -> dict[str, float | bool]:
    try:
        settings = json.loads(about.get(_SETTINGS, "{}"))
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in settings.items() if _plain(value)} if isinstance(settings, dict) else {}


def _plain(value) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) < 1e6
