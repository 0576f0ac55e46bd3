"""Packed models for tests: made, patched, loaded to the last layer or not one of it, and what their layers give."""

from __future__ import annotations

import torch
from torch.nn import functional as F

LINEAR = "diffusion_model.double_blocks.0.img_attn.qkv"
"""Of the demo model."""

CONV = "diffusion_model.input_blocks.2.0.op"
"""Of the tiny U-Net."""

LORA_SIZES = {LINEAR: 0.1, CONV: 5.0}
"""With which a LoRA shows in the picture, and does not make another one of it."""


def twin_of(pack, model, name: str = "w4a8", backend: str = "torch", recipe: str = "compact"):
    job = pack("nodes.quantization.backends").job_for(model, name, None, backend, recipe)
    return pack("nodes.quantization.twin_model").quantized_twin(model, job)[0]


def clone_with(model, patches: dict, strength: float = 1.0):
    clone = model.clone()
    assert len(clone.add_patches(patches, strength)) == len(patches)
    return clone


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The norm of the difference, in norms of ``b``; not a number where both are zero, so that nothing passes there."""
    return (torch.linalg.norm(a.double() - b.double()) / torch.linalg.norm(b.double())).item()


def lora_values(key: str, size: float | None = None) -> dict[str, torch.Tensor]:
    """A file's, for the layer LINEAR or the convolution CONV, which gets it as LoCon makes them: 3×3 down, 1×1 up."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(32, 4, 1, 1), (4, 32, 3, 3)] if key == CONV else [(768, 4), (4, 256)]
    name = key if key == CONV else "lora_unet_" + key.removeprefix("diffusion_model.").replace(".", "_")
    up, down = (torch.randn(shape, generator=generator) for shape in shapes)
    return {
        f"{name}.lora_up.weight": (LORA_SIZES[key] if size is None else size) * up,
        f"{name}.lora_down.weight": down,
        f"{name}.alpha": torch.tensor(4.0),
    }


def with_lora(model, key: str, size: float | None = None):
    """A clone with a LoRA on that layer alone."""
    import comfy.sd

    clone, _ = comfy.sd.load_lora_for_models(model, None, lora_values(key, size), 1.0, 0.0)
    assert list(clone.patches) == [f"{key}.weight"]
    return clone


def activation_bits(pack, model, sample) -> list[int]:
    """Of each evaluation of the demo's network while ``sample()`` runs, told by a hook inside it."""
    bits, quant = [], pack("qsched_core.quant")
    hook = model.model.get_submodule(LINEAR).register_forward_hook(lambda *_: bits.append(quant.step_bits(4)))
    try:
        sample()
    finally:
        hook.remove()
    return bits


def loaded(model):
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    return model


class Loaded:
    """A MODEL loaded to the last layer, or not one layer of it."""

    def __init__(self, model, fully: bool):
        self.model, self.memory = model, 0 if fully else 1

    def __enter__(self):
        import comfy.model_management

        comfy.model_management.unload_all_models()
        self.model.patch_model(self.model.load_device, lowvram_model_memory=self.memory)
        assert self.model.model.model_lowvram is bool(self.memory)
        return self.model

    def __exit__(self, *_):
        self.model.unpatch_model(self.model.offload_device)


def in_every_state(model, call) -> torch.Tensor:
    """What ``call`` gives, which must not depend on how much of the MODEL is loaded."""
    outputs = []
    for fully in (True, False):
        with Loaded(model, fully):
            outputs.append(call(model))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    return outputs[0]


def layers_of(pack, source, unet) -> dict:
    """(MODEL, name of a layer in it, inputs of the layer) for each kind of packed layer."""
    tokens = torch.randn(2, 5, 256, generator=torch.Generator().manual_seed(1))
    picture = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    conv = "diffusion_model.input_blocks.1.0.in_layers.2"
    return {
        "Linear w4a8": (twin_of(pack, source), LINEAR, tokens),
        "Linear w3a8": (twin_of(pack, source, "w3a8"), LINEAR, tokens),
        "Linear w6a8": (twin_of(pack, source, "w6a8"), LINEAR, tokens),
        "Linear w8a16": (twin_of(pack, source, "w8a16"), LINEAR, tokens),
        "Conv2d w4a8": (twin_of(pack, unet), conv, picture),
        "the host's Linear": (twin_of(pack, source, "w8a8", "kitchen", "stock"), LINEAR, tokens),
    }


KINDS = ("Linear w4a8", "Linear w3a8", "Linear w6a8", "Linear w8a16", "Conv2d w4a8", "the host's Linear")


def output_of(name: str, x: torch.Tensor):
    return lambda model: model.model.get_submodule(name)(x).clone()


def float_output(layer, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if weight.ndim == 2:
        return F.linear(x, weight)
    return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def unpacked(layer) -> torch.Tensor:
    return layer.float_weight(torch.device("cpu"))
