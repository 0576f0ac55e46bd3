"""Quantising text encoders: ``python -m benchmarks.encoder_time``. Needs 4 GB of memory.

Time and peak memory: a block of the host's own T5-XXL at its published size, packed as the node does it; all 24 are
alike, so the rest is counted. Cosine of the conditioning in each format: encoders of real widths and few blocks. Their
weights are random: no trained encoder of that size can be had here, and random attention is sharper than a trained one.
"""

from __future__ import annotations

import importlib
import time

import torch
from torch import nn

import qsched_core.quant as quant

from .encoders import encoders
from .in_host import import_host, import_pack
from .quantise_time import in_own_process, most_bytes
from .record import record

FORMATS = ("w8a8", "w6a8", "w4a16", "w4a8")
PROMPTS = ("a red fox in the snow", "portrait of an old fisherman, oil on canvas", "a street sign that reads OPEN")
T5 = "FLUX.1: CLIP-L, T5-XXL"
BLOCKS = 1
"""Of T5-XXL's 24: 0.4 GB in FP16."""

COPIES = 3
"""Of all weights, from FP16 to float32: the least that any packing of them has to do."""


def packed_by_layers(form: str = "w4a8") -> dict:
    """The encoder's blocks packed layer by layer and kept. Time is the processor's own, of all cores together, which
    depends little on what else runs; beside it that of a plain copy of the same weights."""
    import_host()
    make, depth = encoders()[T5]
    network = make(BLOCKS).t5xxl.transformer.encoder
    randomised(network, torch.float16)
    layers = [layer for _, layer in quant.candidates(network)]
    weights = sum(layer.weight.numel() for layer in layers)
    copying = time.process_time()
    for _ in range(COPIES):
        for layer in layers:
            layer.weight.float()
    copying = (time.process_time() - copying) / COPIES
    memory_before = most_bytes()
    job = quant.Job.of(form, backend="torch")
    start = time.process_time()
    with torch.no_grad():
        twins = [twin for twin, _ in quant.quantized_layers(network, job) if twin is not None]
    seconds = time.process_time() - start
    packed_bytes = sum(twin.weight.numel() for twin in twins)
    rest = depth / BLOCKS
    return {
        "format": form,
        "weights in layers": round(weights * rest),
        "blocks": depth,
        "blocks measured": BLOCKS,
        "processor minutes": round(seconds * rest / 60, 2),
        "nanoseconds per weight": round(1e9 * seconds / weights, 1),
        "to a copy into float32": round(seconds / copying, 1),
        "packed GB": round(packed_bytes * rest / 1e9, 2),
        "peak GB beside both": round(max(0, most_bytes() - memory_before - packed_bytes) / 1e9, 2),
        "largest layer GB at FP16": round(2 * max(layer.weight.numel() for layer in layers) / 1e9, 3),
    }


def randomised(network: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Matrices from N(0, 1/fan_in), the same few million numbers over and over; norms 1, biases 0."""
    noise = torch.randn(2**22 + 7, generator=torch.Generator().manual_seed(0))
    for module in network.modules():
        for name, value in list(module._parameters.items()):
            if value is None:
                continue
            if value.ndim > 1:
                count = value.numel()
                filled = (noise.to(dtype or value.dtype) * value.shape[-1] ** -0.5).repeat(-(-count // len(noise)))
                filled = filled[:count].view(value.shape)
            else:
                filled = torch.full(value.shape, float(not name.endswith("bias")), dtype=dtype or value.dtype)
            module._parameters[name] = nn.Parameter(filled.clone(), requires_grad=False)


def makers() -> dict[str, tuple]:
    """(class of the host's, its tokenizer, sizes that are not the published ones) of each encoder."""
    import comfy.text_encoders.flux as flux
    from comfy import sd1_clip

    return {
        "CLIP-L, all 12 blocks": (sd1_clip.SD1ClipModel, sd1_clip.SD1Tokenizer, {}),
        "T5-XXL, 1 of 24 blocks": (
            flux.FluxClipModel, flux.FluxTokenizer, {"t5xxl_model_config": {"num_layers": 1}}
        ),
    }  # fmt: skip


def cosines() -> dict[str, dict[str, float]]:
    """Mean cosine of the conditioning to the full encoder's, by encoder and format."""
    import_host()
    import_pack()
    import comfy.sd
    from comfy.supported_models_base import ClipTarget

    load = importlib.import_module
    job_for = load("pack.nodes.quantization.backends").text_job_for
    text = load("pack.nodes.quantization.text_encoder")
    encode = load("pack.nodes.host.conditioning").encode
    rows = {}
    for name, (kind, tokenizer, sizes) in makers().items():
        clip = comfy.sd.CLIP(
            ClipTarget(tokenizer, kind), model_options={**sizes, "dtype": torch.float32}, state_dict=[]
        )  # fmt: skip
        randomised(clip.cond_stage_model)
        full = [encode(clip, prompt) for prompt in PROMPTS]
        rows[name] = {}
        for form in FORMATS:
            twin, _ = text.quantized_clip(clip, job_for(clip.patcher, form), [])
            pairs = [text.cosines(encode(twin, prompt), one) for prompt, one in zip(PROMPTS, full, strict=True)]
            rows[name][form] = round(sum(pair[0] for pair in pairs) / len(pairs), 5)
            del twin
        print(name, rows[name], flush=True)
    return rows


def main() -> None:
    result = {"model": "T5-XXL, FP16, random weights", "threads": torch.get_num_threads()}
    result["layer by layer"] = in_own_process(packed_by_layers)
    result["cosine"] = in_own_process(cosines)
    record("encoder_time", result)


if __name__ == "__main__":
    main()
