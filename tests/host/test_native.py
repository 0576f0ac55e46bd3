"""The host's own layouts: packed from a loaded MODEL, LoRAs right, and files that stock loaders read again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from exactness import ROUNDED_ACTIVATIONS, near, same_bits
from layouts import BITS, need_layout
from random_checkpoints import family, picture
from twin_layers import relative

from scripts.layout import CACHE
from scripts.random_models import write

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=BITS)
def form(request, pack) -> str:
    """A format that this host has a native layout for."""
    need_layout(request.param)
    return request.param


def native(pack, model, name: str = "w8a8", recipe: str = "stock", **more):
    need_layout(name)
    job = pack("nodes.quantization.backends").job_for(model, name, backend="kitchen", recipe=recipe, **more)
    return pack("nodes.quantization.twin_model").quantized_twin(model, job)


@pytest.fixture(scope="module")
def sd15(pack):
    return family("sd15")


def test_layers_are_the_hosts_own_and_the_source_is_untouched(pack, sd15, form):
    import comfy.model_management

    source, *how = sd15
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    full = picture(source, *how)
    twin, report = native(pack, source, form)
    packed = picture(twin, *how)
    assert 0 < relative(packed, full) < {"w8a8": 0.05, "w4a8": 0.4, "w4a4": 0.8}[form]
    assert {(layer.backend, layer.kernel) for layer in report.quantized} == {("kitchen", "eager")}
    kinds = {layer.quant_format for layer in map(twin.model.diffusion_model.get_submodule, names(report))}
    # Four bits hold widths in 256 alone: others get eight.
    assert kinds == {BITS[form]} | ({BITS["w8a8"]} if form == "w4a8" else set())
    assert twin.model_size() == comfy.model_management.module_size(twin.model) < source.model_size()
    after = source.model.state_dict()
    assert all(same_bits(value, after[name]) for name, value in before.items())
    assert same_bits(picture(source, *how), full)
    again, _ = native(pack, source, form)
    assert same_bits(picture(again, *how), packed)


def names(report) -> list[str]:
    return [layer.name for layer in report.quantized]


def test_widths_that_no_rotation_of_256_divides_are_packed_all_the_same(pack, sd15):
    """K = 320 takes a rotation of 64: with the host's default it is refused."""
    _, report = native(pack, sd15[0])
    assert {layer.shape[1] for layer in report.quantized} >= {320, 768, 1280}
    assert not any("multiple" in layer.reason for layer in report.layers)


def lora_for(model, scale: float = 1.0):
    """On every query of self-attention, so that it surely moves the picture."""
    import comfy.sd

    generator, weights = torch.Generator().manual_seed(3), {}
    for name, value in model.model.state_dict().items():
        if name.endswith("attn1.to_v.weight"):
            key, wide = name.removesuffix(".weight"), value.shape[0]
            columns = model.model.get_submodule(key).in_features
            weights |= {
                f"{key}.lora_up.weight": scale * torch.randn(wide, 4, generator=generator) / 4,
                f"{key}.lora_down.weight": torch.randn(4, columns, generator=generator) / 4,
                f"{key}.alpha": torch.tensor(4.0),
            }
    with_lora, _ = comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)
    assert len(with_lora.patches) == len(weights) / 3 > 0
    return with_lora


def test_a_lora_before_and_after_packing_moves_the_picture_alike(pack, sd15):
    source, *how = sd15
    twin, _ = native(pack, source)
    plain, full = picture(twin, *how), picture(lora_for(source), *how)
    after, before = picture(lora_for(twin), *how), picture(native(pack, lora_for(source))[0], *how)
    effect = relative(after, plain)
    assert effect > 0.05, "the LoRA did nothing"
    assert relative(after, full) < 0.25 * effect
    assert relative(before, full) < 0.25 * effect
    assert same_bits(picture(twin, *how), plain), "the LoRA stayed behind in the twin"


def test_low_memory_runs_the_lora_at_the_layer(pack, sd15):
    import comfy.model_management

    source, *how = sd15
    with_lora = lora_for(native(pack, source)[0])
    expected = picture(with_lora, *how)
    comfy.model_management.unload_all_models()
    with_lora.model_patches_to(with_lora.load_device)
    with_lora.patch_model(with_lora.load_device, lowvram_model_memory=1)
    try:
        layer = with_lora.model.get_submodule(next(iter(with_lora.patches)).removesuffix(".weight"))
        assert layer.weight_function, "the host did not take the low-memory path"
        low = with_lora.model.diffusion_model
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
        output = low(x, torch.ones(1), context=how[0][0][0])
    finally:
        with_lora.unpatch_model(with_lora.offload_device)
    plain = with_lora.model.diffusion_model(x, torch.ones(1), context=how[0][0][0])
    assert relative(output, plain) > 0.01, "the LoRA did nothing"
    assert same_bits(picture(with_lora, *how), expected)


@pytest.mark.parametrize(
    ("name", "form"),
    # Each form on a U-Net and on a transformer, and the largest of the three once.
    [(name, form) for name in ("sd15", "flux1-schnell") for form in BITS] + [("sdxl", "w8a8")],
)
def test_the_stock_loader_reads_the_file_and_samples_the_same(pack, tmp_path, name, form):
    import comfy.sd

    files, describe = pack("nodes.quantization.files"), pack("nodes.host.model_info")
    source, *how = family(name)
    twin, report = native(pack, source, form, last_steps=0)  # stock loaders have no place for them
    assert pack("nodes.quantization.file_values").is_stock(twin)
    path = tmp_path / "model.safetensors"
    files.save_stock(twin, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = comfy.sd.load_diffusion_model(str(path))
    # The weights' bits are compared by save_stock; mapped from a file they lie at other addresses, and kernels differ.
    assert near(picture(loaded, *how), picture(twin, *how), ROUNDED_ACTIVATIONS)
    ours, theirs = (describe.describe(model, "euler", "simple", 1.0) for model in (twin, loaded))
    assert ours == theirs
    assert loaded.model_size() == twin.model_size()
    assert len(report.quantized) >= 4


def test_with_a_lora_native_layers_go_to_a_file_of_ours(pack, sd15, tmp_path):
    """The stock format has no place for it: merged and packed again, a LoRA of 1 % keeps 0.3 of its direction."""
    files = pack("nodes.quantization.files")
    source, *how = sd15
    twin = native(pack, source)[0]
    with_lora = lora_for(twin)
    assert pack("nodes.quantization.file_values").is_stock(twin)
    assert not pack("nodes.quantization.file_values").is_stock(with_lora)
    files.save_model(with_lora, tmp_path / "model.safetensors")
    loaded = files.load_model(tmp_path / "model.safetensors")
    assert same_bits(picture(loaded, *how), picture(with_lora, *how))


def test_a_model_that_the_host_would_not_know_again_is_not_saved(pack, sd15, tmp_path, refused):
    """Four bits in the layer whose width tells SD1.5 from others: without names kept, stock loaders see half of it."""
    need_layout("w4a4")
    source = sd15[0]
    twins, jobs = pack("nodes.quantization.twin_model"), pack("nodes.quantization.backends")
    job = jobs.job_for(source, "w4a4", backend="kitchen", recipe="stock")
    read = pack("nodes.quantization.detection").layers_read(source.model.diffusion_model)
    assert [name for name in read if name.endswith("attn2.to_k")]
    twin, _ = twins.quantized_twin(source, replace(job, keep=None))
    with refused(pack("qsched_core").QuantizationError, "would not know this model again", 'recipe "stock"'):
        pack("nodes.quantization.files").save_stock(twin, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_compact_packs_the_convolutions_beside_and_goes_to_a_file_of_ours(pack, sd15, tmp_path):
    files = pack("nodes.quantization.files")
    source, *how = sd15
    twin, report = native(pack, source, recipe="compact")
    by_backend = {(len(layer.shape), layer.backend) for layer in report.quantized}
    assert by_backend == {(2, "kitchen"), (4, "torch")}
    assert "ComfyUI's native layouts hold Linear layers only" in report.text()
    assert not pack("nodes.quantization.file_values").is_stock(twin)
    files.save_model(twin, tmp_path / "model.safetensors")
    loaded = files.load_model(tmp_path / "model.safetensors")
    assert near(picture(loaded, *how), picture(twin, *how), ROUNDED_ACTIVATIONS)
    assert pack("nodes.host.model_info").quantization(loaded) == pack("nodes.host.model_info").quantization(twin)


def test_auto_takes_the_portable_layers_where_there_is_no_fast_kernel(pack, sd15):
    need_layout("w8a8")
    job = pack("nodes.quantization.backends").job_for(sd15[0], "w8a8")
    assert [way.backend.name for way in job.ways] == ["torch"]
    assert job.notes == ["Not kitchen: on cpu it has no kernel faster than unpacking."]
    stock = pack("nodes.quantization.backends").job_for(sd15[0], "w8a8", recipe="stock")
    assert [way.backend.name for way in stock.ways] == ["kitchen"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"format": "w3a8"}, "no native layout for w3a8"),
        ({"format": "w8a8", "group_size": 32}, "one scale per channel"),
        ({"format": "w8a8", "symmetric": False}, "is symmetric"),
    ],
)
def test_what_no_native_layout_holds_is_refused_with_a_way_out(pack, sd15, arguments, text):
    need_layout("w8a8")
    with pytest.raises(pack("qsched_core").QuantizationError, match=rf"(?s){text}.*compact"):
        pack("nodes.quantization.backends").job_for(sd15[0], recipe="stock", **arguments)


def test_a_host_without_the_layout_says_so(pack, sd15, monkeypatch):
    import comfy.quant_ops

    algorithms = {name: value for name, value in comfy.quant_ops.QUANT_ALGOS.items() if name != "asym_w4a8_int8"}
    monkeypatch.setattr(pack("nodes.quantization.backends"), "QUANT_ALGOS", algorithms)
    with pytest.raises(pack("qsched_core").QuantizationError, match="this ComfyUI has no asym_w4a8_int8"):
        pack("nodes.quantization.backends").job_for(sd15[0], "w4a8", recipe="stock")


def test_the_host_can_make_the_twin_again_by_the_loaders_recipe(pack):
    """Several GPUs and hooked LoRAs load a model anew: without a recipe of its own, the twin came back as floats."""
    source, *how = family("flux1-schnell")
    assert source.cached_patcher_init is not None
    twin, _ = native(pack, source)
    make, arguments = twin.cached_patcher_init
    again = make(*arguments, disable_dynamic=True)
    assert (
        pack("nodes.host.model_info").quantization(again) == pack("nodes.host.model_info").quantization(twin) != "none"
    )
    assert near(picture(again, *how), picture(twin, *how), ROUNDED_ACTIVATIONS)


def test_bfloat16_on_a_cpu_is_packed_and_computed_in_the_hosts_type(pack):
    import comfy.sd

    file = write("flux1-schnell", CACHE / "random-models")
    _, *how = family("flux1-schnell")
    source = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.bfloat16})
    full = picture(source, *how)
    need_layout("w8a8")
    for backend in ("kitchen", "torch"):
        job = pack("nodes.quantization.backends").job_for(source, "w8a8", backend=backend)
        assert (
            relative(picture(pack("nodes.quantization.twin_model").quantized_twin(source, job)[0], *how), full) < 0.05
        )
