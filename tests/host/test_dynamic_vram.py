"""Dynamic VRAM, the host's default on NVIDIA cards, on a stand-in device: its own loader, and comfy-aimdo's C library
replaced by one that counts. No CUDA is run."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import torch
from encoder_files import SIZES, TYPES, encoder_files, keep_sizes, read
from exactness import same_bits
from layouts import need_layout
from safetensors.torch import load_file
from text_encoders import tokenizers_read_once
from twin_layers import LINEAR, twin_of

from benchmarks.adapters import patch_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def tokenizers(pack):
    with tokenizers_read_once():
        yield


class CountingLibrary:
    """Hands out handles as comfy-aimdo does, and counts how often each is freed."""

    def __init__(self):
        self.handles, self.freed = 0x7000, Counter()

    def vbar_allocate(self, *_):
        self.handles += 1
        return self.handles

    hostbuf_allocate = vbar_allocate

    def vbar_get(self, _, handle):
        return handle << 32

    def vbar_free(self, _, handle):
        self.freed[handle] += 1

    def hostbuf_free(self, handle):
        self.freed[handle] += 1

    def hostbuf_truncate(self, *_):
        return True

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: 0


@pytest.fixture
def library(pack, monkeypatch):
    """The host as it is with dynamic VRAM; the stand-in device is "cpu:0", which is not the CPU to it."""
    import comfy.memory_management
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy_aimdo.control
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar

    management.unload_all_models()
    library, device = CountingLibrary(), torch.device("cpu", 0)
    for module in (comfy_aimdo.control, comfy_aimdo.model_vbar, comfy_aimdo.host_buffer):
        monkeypatch.setattr(module, "lib", library)
    monkeypatch.setattr(comfy_aimdo.control, "get_devctx", lambda index: 1)
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    monkeypatch.setattr(management, "is_device_cpu", lambda it: it.type == "cpu" and it.index is None)
    monkeypatch.setattr(management, "get_torch_device", lambda: device)
    free = 8 << 30
    monkeypatch.setattr(
        management, "get_free_memory", lambda dev=None, torch_free_too=False: (free, free) if torch_free_too else free
    )
    monkeypatch.setattr(management, "pinned_hostbuf_size", lambda size: size)
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
    yield library
    management.current_loaded_models.clear()
    gc.collect()


@pytest.fixture
def sampled(pack, library):
    """A MODEL of the streaming loader that has been loaded, as a sampler leaves it."""
    import comfy.model_management

    model = pack("nodes.demo_model").QSchedDemoModel.execute().args[0]
    comfy.model_management.load_models_gpu([model])
    assert model.is_dynamic()
    assert any(hasattr(module, "_v") for module in model.model.modules())
    return model


CASES = [("w4a8", "torch", "compact"), ("w8a8", "kitchen", "stock")]


@pytest.mark.parametrize(("name", "backend", "recipe"), CASES)
def test_a_twin_shares_nothing_of_the_device_with_its_source(pack, library, sampled, name, backend, recipe):
    """The copied handles were freed with the twin, while the source still used them, and then once more."""
    import comfy.model_management

    twin = twin_of(pack, sampled, name, backend, recipe)
    loaded_state = pack("nodes.quantization.twin_model")._loaded_state
    assert [module for module in twin.model.modules() if loaded_state(module)] == []
    assert any(loaded_state(module) for module in sampled.model.modules()), "the source lost its own"
    comfy.model_management.load_models_gpu([twin])
    comfy.model_management.current_loaded_models[:] = [
        entry for entry in comfy.model_management.current_loaded_models if entry.model is sampled
    ]
    del twin
    gc.collect()
    used = {module._v[0]._ptr for module in sampled.model.modules() if hasattr(module, "_v")}
    assert not used & library.freed.keys(), "freed in use"
    assert all(times == 1 for times in library.freed.values())


@pytest.mark.parametrize(("name", "backend", "recipe"), CASES)
def test_a_twin_is_saved_and_loaded_where_layers_have_no_weight_before(
    pack, library, sampled, tmp_path, name, backend, recipe
):
    """The host asserts against force_patch_weights there, and a layer's weight was None where its shape was read."""
    import comfy.model_management
    import comfy.sd

    files = pack("nodes.quantization.files")
    twin = twin_of(pack, sampled, name, backend, recipe)
    files.save_model(twin, tmp_path / "ours.safetensors")
    loaded = files.load_model(tmp_path / "ours.safetensors")
    expected = pack("nodes.quantization.patcher").bytes_of(twin.model)
    values = pack("nodes.quantization.patcher").bytes_of(loaded.model)
    assert expected.keys() == values.keys()
    assert all(same_bits(value, values[key]) for key, value in expected.items())
    if pack("nodes.quantization.file_values").is_stock(twin):
        files.save_stock(twin, tmp_path / "stock.safetensors")
        stock = comfy.sd.load_diffusion_model_state_dict(load_file(tmp_path / "stock.safetensors"))
        assert stock.is_dynamic()
        for state in ("before", "after"):
            files.save_stock(stock, tmp_path / f"{state}.safetensors")
            comfy.model_management.load_models_gpu([stock])
        one, other = (load_file(tmp_path / f"{state}.safetensors") for state in ("before", "after"))
        assert all(same_bits(value, other[key]) for key, value in one.items())
        stock.add_patches({f"{LINEAR}.weight": patch_of("lora", sampled.model.get_submodule(LINEAR).weight, 0.01)})
        files.save_model(stock, tmp_path / "with a LoRA.safetensors")
        assert list(files.load_model(tmp_path / "with a LoRA.safetensors").patches) == [f"{LINEAR}.weight"]


@pytest.mark.parametrize(("form", "recipe", "family"), [("w4a8", "compact", "qwen"), ("w8a8", "stock", "flux")])
def test_a_text_encoder_is_saved_and_loaded_where_layers_have_no_weight_before(
    pack, library, tmp_path, monkeypatch, form, recipe, family
):
    import comfy.memory_management

    keep_sizes(monkeypatch)
    files, backends = pack("nodes.quantization.encoder_files"), pack("nodes.quantization.backends")
    with monkeypatch.context() as without:
        without.setattr(comfy.memory_management, "aimdo_enabled", False)
        paths = encoder_files(family, tmp_path)
    device = {"load_device": torch.device("cpu", 0), "offload_device": torch.device("cpu")}
    source = read(paths, TYPES[family], **device)
    assert source.patcher.is_dynamic()
    if recipe == "stock":
        need_layout(form)
        keep = pack("nodes.quantization.encoder_families").read_in_floats(source)
        job = backends.stock_text_job_for(source.patcher, form, keep=keep)
    else:
        job = backends.text_job_for(source.patcher, form)
    twin = pack("nodes.quantization.text_encoder").quantized_clip(source, job, ())[0]
    bytes_of = pack("nodes.quantization.patcher").bytes_of
    before = bytes_of(twin.cond_stage_model)
    files.save_encoder(twin, tmp_path / "ours.safetensors")
    loaded = files.load_encoder(tmp_path / "ours.safetensors", {**SIZES, **device})
    assert not loaded.patcher.is_dynamic()
    after = bytes_of(loaded.cond_stage_model)
    assert before.keys() == after.keys()
    assert all(same_bits(value, after[key]) for key, value in before.items())
    if recipe == "stock":
        paths = [tmp_path / f"{name}.safetensors" for name in ("clip_l", "t5xxl")]
        assert files.save_stock_encoders(twin, paths) == "flux"
        assert read(paths, "FLUX", **device).patcher.is_dynamic()


def test_the_twins_values_are_those_of_the_file(pack, library, sampled):
    """Loaded, small weights and buffers are copies on the device, with what is patched merged in."""
    img_in = "diffusion_model.img_in.weight"
    clean = sampled.model.get_submodule("diffusion_model.img_in").weight.clone()
    with_difference = sampled.clone()
    with_difference.add_patches({img_in: ("diff", (torch.ones_like(clean),))})
    import comfy.model_management

    comfy.model_management.load_models_gpu([with_difference])
    twin = twin_of(pack, with_difference)
    assert same_bits(twin.model.get_submodule("diffusion_model.img_in").weight, clean)
    assert list(twin.patches) == [img_in]


def test_the_sensitivity_of_a_loaded_model_is_studied(pack, library, sampled):
    quant, study = pack("qsched_core.quant"), pack("nodes.quantization.study").study
    network = sampled.model.diffusion_model
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 8, 8, generator=generator)
    width, wide = network.txt_in.in_features, network.vector_in.in_layer.in_features
    text, vector = torch.randn(1, 8, width, generator=generator), torch.randn(1, wide, generator=generator)

    def drive():
        network(x, torch.tensor([0.5]), text, vector)

    result = study(sampled, drive, [quant.read_format("w4a8")], "layers", lambda *_: None)
    assert len(result.layers) == 19


def test_layers_without_a_weight_get_its_shape_and_type_and_no_memory(pack):
    lazy, bare, plain = (torch.nn.Linear(3, 2, bias=bias) for bias in (True, False, True))
    for layer in (lazy, bare):
        layer.weight, layer.weight_comfy_model_dtype = None, torch.bfloat16
    bare.comfy_need_lazy_init_bias = True
    before = dict(plain.named_parameters())
    pack("nodes.quantization.file_values").give_weights(torch.nn.Sequential(lazy, bare, plain))
    empty = [lazy.weight, bare.weight, bare.bias]
    assert [tuple(value.shape) for value in empty] == [(2, 3), (2, 3), (2,)]
    assert {(value.dtype, value.is_meta, value.requires_grad) for value in empty} == {(torch.bfloat16, True, False)}
    assert not lazy.bias.is_meta
    assert all(value is before[name] for name, value in plain.named_parameters())
