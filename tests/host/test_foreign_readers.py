"""Who reads a packed model without knowing it gets floats: the host's savers, ControlLora, LoRA extraction, merges."""

from __future__ import annotations

import copy

import pytest
import torch
from exactness import differ, same_bits
from torch import nn
from twin_layers import LINEAR, twin_of

from benchmarks.adapters import patch_of

pytestmark = pytest.mark.usefixtures("one_thread")

CONV = "diffusion_model.input_blocks.1.0.in_layers.2"


@pytest.fixture(scope="module")
def lora_twin(pack, demo):
    twin = twin_of(pack, demo[0])
    clone = twin.clone()
    clone.add_patches({f"{LINEAR}.weight": patch_of("lora", demo[0].model.get_submodule(LINEAR).weight, 0.1)})
    return clone


def outputs(model, name: str = LINEAR) -> torch.Tensor:
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    return model.model.get_submodule(name)(torch.ones(1, 256)).clone()


@pytest.mark.parametrize("memory", [0, 1])
def test_the_hosts_own_saver_writes_a_float_model_with_the_lora_in_it(pack, demo, lora_twin, tmp_path, memory):
    """ModelSave and CheckpointSave wrote the bytes under the floats' names: a file that nothing reads."""
    import comfy.model_management
    import comfy.sd

    comfy.model_management.unload_all_models()
    lora_twin.patch_model(lora_twin.load_device, lowvram_model_memory=memory)
    expected = lora_twin.model.get_submodule(LINEAR).patched_weight(torch.device("cpu"))
    lora_twin.unpatch_model(lora_twin.offload_device)
    comfy.sd.save_checkpoint(str(tmp_path / "model.safetensors"), lora_twin)
    loaded = comfy.sd.load_diffusion_model(str(tmp_path / "model.safetensors"))
    assert type(loaded.model.model_config) is type(demo[0].model.model_config)
    assert same_bits(loaded.model.get_submodule(LINEAR).weight.float(), expected)
    shapes = {name: value.shape for name, value in demo[0].model.state_dict().items()}
    assert {name: value.shape for name, value in loaded.model.state_dict().items()} == shapes


@pytest.mark.parametrize("fully", [True, False])
def test_the_hosts_own_saver_writes_its_own_layouts(pack, demo, tmp_path, fully):
    """Of int8 it could not, where a layer was not loaded: its stand-in for what is written later asks for gradients."""
    twin = twin_of(pack, demo[0], "w8a8", "kitchen", "stock").clone()
    weight = demo[0].model.get_submodule(LINEAR).weight
    twin.add_patches({f"{LINEAR}.weight": patch_of("lora", weight, 0.2)})
    before = twin.float_value(f"{LINEAR}.weight")
    twin.patch_model(twin.load_device, lowvram_model_memory=0 if fully else 1)
    values = twin.state_dict_for_saving()
    twin.unpatch_model(twin.offload_device)
    saved = values[f"model.{LINEAR}.weight"]
    assert saved.dtype == torch.int8
    scale = values[f"model.{LINEAR}.weight_scale"]
    layer = twin.model.get_submodule(LINEAR)
    wide = layer.convert_weight(layer.set_weight(before, return_weight=True))
    assert saved.shape == weight.shape
    assert scale.numel() == len(weight)
    assert ((wide - before).norm() / before.norm()).item() < 0.02


def test_the_networks_own_state_dict_gives_floats_and_the_whole_models_the_bytes(pack, tiny):
    """ControlLora reads the first and crashed; the host's patcher reads the second, whose size it counts."""
    import comfy.utils

    source = tiny.model("FLOW")
    twin = twin_of(pack, source)
    network, layer = twin.model.diffusion_model, twin.model.get_submodule(CONV)
    read = network.state_dict()
    assert {name: value.shape for name, value in read.items()} == {
        name: value.shape for name, value in source.model.diffusion_model.state_dict().items()
    }
    key = CONV.removeprefix("diffusion_model.") + ".weight"
    assert same_bits(read[key], layer.dequantized())
    assert twin.model.state_dict()[f"diffusion_model.{key}"].dtype == torch.uint8
    # As ControlLora takes them over.
    control = nn.Conv2d(32, 32, 3)
    comfy.utils.set_attr_param(control, "weight", read[key])
    assert control(torch.zeros(1, 32, 8, 8)).shape == (1, 32, 6, 6)


def test_a_network_gives_floats_from_the_first_read_and_bytes_while_they_are_asked_for(pack):
    patcher, form = pack("nodes.quantization.patcher"), pack("qsched_core.quant").resolve_format("w8a8")
    layer = pack("nodes.quantization.layers").HostLinear.from_float(torch.randn(32, 64), torch.zeros(32), form)
    network = nn.Sequential(layer)
    for _ in range(2):
        patcher.read_as_floats(network)  # the second time it is so already
    assert len(network._state_dict_hooks) == 1
    for _ in range(2):
        assert same_bits(network.state_dict()["0.weight"].float(), layer.dequantized().float())
        assert patcher.bytes_of(network)["0.weight"].dtype == torch.uint8


def test_the_models_state_dict_gives_the_patched_floats(lora_twin):
    """Nodes that extract a LoRA from the difference of two models read it from the patcher."""
    outputs(lora_twin)
    layer = lora_twin.model.get_submodule(LINEAR)
    read = lora_twin.model_state_dict("diffusion_model.")
    assert same_bits(read[f"{LINEAR}.weight"], layer.patched_weight(torch.device("cpu")))
    assert same_bits(dict(read.items())[f"{LINEAR}.weight"], read[f"{LINEAR}.weight"])
    assert differ(read[f"{LINEAR}.weight"], layer.dequantized())


def test_a_layers_own_forward_is_kept_and_named(pack, tiny):
    """Seamless tiling sets a convolution's forward on the object: the packed layer had its class's again."""
    source = tiny.model("FLOW")
    layer = source.model.get_submodule(CONV)

    def tiled(self, x, weight, bias):
        x = nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        return nn.functional.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)

    layer._conv_forward = tiled.__get__(layer, nn.Conv2d)
    job = pack("nodes.quantization.backends").job_for(source, "w4a8")
    twin, report = pack("nodes.quantization.twin_model").quantized_twin(source, job)
    entry = next(entry for entry in report.layers if f"diffusion_model.{entry.name}" == CONV)
    assert "another node has changed its _conv_forward" in entry.reason
    x = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    assert same_bits(twin.model.get_submodule(CONV)(x), layer(x))
    assert twin.model.get_submodule(CONV)._conv_forward.__self__ is twin.model.get_submodule(CONV)


def test_a_packed_convolution_has_what_others_read_of_one(pack, tiny):
    source = tiny.model("FLOW")
    own, packed = source.model.get_submodule(CONV), twin_of(pack, source).model.get_submodule(CONV)
    for name in (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
        "transposed", "output_padding",
    ):  # fmt: skip
        assert getattr(packed, name) == getattr(own, name), name


READERS = {
    "float": lambda weight: weight.float(),
    "to another type": lambda weight: weight.to(torch.float16),
    "to an input's type": lambda weight: weight.to(torch.zeros(1)),
    "a product": lambda weight: nn.functional.linear(torch.zeros(1, weight.shape[1]), weight),
    "a factor": lambda weight: 0.5 * weight,
    "into floats": lambda weight: torch.zeros(weight.shape).copy_(weight),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_who_computes_with_a_packed_weight_is_told(pack, lora_twin, refused, read):
    """Its bytes became floats from 0 to 255, and a node went on with them."""
    import comfy.utils

    error = pack("qsched_core").QuantizationError
    layer = lora_twin.model.get_submodule(LINEAR)
    for weight in (
        layer.weight,
        comfy.utils.get_attr(lora_twin.model, f"{LINEAR}.weight"),
        lora_twin.get_model_object(f"{LINEAR}.weight"),
        dict(lora_twin.model.named_parameters())[f"{LINEAR}.weight"],
    ):
        with refused(error, "another node computes with a weight that is packed"):
            read(weight)


def test_the_hosts_own_cast_of_a_packed_weight_is_told_and_its_merges_read_floats(pack, demo, lora_twin, refused):
    """ModelMergeSimple casts what it reads to float32 and then asks the layer to unpack it."""
    import comfy.model_management

    key, cpu = f"{LINEAR}.weight", torch.device("cpu")
    layer = lora_twin.model.get_submodule(LINEAR)
    with refused(pack("qsched_core").QuantizationError, "packed"):
        comfy.model_management.cast_to_device(layer.weight, cpu, torch.float32)
    float_model = demo[0].clone()
    merged = lora_twin.get_key_patches("diffusion_model.")
    float_model.add_patches({key: merged[key]}, 1.0, 0.0)
    before = demo[0].model.get_submodule(LINEAR).weight.clone()
    comfy.model_management.load_models_gpu([float_model])
    weight = float_model.model.get_submodule(LINEAR).weight.float()
    expected = lora_twin.float_value(key).float()
    float_model.detach()
    assert ((weight - expected).norm() / expected.norm()).item() < 1e-2, "the type that the model lies in"
    assert same_bits(demo[0].model.get_submodule(LINEAR).weight, before)


def test_what_moves_and_counts_a_packed_weight_still_does(pack, lora_twin, tmp_path):
    kind = pack("nodes.quantization.packed_bytes").PackedBytes
    layer = lora_twin.model.get_submodule(LINEAR)
    bytes_before = layer.weight.detach().clone()
    assert type(bytes_before) is torch.Tensor
    twin = copy.deepcopy(layer)
    assert type(twin.weight) is kind
    assert type(twin.to("meta").weight) is kind
    files = pack("nodes.quantization.files")
    files.save_model(lora_twin, tmp_path / "model.safetensors")
    again = files.load_model(tmp_path / "model.safetensors").model.get_submodule(LINEAR)
    assert type(again.weight) is kind
    assert same_bits(again.weight.detach(), bytes_before)
    again.set_weight(layer.dequantized())
    assert type(again.weight) is kind
