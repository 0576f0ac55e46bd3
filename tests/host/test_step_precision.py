"""The last steps of a picture with finer activations: through every sampler node, whatever else is on the MODEL."""

from __future__ import annotations

import pytest
import torch
from demo_model import picture
from exactness import same_bits
from safetensors.torch import load_file, save_file
from twin_layers import LINEAR, activation_bits, with_lora


@pytest.fixture(scope="module")
def conditioning(demo, pack):
    return pack("nodes.host.conditioning").encode(demo[1], "a large apple on a white background")


def twin_of(pack, model, last_steps: int | None = None, backend: str = "torch", **more):
    job = pack("nodes.quantization.backends").job_for(model, "w4a4", backend=backend, last_steps=last_steps, **more)
    return pack("nodes.quantization.twin_model").quantized_twin(model, job)


def bits_seen(pack, model, conditioning, *args, **part) -> list[int]:
    """Of each evaluation of the network."""
    return activation_bits(pack, model, lambda: picture(model, conditioning, *args, **part))


def test_the_last_step_of_a_picture_is_wide_in_every_sampler(pack, demo, conditioning):
    model, report = twin_of(pack, demo[0])
    assert report.last_steps == 1
    assert "The last step: 8-bit activations" in report.text()
    assert bits_seen(pack, model, conditioning) == [4, 4, 4, 8]
    assert bits_seen(pack, model, conditioning, "dpmpp_2m") == [4, 4, 4, 8]
    # heun's second evaluation of a step is at the sigma where the last one starts.
    assert bits_seen(pack, model, conditioning, "heun")[-1] == 8
    # Split sampling: the first half ends above sigma 0, the second holds the last step.
    assert bits_seen(pack, model, conditioning, start_step=0, last_step=2) == [4, 4]
    assert bits_seen(pack, model, conditioning, start_step=2, last_step=4) == [4, 8]


def test_two_graphs_run_one_model_with_two_plans(pack, demo, conditioning):
    """Nothing may be written into the network that both share."""
    put = pack("nodes.sampling.step_precision").put_last_steps
    wide, _ = twin_of(pack, demo[0], 1)
    narrow = wide.clone()
    put(narrow, 0)
    one, other = picture(wide, conditioning), picture(narrow, conditioning)
    # The host leaves attributes of its own on what it loads.
    attributes = {name: set(vars(module)) for name, module in wide.model.diffusion_model.named_modules()}
    assert not torch.equal(one, other)
    assert same_bits(picture(wide, conditioning), one)
    assert same_bits(picture(narrow, conditioning), other)
    assert same_bits(picture(twin_of(pack, demo[0], 0)[0], conditioning), other)
    assert attributes == {name: set(vars(module)) for name, module in wide.model.diffusion_model.named_modules()}
    assert pack("nodes.sampling.step_precision").precision_of(wide.clone()).count == 1


def test_the_last_step_brings_the_picture_nearer(pack, demo, conditioning):
    full = picture(demo[0], conditioning)
    error = [(picture(twin_of(pack, demo[0], n)[0], conditioning) - full).norm().item() for n in (0, 4)]
    assert error[1] < error[0]


def test_it_composes_with_loras_little_memory_and_presets(pack, demo, conditioning):
    import comfy.model_management

    core = pack("qsched_core")
    model, _ = twin_of(pack, demo[0])
    lora_model = with_lora(model, LINEAR)
    assert bits_seen(pack, lora_model, conditioning) == [4, 4, 4, 8]
    assert not torch.equal(picture(lora_model, conditioning), picture(model, conditioning))
    sigmas = pack("nodes.sampling.ksampler").Recipe(4, 1.0, "euler", "simple").sigmas(model)
    preset_model = pack("nodes.sampling.patch").apply_coefficients(
        lora_model, core.Coefficients.constant(4, c_eps=1.05), sigmas
    )
    assert bits_seen(pack, preset_model, conditioning) == [4, 4, 4, 8]
    whole = picture(lora_model, conditioning)
    comfy.model_management.unload_all_models()
    lora_model.load(lora_model.load_device, lowvram_model_memory=1)  # nothing fits: every layer stays offloaded
    assert torch.allclose(picture(lora_model, conditioning), whole, atol=1e-4)


def test_it_is_saved_with_the_model_and_a_false_number_is_refused(pack, demo, conditioning, tmp_path, refused):
    files, steps = pack("nodes.quantization.files"), pack("nodes.sampling.step_precision")
    model, _ = twin_of(pack, demo[0], 2)
    path = tmp_path / "model.safetensors"
    files.save_model(model, path)
    loaded = files.load_model(path)
    assert steps.precision_of(loaded).count == 2
    assert bits_seen(pack, loaded, conditioning) == [4, 4, 8, 8]
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    for wrong in ("-1", "1001", "99999999999", "many", "²"):
        save_file(load_file(path), tmp_path / "wrong.safetensors", {**metadata, "last_steps": wrong})
        with refused(pack("qsched_core").QuantizationError, "last_steps"):
            files.load_model(tmp_path / "wrong.safetensors")


def test_the_host_s_own_layers_take_a_float_product_there(pack, demo, conditioning):
    """Their kernel knows 4-bit activations alone."""
    from layouts import need_layout

    need_layout("w4a4")
    model, report = twin_of(pack, demo[0], 1, backend="kitchen")
    assert "whose kernel has 4-bit activations alone" in report.text()
    name = next(layer.name for layer in report.quantized if layer.backend == "kitchen")
    layer = model.model.diffusion_model.get_submodule(name)
    x = torch.randn(1, 5, layer.in_features, generator=torch.Generator().manual_seed(0)).to(layer.weight.dtype)
    exact = torch.nn.functional.linear(x.float(), layer.float_weight(x.device), layer.bias.float())
    with pack("qsched_core.quant").least_activation_bits(8):
        wide = layer(x)
    relative = [((out.float() - exact).norm() / exact.norm()).item() for out in (layer(x), wide)]
    assert relative[1] < 0.01 < relative[0]
