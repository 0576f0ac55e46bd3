"""Quantize Text Encoder W4A8: the encoders of the real architectures, their LoRAs and skips, and the CLIP untouched."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from exactness import same_bits
from native_files import packed
from text_encoders import FAMILIES, text_encoder, tokenizers_read_once, with_lora
from torch import nn
from twin_layers import relative

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = ["a red fox in the snow", "portrait of an old fisherman"]
QUERY = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module", autouse=True)
def tokenizers(pack):
    with tokenizers_read_once():
        yield


@pytest.fixture(scope="module")
def source_of(pack):
    """``source_of(family)``: a clone of a CLIP that is made once. Who changes its network makes one of its own."""
    encoder = cache(text_encoder)
    return lambda family: encoder(family).clone()


def quantized(pack, clip, name: str = "w8a8", prompts=(), **more):
    job = pack("nodes.quantization.backends").text_job_for(clip.patcher, name, **more)
    return pack("nodes.quantization.text_encoder").quantized_clip(clip, job, prompts)


def said(clip, text: str = PROMPTS[0]) -> torch.Tensor:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]


def pooled(clip, text: str = PROMPTS[0]) -> torch.Tensor:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][1]["pooled_output"]


def values_of(clip) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in clip.cond_stage_model.state_dict().items()}


def layers_of(pack, clip) -> dict[str, nn.Module]:
    kind = pack("nodes.quantization.layers").HostLinear
    return {name: layer for name, layer in clip.cond_stage_model.named_modules() if isinstance(layer, kind)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_is_packed_and_the_given_clip_stays(pack, source_of, family):
    import comfy.model_management

    source = source_of(family)
    before, full = values_of(source), said(source)
    twin, report = quantized(pack, source, prompts=PROMPTS)
    assert 0 < relative(said(twin), full) < 0.2  # random attention is sharp, and makes errors larger
    layers = layers_of(pack, twin)
    encoders = {"flux": 2, "sdxl": 2}.get(family, 1)
    assert len({name.split(".")[0] for name in layers}) == encoders
    # Every matrix of every block: 6 of a CLIP's layer, 7 of T5's and of a Llama's.
    assert len(layers) == {"flux": 3 * 6 + 2 * 7, "sdxl": 2 * 3 * 6, "z_image": 3 * 7, "lumina2": 3 * 7}[family]
    assert "Conditioning of 2 prompts: cosine to the full one 0.99" in report
    assert ("; pooled " in report) == (family in ("flux", "sdxl"))
    assert "Not packed, no layer of a known kind: " in report and "Embedding" in report
    assert twin.patcher.model_size() == comfy.model_management.module_size(twin.cond_stage_model)
    assert twin.patcher.model_size() < source.patcher.model_size()
    after = values_of(source)
    assert all(same_bits(value, after[name]) for name, value in before.items())
    assert same_bits(said(source), full)
    assert same_bits(said(quantized(pack, source)[0]), said(twin))


def test_the_node_packs_in_the_format_and_the_groups_that_are_chosen(pack, source_of):
    node = pack("nodes.text_encoder").QSchedQuantizeTextEncoder
    source = source_of("sdxl")
    twin, report = node.execute(source, "w8a8", "64", "*.k_proj", f"\n {PROMPTS[0]} \n\n{PROMPTS[1]}\n").args
    layers = layers_of(pack, twin)
    assert {str(layer.format) for layer in layers.values()} == {"w8a8/g64"}
    assert layers
    assert not any(name.endswith("k_proj") for name in layers)
    assert "Conditioning of 2 prompts" in report


def test_the_report_says_how_near_four_bits_are(pack, source_of):
    source = source_of("z_image")
    full = said(source)
    twin, report = quantized(pack, source, "w4a8", PROMPTS[:1])
    assert 0.05 < relative(said(twin), full) < 0.6
    cosine = torch.nn.functional.cosine_similarity(said(twin).double().flatten(), full.double().flatten(), dim=0).item()
    assert f"Conditioning of 1 prompt: cosine to the full one {cosine:.4f}." in report
    assert ("That is far" in report) == (cosine < 0.99)


@pytest.mark.parametrize(
    ("family", "key", "layer"),
    [
        ("sdxl", "lora_te1_" + QUERY.replace(".", "_"), f"clip_l.transformer.{QUERY}"),
        ("flux", "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
         "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q"),
    ],
)  # fmt: skip
def test_loras_for_text_encoders_act_before_and_after(pack, source_of, family, key, layer):
    source = source_of(family)
    full, shift = said(source), said(with_lora(source, key, layer))
    effect = relative(shift, full)
    assert effect > 0.01, "the LoRA did nothing"
    twin, _ = quantized(pack, source)
    plain = said(twin)
    after = said(with_lora(twin, key, layer))
    before = said(quantized(pack, with_lora(source, key, layer))[0])
    for layers in (after, before):
        assert 0.7 * effect < relative(layers, plain) < 1.4 * effect
    assert relative(after, before) < 0.25 * effect
    assert same_bits(said(twin), plain), "the LoRA stayed behind"
    assert same_bits(said(source), full)


def test_clip_skip_stays_and_can_be_set_afterwards(pack, source_of):
    source = source_of("sdxl")
    skipped = source.clone()
    skipped.clip_layer(-3)
    assert relative(said(skipped), said(source)) > 0.1
    packed_clip, _ = quantized(pack, skipped)
    later = quantized(pack, source)[0].clone()
    later.clip_layer(-3)
    assert packed_clip.layer_idx == -3
    for twin in (packed_clip, later):
        assert relative(said(twin), said(skipped)) < 0.05


def test_one_encoder_of_two_graphs_and_two_twins_live_side_by_side(pack, source_of):
    source = source_of("flux")
    full, full_pooled = said(source), pooled(source)
    eight, four = quantized(pack, source)[0], quantized(pack, source, "w4a8")[0]
    first, second = said(eight), said(four)
    assert relative(first, second) > 1e-3
    assert same_bits(said(source), full) and same_bits(pooled(source), full_pooled)
    assert same_bits(said(eight.clone()), first) and same_bits(said(four), second)
    assert eight.patcher.clone().is_clone(eight.patcher) and not eight.patcher.is_clone(source.patcher)


def test_a_t5_in_float8_is_a_source(pack):
    """The file that most people have of it; without a scale, and with the host's scaled layers."""
    source = text_encoder("flux", dtype_t5=torch.float8_e4m3fn)
    query = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q"
    assert source.cond_stage_model.get_submodule(query).weight.dtype == torch.float8_e4m3fn
    full = said(source)
    twin, report = quantized(pack, source, "w6a8")
    assert query in layers_of(pack, twin)
    assert 0 < relative(said(twin), full) < 0.5
    assert "in float8_e4m3fn -> " in report


def test_a_scaled_encoder_of_the_hosts_own_format_is_a_source(pack, source_of):
    import comfy.quant_ops

    if "float8_e4m3fn" not in comfy.quant_ops.QUANT_ALGOS:
        pytest.skip("this ComfyUI has no scaled float8")
    floats = source_of("z_image")
    values = floats.cond_stage_model.qwen3_4b.transformer.state_dict()
    layers = {}
    for name, value in values.items():
        block = ".layers." in name and value.ndim == 2
        layers |= packed(name.removesuffix(".weight"), value, "float8_e4m3fn") if block else {name: value}
    layers = {name: value.clone() for name, value in layers.items()}
    source = text_encoder("z_image", layers, {"quantization_metadata": {"mixed_ops": True}})
    full = said(source)
    assert relative(full, said(floats)) < 0.2
    twin, report = quantized(pack, source, "w4a8")
    assert len(layers_of(pack, twin)) == 3 * 7
    assert 0 < relative(said(twin), full) < 0.5


def test_what_no_text_reaches_and_what_is_tied_stays_float(pack):
    source = text_encoder("z_image")
    network = source.cond_stage_model.qwen3_4b
    network.visual = nn.ModuleList([nn.Linear(128, 128)])
    network.tied = nn.ModuleList([nn.Linear(128, 151936, bias=False, device="meta")])
    network.tied[0].weight = network.transformer.model.embed_tokens.weight
    keep = pack("nodes.quantization.text_encoder").tied_layers(source.cond_stage_model)
    assert list(keep) == ["qwen3_4b.tied.0"]
    twin, report = quantized(pack, source)
    assert "Kept 1: no text reaches it." in report and "Kept 1: its weight is an embedding's too." in report
    copy = twin.cond_stage_model.qwen3_4b
    assert copy.tied[0].weight is copy.transformer.model.embed_tokens.weight
    assert copy.tied[0].weight is not network.tied[0].weight
    assert type(copy.visual[0]) is nn.Linear


def test_the_hosts_own_saver_gets_floats(pack, source_of):
    """CLIPSave and merges read a state dict; ours is unpacked for them, a layer at a time."""
    source = source_of("flux")
    twin, _ = quantized(pack, source)
    key = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight"
    whole = source.cond_stage_model.state_dict()
    saved = twin.state_dict_for_saving()[key]
    for value in (twin.patcher.model_state_dict()[key], saved.to("cpu")):
        assert value.shape == whole[key].shape
        assert relative(value, whole[key]) < 0.02


def test_twice_and_nothing_are_refused(pack, source_of, refused):
    error = pack("qsched_core").QuantizationError
    twin, _ = quantized(pack, source_of("sdxl"))
    with refused(error, "quantised already"):
        quantized(pack, twin, "w4a8")
    node = pack("nodes.text_encoder").QSchedQuantizeTextEncoder
    with refused(error, "no text encoder", "Load CLIP"):
        node.execute(None, "w4a8", "format's own", "", "")
    with refused(error, "nothing to quantise"):
        quantized(pack, source_of("sdxl"), exclude=["*"])


def test_a_cancel_leaves_the_clip_as_it_was(pack, source_of):
    source = source_of("sdxl")
    full = said(source)

    class Cancelled(Exception):
        pass

    def on_layer(done: int, total: int) -> None:
        if done == 3:
            raise Cancelled

    job = pack("nodes.quantization.backends").text_job_for(source.patcher, "w4a8")
    with pytest.raises(Cancelled):
        pack("nodes.quantization.text_encoder").quantized_clip(source, job, PROMPTS, on_layer)
    assert same_bits(said(source), full)
    assert not any(layer._forward_pre_hooks for layer in source.cond_stage_model.modules())
