"""Twins with weights rounded by optimum-quanto, Linear and convolution: LoRA, partial loading and size on the host."""

from __future__ import annotations

import sys
from functools import cache
from math import prod

import pytest
import torch
from demo_model import picture
from exactness import same_bits
from twin_layers import CONV, LINEAR, relative, with_lora

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["demo", "tiny"])
def case(request, pack, tiny):
    """(source, key of a layer, draws a MODEL's latent): Linear layers of the demo, convolutions of a small U-Net."""
    if request.param == "tiny":
        import comfy.samplers

        return (
            tiny.model("EPS"),
            CONV,
            lambda model: tiny.run(model, comfy.samplers.sampler_object("euler"), tiny.schedule(model)[::2]),
        )
    model, clip, _ = request.getfixturevalue("demo")
    conditioning = pack("nodes.host.conditioning").encode(clip, "a large apple on a white background")
    return model, LINEAR, lambda model: picture(model, conditioning, steps=2)


@pytest.fixture(scope="module")
def shared_twin(pack, case):
    """``shared_twin(name)``: a clone of a twin that is made once, for those who do not write to its layers."""
    twin_in = cache(lambda name: twin_of(pack, case[0], name)[0])
    return lambda name="w8a16": twin_in(name).clone()


def twin_of(pack, model, name: str = "w8a16"):
    # 32: quanto's group of 64 does not divide what the small U-Net's layers sum over.
    job = pack("nodes.quantization.backends").job_for(model, name, 32 if name == "w4a16" else None, backend="quanto")
    return pack("nodes.quantization.twin_model").quantized_twin(model, job)


@pytest.mark.parametrize(("name", "most"), [("w4a16", 0.6), ("w8a16", 0.05)])
def test_the_source_is_untouched_and_the_twin_draws_nearly_the_same(pack, case, shared_twin, name, most):
    source, key, picture = case
    full_picture = picture(source)  # first: a LoRA that another test's clone has merged is taken out with it
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    twin, report = twin_of(pack, source, name)
    twin_picture = picture(twin)
    assert 0 < relative(twin_picture, full_picture) < most
    assert same_bits(picture(shared_twin(name)), twin_picture)
    assert {layer.backend for layer in report.quantized} == {"quanto"}
    assert type(twin.model.get_submodule(key)).__name__ == ("HostQuantoConv2d" if key == CONV else "HostQuantoLinear")
    after = source.model.state_dict()
    assert all(same_bits(value, after[name]) for name, value in before.items())
    assert same_bits(picture(source), full_picture)


@pytest.mark.parametrize(("name", "most"), [("w4a16", 0.5), ("w8a16", 0.75)])
def test_the_size_the_host_sees_is_the_packed_one(pack, case, name, most):
    import comfy.model_management

    source, key, _ = case
    twin, report = twin_of(pack, source, name)
    layer = twin.model.get_submodule(key)
    rows, columns = layer.shape[0], prod(layer.shape[1:])
    # Two codes a byte and two halves per 32; or a byte a code and a half per output channel.
    size = rows * (columns // 2 + 4 * columns // 32 if name == "w4a16" else columns + 2)
    assert comfy.model_management.module_size(layer) == size + layer.bias.nbytes
    assert twin.model_size() == comfy.model_management.module_size(twin.model)
    floats = (source.model.get_submodule(f"diffusion_model.{entry.name}").weight for entry in report.quantized)
    float_bytes, packed_bytes = (
        sum(weight.nbytes for weight in floats),
        sum(entry.bytes_after for entry in report.quantized),
    )
    assert twin.model_size() == source.model_size() - float_bytes + packed_bytes
    assert report.bytes_after < most * report.bytes_before


def test_a_lora_moves_the_picture_after_quantizing_as_before(pack, case, shared_twin):
    source, key, picture = case
    twin = shared_twin()
    plain, full = picture(twin), picture(with_lora(source, key))
    after, before = picture(with_lora(twin, key)), picture(twin_of(pack, with_lora(source, key))[0])
    shift = relative(after, plain)
    assert shift > 0.005, "the LoRA did nothing"
    assert relative(after, full) < 0.25 * shift
    assert relative(before, full) < 0.25 * shift
    assert same_bits(picture(twin), plain), "the LoRA stayed behind in the twin"
    assert same_bits(picture(twin.clone()), plain)


def test_a_lora_leaves_the_bytes_and_a_new_weight_is_rounded_by_quanto(pack, case):
    import comfy.model_management

    source, key, _ = case
    twin = twin_of(pack, source, "w4a16")[0]
    layer, own = twin.model.get_submodule(key), twin.model.get_submodule(key).weight.clone()
    lora_model = with_lora(twin, key)
    comfy.model_management.load_models_gpu([lora_model], force_patch_weights=True)
    assert same_bits(layer.weight, own)
    wide = layer.patched_weight(torch.device("cpu"))
    assert relative(wide, layer.dequantized()) > 0.1
    comfy.model_management.unload_all_models()
    packed = layer.pack(wide.flatten(1), layer.format)
    assert same_bits(layer.set_weight(wide, return_weight=True), packed)
    layer.set_weight(wide, inplace_update=True)
    assert same_bits(layer.weight, packed)


def test_partial_loading_draws_the_same_picture(case, shared_twin):
    import comfy.model_management

    _, key, picture = case
    lora_model = with_lora(shared_twin(), key)
    expected = picture(lora_model)
    comfy.model_management.unload_all_models()
    lora_model.patch_model(lora_model.load_device, lowvram_model_memory=1)
    assert lora_model.model.get_submodule(key).weight_function, "the host did not take the low-memory path"
    torch.testing.assert_close(picture(lora_model), expected, rtol=1e-4, atol=1e-4)
    lora_model.unpatch_model(lora_model.offload_device)


def test_a_preset_can_tell_it_from_our_own_rounding(pack, case, shared_twin):
    source, key, _ = case
    describe = pack("nodes.host.model_info")
    label = describe.quantization(shared_twin("w8a16"))
    assert label == ("conv+quanto+w8a16/channel" if key == CONV else "quanto+w8a16/channel")
    assert "quanto+w4a16/g32/asym" in describe.quantization(shared_twin("w4a16"))
    assert describe.fingerprint(shared_twin()) == describe.fingerprint(source)


def test_without_the_package_the_error_says_what_to_install(pack, case, monkeypatch):
    monkeypatch.setitem(sys.modules, "optimum.quanto", None)
    with pytest.raises(pack("qsched_core").QuantizationError, match="pip install optimum-quanto"):
        twin_of(pack, case[0])


def test_saving_is_refused(pack, shared_twin, tmp_path):
    with pytest.raises(pack("qsched_core").QuantizationError, match="quanto's layers are not written to files"):
        pack("nodes.quantization.files").save_model(shared_twin(), tmp_path / "twin.safetensors")
