"""Patches of packed layers: LoRAs and their kin act as they do on the float model, in every state of loading.

A packed weight was once unpacked, patched and packed again: a LoRA of 1 % of its norm moved a w4a8 picture by exactly
0, and whether it worked depended on free memory.
"""

from __future__ import annotations

import logging

import pytest
import torch
from exactness import same_bits
from torch.nn import functional as F
from twin_layers import (
    KINDS,
    LINEAR,
    clone_with,
    float_output,
    in_every_state,
    loaded,
    output_of,
    relative,
    twin_of,
    unpacked,
)

from benchmarks.adapters import ADAPTERS, patch_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def source(demo):
    return demo[0]


@pytest.fixture(scope="module")
def unet(tiny):
    return tiny.model("FLOW")


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_a_function_of_the_host_that_reads_the_weight_by_itself_sees_the_patches(packed_layers, size):
    """``linear_input_act`` multiplies with the int8 weight and never calls the layer: a LoRA on it did nothing."""
    import comfy.ops

    if not hasattr(comfy.ops, "linear_input_act"):
        pytest.skip("this ComfyUI has no linear_input_act")
    model, name, x = packed_layers["the host's Linear"]
    layer, key = model.model.get_submodule(name), f"{name}.weight"
    fused = lambda model: comfy.ops.linear_input_act(model.model.get_submodule(name), x, "gelu_tanh").clone()  # noqa: E731
    called = output_of(name, F.gelu(x, approximate="tanh"))
    lora_model = clone_with(model, {key: patch_of("lora", unpacked(layer), size)})
    plain = fused(loaded(model)), called(loaded(model))
    change, expected = (one(loaded(lora_model)) - other for one, other in zip((fused, called), plain, strict=True))
    # Beside the LoRA the change holds what rounding of activations does in one way and not in the other.
    along = (change * expected).sum() / expected.square().sum()
    assert 0.95 < along < 1.05
    lora_model.detach()
    assert same_bits(fused(loaded(model)), plain[0]), "the patch stayed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_changes_the_output_by_what_it_does_to_the_float_weight(packed_layers, kind, adapter):
    import comfy.lora

    model, name, x = packed_layers[kind]
    layer, key = model.model.get_submodule(name), f"{name}.weight"
    weight = unpacked(layer)
    plain, codes = in_every_state(model, output_of(name, x)), layer.state_dict()["weight"].clone()
    lora_model = clone_with(model, {key: patch_of(adapter, weight, 0.01)}, 0.8)
    change = in_every_state(lora_model, output_of(name, x)) - plain
    if adapter == "dora" and layer.norm_shift is not None:  # see the next test
        weight = weight * (1 + layer.norm_shift.float().view(-1, *[1] * (weight.ndim - 1)))
    after = comfy.lora.calculate_weight(lora_model.patches[key], weight.clone(), key)
    # float32: two sums of the same numbers in another order.
    assert relative(change, float_output(layer, x, after - weight)) < 1e-4
    assert same_bits(layer.state_dict()["weight"], codes), "the patch was packed"
    assert same_bits(in_every_state(model, output_of(name, x)), plain), "the patch stayed behind"


@pytest.mark.parametrize("kind", ["Linear w4a8", "Linear w3a8", "Linear w6a8", "Conv2d w4a8"])
@pytest.mark.parametrize("size", [0.005, 0.02])
def test_a_dora_divides_by_the_norm_of_the_float_weight(packed_layers, source, unet, kind, size):
    """Packed rows are 0.4 % shorter, unequally: divided by their own norms a DoRA of 2 % had a cosine of 0.84."""
    import comfy.lora

    model, name, _ = packed_layers[kind]
    layer, key = model.model.get_submodule(name), f"{name}.weight"
    weight = (unet if kind.startswith("Conv") else source).model.get_submodule(name).weight.float()
    patch = patch_of("dora", weight, size)
    expected = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight.clone(), key) - weight
    change = clone_with(model, {key: patch}).float_value(key).float() - unpacked(layer)
    along = (change * expected).sum()
    assert 0.98 < along / expected.square().sum() < 1.02
    # 3 bits: what is rescaled errs by 0.18, half of the change of a DoRA.
    assert along / (change.norm() * expected.norm()) > (0.97 if kind == "Linear w3a8" else 0.99)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_patch_acts_in_every_state(packed_layers, kind):
    """Partially loaded, the host leaves it in ``bias_function``, which was never read."""
    model, name, x = packed_layers[kind]
    bias = torch.randn(model.model.get_submodule(name).bias.shape, generator=torch.Generator().manual_seed(2))
    plain = in_every_state(model, output_of(name, x))
    change = in_every_state(clone_with(model, {f"{name}.bias": ("diff", (bias,))}), output_of(name, x)) - plain
    wide = bias if change.ndim == 3 else bias[:, None, None]
    torch.testing.assert_close(change, wide.expand_as(change), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("offset", [(0, 128, 128), (1, 32, 64)])
def test_a_lora_of_a_part_of_the_weight(packed_layers, offset):
    """LoRAs for q, k and v apart, where the model has them in one matrix."""
    import comfy.weight_adapter

    model, name, x = packed_layers["Linear w4a8"]
    rows, columns = (offset[2], 256) if offset[0] == 0 else (768, offset[2])
    generator = torch.Generator().manual_seed(3)
    up, down = torch.randn(rows, 4, generator=generator), torch.randn(4, columns, generator=generator)
    value = comfy.weight_adapter.LoRAAdapter(set(), (up, down, None, None, None, None))
    plain = in_every_state(model, output_of(name, x))
    lora_model = model.clone()
    lora_model.add_patches({(f"{name}.weight", offset): value})
    assert len(lora_model.patches) == 1
    change = in_every_state(lora_model, output_of(name, x)) - plain
    delta = torch.zeros(768, 256)
    delta.narrow(*offset).copy_(up @ down)
    assert relative(change, F.linear(x, delta)) < 1e-4


def test_two_loras_and_a_dense_patch_add_up(packed_layers):
    import comfy.lora

    model, name, x = packed_layers["Linear w4a8"]
    layer, key = model.model.get_submodule(name), f"{name}.weight"
    lora_model, weight = model, unpacked(layer)
    for seed, kind in enumerate(("lora", "lora", "loha")):
        lora_model = clone_with(lora_model, {key: patch_of(kind, weight, 0.02, seed)}, 0.5)
    change = in_every_state(lora_model, output_of(name, x)) - in_every_state(model, output_of(name, x))
    after = comfy.lora.calculate_weight(lora_model.patches[key], weight.clone(), key)
    assert relative(change, F.linear(x, after - weight)) < 1e-4


def test_half_precision_keeps_a_lora_of_one_per_cent(packed_layers):
    model, name, x = packed_layers["Linear w4a8"]
    layer = model.model.get_submodule(name)
    value = patch_of("lora", unpacked(layer), 0.01)
    patches = layer.layer_patches(f"{name}.weight", [(1.0, value, 1.0, None, None)])
    expected = patches.added(layer, x, torch.zeros(2, 5, 768))
    for dtype in (torch.float16, torch.bfloat16):
        change = patches.added(layer, x.to(dtype), torch.zeros(2, 5, 768, dtype=dtype))
        assert change.dtype == dtype
        # Three roundings to bfloat16's eight bits.
        assert relative(change.float(), expected) < 0.01


def test_a_lora_of_another_model_is_named_and_left_out(packed_layers, caplog):
    import comfy.weight_adapter

    model, name, x = packed_layers["Linear w4a8"]
    plain = in_every_state(model, output_of(name, x))
    alien = comfy.weight_adapter.LoRAAdapter(set(), (torch.ones(320, 4), torch.ones(4, 320), 4.0, None, None, None))
    lora_model = clone_with(model, {f"{name}.weight": alien})
    with caplog.at_level(logging.ERROR):
        assert same_bits(in_every_state(lora_model, output_of(name, x)), plain)
    assert f"{name}.weight" in caplog.text
    assert lora_model.model_size() == model.model_size()


@pytest.mark.parametrize("adapter", ["lora", "dora", "diff"])
def test_a_patch_on_a_layer_that_was_left_float_acts_as_on_the_float_model(pack, source, packed_layers, adapter):
    model, name = packed_layers["Linear w4a8"][0], "diffusion_model.final_layer.linear"
    own = source.model.get_submodule(name)
    x = torch.randn(3, own.in_features, generator=torch.Generator().manual_seed(1))
    assert type(model.model.get_submodule(name)) is type(own), "it is packed"
    patches = {f"{name}.weight": patch_of(adapter, own.weight, 0.05)}
    outputs = in_every_state(clone_with(model, patches), output_of(name, x))
    torch.testing.assert_close(outputs, in_every_state(clone_with(source, patches), output_of(name, x)))
    assert same_bits(in_every_state(model, output_of(name, x)), in_every_state(source, output_of(name, x)))


def test_two_twins_of_one_source_have_their_own_loras(pack, source):
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    twins = [twin_of(pack, source), twin_of(pack, source, "w8a8")]
    plain = [output_of(LINEAR, x)(loaded(twin)) for twin in twins]
    weight = source.model.get_submodule(LINEAR).weight
    clones = [
        clone_with(twin, {f"{LINEAR}.weight": patch_of("lora", weight, 0.05, seed)}) for seed, twin in enumerate(twins)
    ]
    changed = [output_of(LINEAR, x)(loaded(model)) for model in clones]
    again = [output_of(LINEAR, x)(loaded(model)) for model in (*twins, *clones)]
    for before, after in zip([*plain, *changed], again, strict=True):
        assert same_bits(after, before)
    assert relative(changed[0] - plain[0], changed[1] - plain[1]) > 0.5


def test_the_hosts_bypass_loras_read_a_packed_layer(packed_layers):
    import comfy.weight_adapter

    for kind in ("Linear w4a8", "Conv2d w4a8"):
        model, name, x = packed_layers[kind]
        layer = model.model.get_submodule(name)
        weight = unpacked(layer)
        value = patch_of("lora", weight, 0.05)
        (bypass,) = comfy.weight_adapter.create_bypass_injections_from_patches(
            model.model, {f"{name}.weight": [(1.0, value, 1.0, None, None)]}
        )
        plain = layer(x)
        bypass.inject(model)
        change = layer(x) - plain
        bypass.eject(model)
        up, down = value.weights[:2]
        assert relative(change, float_output(layer, x, (up @ down).reshape(weight.shape))) < 1e-4


def test_what_adds_the_same_to_every_weight_is_told(pack):
    adds, weight = pack("nodes.quantization.layer_patches")._is_additive, torch.ones(8, 8)

    def told(value, strength_model: float = 1.0) -> bool:
        return adds((0.5, value, strength_model, None, None))

    for value in (patch_of("lora", weight, 0.1), (weight,), ("diff", (weight,)), ("diff", (weight, {"pad_weight": 0}))):
        assert told(value)
        assert not told(value, 0.9), "it shrinks the weight"
    for value in (patch_of("dora", weight, 0.1), ("set", (weight,)), ("diff", (weight, {"pad_weight": 1})), [weight]):
        assert not told(value)
