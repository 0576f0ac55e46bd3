"""LoRAs and merges on a whole packed model: they act as on the float model, come and go, and take memory."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from exactness import same_bits
from torch import nn
from torch.nn import functional as F
from twin_layers import LINEAR, Loaded, clone_with, in_every_state, loaded, output_of, relative, twin_of, unpacked

from benchmarks.adapters import patch_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def source(demo):
    return demo[0]


def test_patches_are_packed_with_the_weight_up_to_the_last_that_is_as_large(pack):
    adapter = (1.0, patch_of("lora", torch.zeros(64, 32), 0.1), 1.0, None, None)
    dense = (1.0, (torch.zeros(64, 32),), 1.0, None, None)
    large, files = pack("nodes.quantization.twin_model")._large, pack("nodes.quantization.file_values")
    for patches, count in (
        ([], 0), ([adapter], 0), ([dense], 1), ([adapter, dense], 2), ([dense, adapter], 1),
        ([dense, adapter, dense, adapter, adapter], 3),
    ):  # fmt: skip
        assert large(patches) == count
        model = SimpleNamespace(patches={"key": patches})
        assert files._merged_and_rest(model, "key") == (patches[:count], patches[count:])


# --- the measure of the issue: a whole network's output


@pytest.fixture(scope="module")
def call(demo):
    model, clip, _ = demo
    tokens, more = clip.encode_from_tokens_scheduled(clip.tokenize("an apple"))[0]
    vector = model.model.encode_adm(pooled_output=more["pooled_output"], width=64, height=64, device="cpu")
    x = torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(0))

    def call(patcher, count: int = 8) -> torch.Tensor:
        inputs = {"c_crossattn": tokens.expand(count, -1, -1), "y": vector.expand(count, -1)}
        return patcher.model.apply_model(x[:count], torch.full((count,), 0.5), **inputs).float().clone()

    return call


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
    if backend == "kitchen":  # on CPUs, torch's product of int8 takes a hundred times as long as its others
        call = partial(call, count=2)
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
