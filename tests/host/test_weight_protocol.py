"""The host's protocol for weights: who answers each part of it here, and which test shows it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from exactness import same_bits
from twin_layers import float_output, in_every_state, output_of, relative, unpacked

pytestmark = pytest.mark.usefixtures("one_thread")

TESTS = {
    part.name
    for file in ("test_layer_patches.py", "test_twin_loras.py", "test_weight_protocol.py")
    for part in ast.parse(Path(__file__).with_name(file).read_text("utf-8")).body
    if isinstance(part, ast.FunctionDef)
}
"""Names of the tests that PROTOCOL may point to."""

ADAPTER = "test_an_adapter_changes_the_output_by_what_it_does_to_the_float_weight"

PROTOCOL = {
    # part of the host: (who answers it here, the test that shows it)
    "layer.comfy_cast_weights": ("PatchedAtOutput", ADAPTER),
    "layer.weight_function": ("PatchedAtOutput", ADAPTER),
    "layer.bias_function": ("PatchedAtOutput", "test_a_bias_patch_acts_in_every_state"),
    "layer.convert_weight": ("HostLayer", "test_a_merge_after_quantizing_acts_on_the_unpacked_weight"),
    "layer.set_weight": ("HostLayer", "test_set_weight_packs_in_place_and_beside"),
    "patcher.patch_weight_to_device": ("PackedPatcher", ADAPTER),
    "patcher.load": ("PackedPatcher", "test_a_lora_outlives_a_partial_unload_once"),
    "patcher.partially_unload": ("PackedPatcher", "test_a_lora_outlives_a_partial_unload_once"),
    "patcher.unpatch_model": ("PackedPatcher", ADAPTER),
    "patcher.model_size": ("PackedPatcher", "test_the_host_counts_what_a_lora_and_an_unpacked_weight_take"),
    "patcher._load_list": ("PackedPatcher", "test_the_host_counts_what_a_lora_and_an_unpacked_weight_take"),
    "patcher.clone": ("PackedPatcher", "test_the_host_counts_what_a_lora_and_an_unpacked_weight_take"),
    "patcher.patch_hook_weight_to_device": ("PackedPatcher", "test_a_hook_lora_acts_while_it_holds"),
    "patcher.patch_cached_hook_weights": ("PackedPatcher", "test_a_hook_comes_from_the_cache_and_goes_again"),
    "patcher.unpatch_hooks": ("PackedPatcher", "test_a_hook_comes_from_the_cache_and_goes_again"),
    "patcher.add_weight_wrapper": ("PatchedAtOutput", "test_a_weight_wrapper_acts_on_the_float_weight"),
}  # fmt: skip


@pytest.mark.parametrize("part", PROTOCOL)
def test_every_part_of_the_weight_protocol_is_answered_and_shown(pack, part):
    who, answer = PROTOCOL[part]
    owner = getattr(pack("nodes.quantization.patcher"), who)
    whose, _, name = part.partition(".")
    if whose == "layer" and not name.endswith("_function"):
        assert name in vars(owner)
    elif whose == "patcher" and who == "PackedPatcher":
        assert name in vars(owner)
        assert callable(getattr(pack("nodes.quantization.patcher").ModelPatcher, name)), (
            "the host has no such part any more"
        )
    assert answer in TESTS


def test_set_weight_packs_in_place_and_beside(packed_layers):
    model, name, _ = packed_layers["Linear w8a16"]
    layer = model.model.get_submodule(name)
    own, wide = layer.weight.clone(), torch.randn(768, 256, generator=torch.Generator().manual_seed(5))
    beside = layer.set_weight(wide, return_weight=True)
    assert same_bits(layer.weight, own)
    layer.set_weight(wide, inplace_update=True)
    assert same_bits(layer.weight, beside)
    assert relative(layer.dequantized(), wide) < 0.02
    layer.set_weight(layer.unpacked(own))
    layer.weight.data.copy_(own)


@pytest.mark.parametrize("kind", ["Linear w4a8", "Conv2d w4a8", "the host's Linear"])
def test_a_weight_wrapper_acts_on_the_float_weight(packed_layers, kind):
    model, name, x = packed_layers[kind]
    layer = model.model.get_submodule(name)
    plain = in_every_state(model, output_of(name, x))
    wrapped = model.clone()
    wrapped.add_weight_wrapper(f"{name}.weight", lambda weight: weight * 1.5)
    change = in_every_state(wrapped, output_of(name, x)) - plain
    assert relative(change, float_output(layer, x, 0.5 * unpacked(layer))) < 1e-4
    assert same_bits(in_every_state(model, output_of(name, x)), plain)
