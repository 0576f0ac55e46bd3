"""Patches of packed layers: LoRAs and their kin act as they do on the float model, in every state of loading.

A packed weight was once unpacked, patched and packed again: a LoRA of 1 % of its norm moved a w4a8 picture by exactly
0, and whether it worked depended on free memory.
"""

from __future__ import annotations

import logging

import pytest
import torch
from exactness import same_bits
from torch import nn
from torch.nn import functional as F

from benchmarks.adapters import ADAPTERS, patch_of

pytestmark = pytest.mark.usefixtures("one_thread")

LINEAR = "diffusion_model.double_blocks.0.img_attn.qkv"


def twin_of(pack, model, name: str = "w4a8", backend: str = "torch", recipe: str = "compact"):
    job = pack("nodes.quantization.backends").job_for(model, name, None, backend, recipe)
    return pack("nodes.quantization.twin_model").quantized_twin(model, job)[0]


def clone_with(model, patches: dict, strength: float = 1.0):
    clone = model.clone()
    assert len(clone.add_patches(patches, strength)) == len(patches)
    return clone


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return (torch.linalg.norm(a - b) / torch.linalg.norm(b)).item()


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


@pytest.fixture(scope="module")
def source(demo):
    return demo[0]


@pytest.fixture(scope="module")
def unet(tiny):
    return tiny.model("FLOW")


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


@pytest.fixture(scope="module")
def packed(pack, source, unet):
    return layers_of(pack, source, unet)


def output_of(name: str, x: torch.Tensor):
    return lambda model: model.model.get_submodule(name)(x).clone()


def float_output(layer, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if weight.ndim == 2:
        return F.linear(x, weight)
    return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def unpacked(layer) -> torch.Tensor:
    return layer.float_weight(torch.device("cpu"))


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_a_function_of_the_host_that_reads_the_weight_by_itself_sees_the_patches(packed, size):
    """``linear_input_act`` multiplies with the int8 weight and never calls the layer: a LoRA on it did nothing."""
    import comfy.ops

    if not hasattr(comfy.ops, "linear_input_act"):
        pytest.skip("this ComfyUI has no linear_input_act")
    model, name, x = packed["the host's Linear"]
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
def test_an_adapter_changes_the_output_by_what_it_does_to_the_float_weight(packed, kind, adapter):
    import comfy.lora

    model, name, x = packed[kind]
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
def test_a_dora_divides_by_the_norm_of_the_float_weight(packed, source, unet, kind, size):
    """Packed rows are 0.4 % shorter, unequally: divided by their own norms a DoRA of 2 % had a cosine of 0.84."""
    import comfy.lora

    model, name, _ = packed[kind]
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
def test_a_bias_patch_acts_in_every_state(packed, kind):
    """Partially loaded, the host leaves it in ``bias_function``, which was never read."""
    model, name, x = packed[kind]
    bias = torch.randn(model.model.get_submodule(name).bias.shape, generator=torch.Generator().manual_seed(2))
    plain = in_every_state(model, output_of(name, x))
    change = in_every_state(clone_with(model, {f"{name}.bias": ("diff", (bias,))}), output_of(name, x)) - plain
    wide = bias if change.ndim == 3 else bias[:, None, None]
    torch.testing.assert_close(change, wide.expand_as(change), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("offset", [(0, 128, 128), (1, 32, 64)])
def test_a_lora_of_a_part_of_the_weight(packed, offset):
    """LoRAs for q, k and v apart, where the model has them in one matrix."""
    import comfy.weight_adapter

    model, name, x = packed["Linear w4a8"]
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


def test_two_loras_and_a_dense_patch_add_up(packed):
    import comfy.lora

    model, name, x = packed["Linear w4a8"]
    layer, key = model.model.get_submodule(name), f"{name}.weight"
    lora_model, weight = model, unpacked(layer)
    for seed, kind in enumerate(("lora", "lora", "loha")):
        lora_model = clone_with(lora_model, {key: patch_of(kind, weight, 0.02, seed)}, 0.5)
    change = in_every_state(lora_model, output_of(name, x)) - in_every_state(model, output_of(name, x))
    after = comfy.lora.calculate_weight(lora_model.patches[key], weight.clone(), key)
    assert relative(change, F.linear(x, after - weight)) < 1e-4


def test_half_precision_keeps_a_lora_of_one_per_cent(packed):
    model, name, x = packed["Linear w4a8"]
    layer = model.model.get_submodule(name)
    value = patch_of("lora", unpacked(layer), 0.01)
    patches = layer.layer_patches(f"{name}.weight", [(1.0, value, 1.0, None, None)])
    expected = patches.added(layer, x, torch.zeros(2, 5, 768))
    for dtype in (torch.float16, torch.bfloat16):
        change = patches.added(layer, x.to(dtype), torch.zeros(2, 5, 768, dtype=dtype))
        assert change.dtype == dtype
        # Three roundings to bfloat16's eight bits.
        assert relative(change.float(), expected) < 0.01


def test_a_lora_of_another_model_is_named_and_left_out(packed, caplog):
    import comfy.weight_adapter

    model, name, x = packed["Linear w4a8"]
    plain = in_every_state(model, output_of(name, x))
    alien = comfy.weight_adapter.LoRAAdapter(set(), (torch.ones(320, 4), torch.ones(4, 320), 4.0, None, None, None))
    lora_model = clone_with(model, {f"{name}.weight": alien})
    with caplog.at_level(logging.ERROR):
        assert same_bits(in_every_state(lora_model, output_of(name, x)), plain)
    assert f"{name}.weight" in caplog.text
    assert lora_model.model_size() == model.model_size()


@pytest.mark.parametrize("adapter", ["lora", "dora", "diff"])
def test_a_patch_on_a_layer_that_was_left_float_acts_as_on_the_float_model(pack, source, packed, adapter):
    model, name = packed["Linear w4a8"][0], "diffusion_model.final_layer.linear"
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


# --- the measure of the issue: a whole network's output


@pytest.fixture(scope="module")
def call(demo):
    model, clip, _ = demo
    tokens, more = clip.encode_from_tokens_scheduled(clip.tokenize("an apple"))[0]
    vector = model.model.encode_adm(pooled_output=more["pooled_output"], width=64, height=64, device="cpu")
    x = torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = {"c_crossattn": tokens.expand(8, -1, -1), "y": vector.expand(8, -1)}
    return lambda patcher: patcher.model.apply_model(x, torch.full((8,), 0.5), **inputs).float().clone()


def lora_on_all(source, size: float) -> dict:
    layers = {
        name: layer
        for name, layer in source.model.named_modules()
        if isinstance(layer, nn.Linear) and "_blocks" in name
    }
    return {
        f"{name}.weight": patch_of("lora", layer.weight, size, seed)
        for seed, (name, layer) in enumerate(layers.items())
    }


def unpacked_twin(source, twin):
    """The float model with the twin's rounded weights: how a LoRA acts differs from it by rounded activations alone."""
    weights = {
        f"{name}.weight": ("set", (unpacked(layer),))
        for name, layer in twin.model.named_modules()
        if hasattr(layer, "float_weight")
    }
    return clone_with(source, weights)


@pytest.mark.parametrize(
    ("name", "backend", "cosine"),
    [("w4a8", "torch", 0.6), ("w4a16", "torch", 0.9999), ("w8a8", "torch", 0.6), ("w8a8", "kitchen", 0.6)],
)
def test_a_lora_of_one_per_cent_does_what_it_does_on_the_float_model(pack, source, call, name, backend, cosine):
    """The rounding of activations, 8 bits, limits the cosine. The float model has the rounded weights: with its own,
    the layers behind a LoRA would pass its effect on in another way, and how much so is the model's matter."""
    patches = lora_on_all(source, 0.01)
    recipe = "stock" if backend == "kitchen" else "compact"
    twin = twin_of(pack, source, name, backend, recipe)
    floats = unpacked_twin(source, twin)
    expected = call(loaded(clone_with(floats, patches))) - call(loaded(floats))
    plain = in_every_state(twin, call)
    after = in_every_state(clone_with(twin, patches), call)
    before = in_every_state(twin_of(pack, clone_with(source, patches), name, backend, recipe), call)
    assert same_bits(after, before)
    change = after - plain
    along = (change * expected).sum()
    assert 0.95 < along / expected.square().sum() < 1.05
    assert along / (change.norm() * expected.norm()) > cosine


# --- what comes and goes: hooks, memory, merges


def test_a_hook_lora_acts_while_it_holds(pack, source, demo):
    """The host kept the patched floats of a hook and copied them over the packed bytes, which have another shape."""
    import comfy.hooks
    import comfy.sample

    def sampled(model, conditioning):
        noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(4))
        return comfy.sample.sample(
            model, noise, 2, 1.0, "euler", "simple", conditioning, conditioning, torch.zeros_like(noise),
            disable_pbar=True, seed=1,
        )  # fmt: skip

    twin = twin_of(pack, source)
    text = pack("nodes.host.conditioning").encode(demo[1], "a large apple")
    weight = source.model.get_submodule(LINEAR).weight
    adapter = patch_of("lora", weight, 0.3)
    up, down = adapter.weights[:2]
    key = LINEAR.removeprefix("diffusion_model.").replace(".", "_")
    values = {
        f"lora_unet_{key}.lora_up.weight": up,
        f"lora_unet_{key}.lora_down.weight": down,
        f"lora_unet_{key}.alpha": torch.tensor(8.0),
    }
    hooked = comfy.hooks.set_hooks_for_conditioning(
        [[value.clone(), dict(more)] for value, more in text], comfy.hooks.create_hook_lora(values, 1.0, 1.0)
    )
    plain, expected = sampled(twin, text), sampled(clone_with(twin, {f"{LINEAR}.weight": adapter}), text)
    assert relative(expected, plain) > 0.01
    for _ in range(2):
        torch.testing.assert_close(sampled(twin.clone(), hooked), expected, rtol=1e-4, atol=1e-4)
    assert same_bits(sampled(twin, text), plain), "the hook stayed behind"


def test_a_hook_comes_from_the_cache_and_goes_again(pack, source):
    import comfy.hooks

    twin = loaded(twin_of(pack, source))
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    plain = output_of(LINEAR, x)(twin)
    group = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook()
    group.add(hook)
    weight = source.model.get_submodule(LINEAR).weight
    twin.add_hook_patches(hook, {f"{LINEAR}.weight": patch_of("lora", weight, 0.1)})
    outputs = []
    for hooks in (group, None, group):
        twin.apply_hooks(hooks)
        outputs.append(output_of(LINEAR, x)(twin))
    assert twin.cached_hook_patches[group]
    twin.clean_hooks()
    assert same_bits(outputs[0], outputs[2])
    assert same_bits(outputs[1], plain)
    assert relative(outputs[0], plain) > 0.01
    assert same_bits(output_of(LINEAR, x)(twin), plain)


def test_the_device_is_prepared_where_not_one_layer_is_moved_to_it(pack, source):
    """Regression: a file's layers under partial loading made their tables inside the first block that ran, whose
    allocations the host's compiler replays."""
    layers = pack("qsched_core.quant.layers")
    twin = twin_of(pack, source)
    layers._prepared.clear()
    with Loaded(twin, False):
        assert twin.load_device in layers._prepared


def test_a_lora_outlives_a_partial_unload_once(pack, source, call):
    """A layer that moves out has the patch it was loaded with and the one the host leaves for it: one of them acts."""
    model = clone_with(twin_of(pack, source), lora_on_all(source, 0.05))
    with Loaded(model, True):
        whole, size = call(model), model.loaded_size()
        assert size == model.model_size()
        freed = model.partially_unload(model.offload_device, size // 3)
        layers = [layer for _, layer in model.packed_layers()]
        merges = [layer for layer in layers if layer.weight_function]
        assert 0 < len(merges) < len(layers)
        assert all(layer.loaded_patches is None for layer in merges)
        assert model.loaded_size() == size - freed
        torch.testing.assert_close(call(model), whole, rtol=1e-5, atol=1e-5)
        model.partially_load(model.load_device, 1 << 40)
        torch.testing.assert_close(call(model), whole, rtol=1e-5, atol=1e-5)
        assert model.loaded_size() == model.model_size()


def test_the_host_counts_what_a_lora_and_an_unpacked_weight_take(pack, source):
    """It once reckoned a patched layer's need from its packed bytes: a fifth of what the call takes."""
    twin = twin_of(pack, source)
    weight = source.model.get_submodule(LINEAR).weight
    lora = clone_with(twin, {f"{LINEAR}.weight": patch_of("lora", weight, 0.01)})
    dense = clone_with(twin, {f"{LINEAR}.weight": patch_of("dora", weight, 0.01)})
    assert lora.model_size() - twin.model_size() == 8 * (768 + 256) * 4
    assert lora.clone().clone().model_size() == lora.model_size()
    assert dense.model_size() == twin.model_size()
    needs = [
        {name: need - size for need, size, name, *_ in model._load_list()}[LINEAR] for model in (twin, lora, dense)
    ]
    assert needs == [weight.numel() * 4, weight.numel() * 4, 3 * weight.numel() * 4]


def test_a_layer_with_a_low_rank_part_is_loaded_and_patched(pack, source):
    """The host lists leaves alone: a packed layer with a module in it was neither loaded nor patched."""
    twin = twin_of(pack, source)
    layer, x = twin.model.get_submodule(LINEAR), torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    weight = unpacked(layer)
    layer.low_rank = pack("qsched_core.quant.branch").LowRank(torch.randn(768, 2), torch.randn(2, 256))
    plain = in_every_state(twin, output_of(LINEAR, x))
    value = patch_of("lora", weight, 0.05)
    change = in_every_state(clone_with(twin, {f"{LINEAR}.weight": value}), output_of(LINEAR, x)) - plain
    up, down = value.weights[:2]
    assert relative(change, F.linear(x, up @ down)) < 1e-4
    names = [name for *_, name, _, _ in twin._load_list()]
    assert names.count(LINEAR) == 1
    assert not any(name.startswith(f"{LINEAR}.") for name in names)


def test_a_merge_after_quantizing_acts_on_the_unpacked_weight(pack, source):
    import comfy.lora

    twin = twin_of(pack, source)
    other = clone_with(source, {f"{LINEAR}.weight": patch_of("diff", source.model.get_submodule(LINEAR).weight, 0.3)})
    parts = other.get_key_patches("diffusion_model.")
    merged = twin.clone()
    for key, part in parts.items():  # as the host's ModelMergeSimple does it
        merged.add_patches({key: part}, 0.25, 0.75)
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    layer = twin.model.get_submodule(LINEAR)
    change = in_every_state(merged, output_of(LINEAR, x)) - in_every_state(twin, output_of(LINEAR, x))
    target = 0.75 * unpacked(layer) + 0.25 * comfy.lora.calculate_weight(
        other.patches[f"{LINEAR}.weight"], source.model.get_submodule(LINEAR).weight.clone(), "weight"
    )
    assert relative(change, F.linear(x, target - unpacked(layer))) < 1e-4
    # And as the other side of a merge, a packed model gives floats.
    (weight, convert), *_ = twin.get_key_patches("diffusion_model.")[f"{LINEAR}.weight"]
    assert same_bits(convert(weight.float()), layer.dequantized())


def test_a_merge_before_quantizing_is_packed_once(pack, source):
    """Its weights were once packed, unpacked, merged and packed again: error 0.112 in place of 0.083."""
    key, weight = f"{LINEAR}.weight", source.model.get_submodule(LINEAR).weight
    merged = clone_with(source, {key: patch_of("diff", weight, 0.5)})
    with_lora = clone_with(merged, {key: patch_of("lora", weight, 0.01)})
    twin = twin_of(pack, with_lora)
    layer = twin.model.get_submodule(LINEAR)
    target = pack("nodes.quantization.layer_patches").LayerPatches(key, merged.patches[key], (768, 256)).merged(weight)
    assert relative(unpacked(layer), target) < 0.1
    assert [patch[1].name for patch in twin.patches[key]] == ["lora"]
    assert len(with_lora.patches[key]) == 2, "the source lost its patches"


def test_a_twin_of_a_partially_loaded_source_is_clean_without_its_lora(pack, source, call):
    """Layers that were kept had the source's patch in ``weight_function``: a LoRA that was removed still acted."""
    clean = call(loaded(twin_of(pack, source)))
    weight = source.model.get_submodule("diffusion_model.img_in").weight
    lora_model = clone_with(source, {"diffusion_model.img_in.weight": patch_of("lora", weight, 0.3)})
    with Loaded(lora_model, False):
        twin = twin_of(pack, lora_model)
    twin.patches.clear()
    for fully in (True, False):
        with Loaded(twin, fully):
            torch.testing.assert_close(call(twin), clean, rtol=1e-5, atol=1e-5)


def test_an_offloaded_layer_comes_by_the_hosts_own_cast(pack, source, monkeypatch):
    """It was moved by a blocking copy; the host has streams, and memory that is pinned for them."""
    import comfy.ops

    twin = twin_of(pack, source)
    layer = twin.model.get_submodule(LINEAR)
    casts, cast = [], comfy.ops.cast_bias_weight
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", lambda *a, **k: casts.append((a, k)) or cast(*a, **k))
    x = torch.empty(3, 256, device="meta")
    assert layer(x).shape == (3, 768)
    ((who, *_), how) = casts[0]
    assert who is layer
    assert (how["dtype"], how["device"].type, how["offloadable"]) == (torch.uint8, "meta", True)
    assert layer.weight.device.type == "cpu"
    layer(torch.zeros(3, 256))
    assert len(casts) == 1


def test_bypass_loras_of_the_source_are_named_in_the_report(pack, source):
    """They are tied to the source's own layers."""
    import comfy.weight_adapter

    value = patch_of("lora", source.model.get_submodule(LINEAR).weight, 0.1)
    model = source.clone()
    hooks = comfy.weight_adapter.create_bypass_injections_from_patches(
        model.model, {f"{LINEAR}.weight": [(1.0, value, 1.0, None, None)]}
    )
    model.set_injections("bypass_lora", hooks)
    loaded(model)
    job = pack("nodes.quantization.backends").job_for(model, "w4a8")
    twin, report = pack("nodes.quantization.twin_model").quantized_twin(model, job)
    assert "bypass" in report.text()
    assert not twin.injections
    assert type(twin.model.get_submodule(LINEAR)).__name__ == "HostLinear"
    loaded(source)


def test_the_hosts_bypass_loras_read_a_packed_layer(packed):
    import comfy.weight_adapter

    for kind in ("Linear w4a8", "Conv2d w4a8"):
        model, name, x = packed[kind]
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


# --- the host's weight protocol

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
    assert callable(globals()[answer])


def test_set_weight_packs_in_place_and_beside(packed):
    model, name, _ = packed["Linear w8a16"]
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
def test_a_weight_wrapper_acts_on_the_float_weight(packed, kind):
    model, name, x = packed[kind]
    layer = model.model.get_submodule(name)
    plain = in_every_state(model, output_of(name, x))
    wrapped = model.clone()
    wrapped.add_weight_wrapper(f"{name}.weight", lambda weight: weight * 1.5)
    change = in_every_state(wrapped, output_of(name, x)) - plain
    assert relative(change, float_output(layer, x, 0.5 * unpacked(layer))) < 1e-4
    assert same_bits(in_every_state(model, output_of(name, x)), plain)
