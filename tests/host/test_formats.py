"""Models that others quantised: the host's own layouts, plain FP8 weights, and GGUF-style custom operations.

Q-Sched never looks at weights, so each must give what the core gives on the same MODEL, and must be named right.
"""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from exactness import differ
from pairs import pairs

pytestmark = pytest.mark.usefixtures("one_thread")

COEFFICIENTS = ((0.93, 0.97, 1.02, 1.05), (0.88, 0.95, 1.04, 1.08))

# Format -> how the host's tensor class is asked for it at these small widths, and what the checkpoint says of it.
LAYOUTS = {
    "float8_e4m3fn": ({}, {}),
    "float8_e5m2": ({}, {}),
    "mxfp8": ({}, {}),
    "nvfp4": ({}, {}),
    "int8_tensorwise": ({}, {}),
    "convrot_w4a4": ({"convrot_groupsize": 64}, {"convrot_groupsize": 64}),
    "asym_w4a8_int8": ({"convrot_groupsize": 64}, {"convrot_groupsize": 64, "group_size": 16}),
}

KINDS = ("EPS", "FLOW")
SAMPLERS = ("euler", "euler_ancestral", "res_multistep")
WIDE_BLOCKS = {"transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1]}
"""Attention where the U-Net is as wide as layouts ask for, and nowhere else."""


def layers(model) -> dict[str, torch.nn.Linear]:
    """Linear layers wide enough for every layout."""
    modules = model.model.diffusion_model.named_modules()
    return {
        name: module for name, module in modules if isinstance(module, torch.nn.Linear) and module.in_features == 64
    }


def rebuilt(tiny, source, weights: dict[str, torch.Tensor], operations=None, quantized: bool = False):
    """A MODEL like the source over other weights, as the host's loader makes it."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15({**tiny.UNET, **WIDE_BLOCKS})
    config.quant_config = {"mixed_ops": True} if quantized else None
    config.custom_operations = operations
    config.set_inference_dtype(torch.float32, torch.float32 if quantized else None)
    base = comfy.model_base.BaseModel(config, source.model.model_type)
    missing, unexpected = base.diffusion_model.load_state_dict(weights, strict=False)
    assert not missing, missing
    assert not unexpected, unexpected
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def in_layout(tiny, source, name: str):
    import comfy.quant_ops

    algorithm = comfy.quant_ops.QUANT_ALGOS.get(name)
    if algorithm is None:
        pytest.skip(f"this ComfyUI has no {name}")
    metadata, noted = LAYOUTS[name]
    weights = dict(source.model.diffusion_model.state_dict())
    for layer, module in layers(source).items():
        packed = comfy.quant_ops.QuantizedTensor.from_float(
            module.weight.detach().clone(), algorithm["comfy_tensor_layout"], **metadata
        )
        del weights[f"{layer}.weight"]
        weights.update(packed.state_dict(f"{layer}.weight"))
        note = json.dumps({"format": name, **noted}).encode()
        weights[f"{layer}.comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)
    return rebuilt(tiny, source, weights, quantized=True)


def as_plain_fp8(tiny, source):
    """FP8 weights without a layout, as UNETLoader's weight_dtype leaves them; cast when used."""
    import comfy.ops

    model = rebuilt(tiny, source, dict(source.model.diffusion_model.state_dict()), comfy.ops.manual_cast)
    for module in layers(model).values():
        module.weight = torch.nn.Parameter(module.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    return model


def as_gguf_would(tiny, source):
    """Operations of another pack that keep packed bytes in a tensor subclass and unpack at every call."""
    import comfy.ops

    class Packed(torch.Tensor):
        pass

    class Operations(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            comfy_cast_weights = True

            def forward(self, x):
                codes, scale = self.weight.as_subclass(torch.Tensor), self.scale
                return torch.nn.functional.linear(x, codes.to(x.dtype) * scale, self.bias)

    model = rebuilt(tiny, source, dict(source.model.diffusion_model.state_dict()), Operations)
    for name, module in model.model.diffusion_model.named_modules():
        if isinstance(module, Operations.Linear):
            weight = module.weight.detach()
            module.scale = weight.abs().amax(1, keepdim=True) / 7
            codes = (weight / module.scale).round().to(torch.int8).as_subclass(Packed)
            module.weight = torch.nn.Parameter(codes, requires_grad=False)
            assert name
    return model


@pytest.fixture(scope="module")
def sources(tiny) -> dict:
    return {kind: tiny.model(kind, **WIDE_BLOCKS) for kind in KINDS}


@pytest.fixture(scope="module")
def full_latent(pack, tiny, sources):
    """What a source makes with a sampler."""

    @cache
    def full_latent(kind: str, name: str) -> torch.Tensor:
        source = sources[kind]
        return tiny.run(source, pack("nodes.sampling.sampler_menu").sampler_object(name), tiny.schedule(source))

    return full_latent


def check(pack, tiny, source, full, model, layout: str, name: str):
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    assert layout in pack("nodes.host.model_info").quantization(model)
    assert pack("nodes.host.model_info").fingerprint(model) == pack("nodes.host.model_info").fingerprint(source)
    sigmas, coefficients = tiny.schedule(model), core.Coefficients(*COEFFICIENTS)
    sampler = pack("nodes.sampling.sampler_menu").sampler_object(name)
    preset_model = patch.apply_coefficients(model, coefficients, sigmas.tolist())
    ours = tiny.run(preset_model, sampler, sigmas)
    reference = tiny.run(model, tiny.core_sampler(pack, name, coefficients, model), sigmas)
    stock = tiny.run(model, sampler, sigmas)
    assert torch.linalg.norm(ours - reference) <= 5e-6 * torch.linalg.norm(reference)
    assert torch.linalg.norm(ours - stock) > 1e-2 * torch.linalg.norm(stock), "the coefficients did nothing"
    # Random weights hardly move the latent: quantising shows as 9e-7 to 2e-4, rounding alone as 2e-8.
    assert differ(stock, full, 2e-7), "the model is not quantised"


LABELS = {"asym_w4a8_int8": "w4a8/g", "convrot_w4a4": "w4a4/channel", "int8_tensorwise": "w8a8/channel"}
"""Formats that we have too: a preset does not differ because another backend holds the weights."""


def plain_fp8(pack, tiny, source):
    return as_plain_fp8(tiny, source)


def another_pack(pack, tiny, source):
    return as_gguf_would(tiny, source)


def our_own(pack, tiny, source):
    job = pack("nodes.quantization.backends").job_for(source, "w4a8")
    return pack("nodes.quantization.twin_model").quantized_twin(source, job)[0]


@pytest.mark.parametrize(("name", "kind", "sampler"), pairs(tuple(LAYOUTS), KINDS, SAMPLERS))
def test_layouts_of_the_host(pack, tiny, sources, full_latent, name, kind, sampler):
    model = in_layout(tiny, sources[kind], name)
    check(pack, tiny, sources[kind], full_latent(kind, sampler), model, LABELS.get(name, name), sampler)


@pytest.mark.parametrize(("make", "kind", "sampler"), pairs((plain_fp8, another_pack, our_own), KINDS, SAMPLERS))
def test_what_the_host_has_no_layout_for(pack, tiny, sources, full_latent, make, kind, sampler):
    label = {plain_fp8: "float8_e4m3fn", another_pack: "Packed", our_own: "w4a8"}[make]
    model = make(pack, tiny, sources[kind])
    check(pack, tiny, sources[kind], full_latent(kind, sampler), model, label, sampler)
