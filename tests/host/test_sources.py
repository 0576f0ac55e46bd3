"""MODELs that others quantised, in each of the host's formats, as what Quantize Model W4A8 starts from."""

from __future__ import annotations

import gc
import weakref

import pytest
import random_checkpoints
import torch
from exactness import same_bits
from native_files import packed, settings_of
from torch import nn
from twin_layers import relative

from scripts.random_models import MODELS, tensors

pytestmark = pytest.mark.usefixtures("one_thread")

ALGOS = (
    "float8_e4m3fn",
    "float8_e5m2",
    "mxfp8",
    "nvfp4",
    "int8_tensorwise",
    "convrot",
    "convrot_w4a4",
    "asym_w4a8_int8",
)
"""The host's names; ``convrot`` is ``int8_tensorwise`` with a rotation, as the newest models come."""

BITS = {"nvfp4": 4, "convrot_w4a4": 4, "asym_w4a8_int8": 4}
LAYER = "double_blocks.0.img_attn.qkv"


def checkpoint(algo: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(a file of a small FLUX.1-schnell with its blocks in one format, the same in floats)."""
    floats = {name: value.float() for name, value in tensors(MODELS["flux1-schnell"]).items()}
    values = {}
    for name, value in floats.items():
        blocks = "_blocks." in name and name.endswith(".weight")
        values |= packed(name.removesuffix(".weight"), value, algo) if blocks and value.ndim == 2 else {name: value}
    return values, floats


def loaded(values: dict[str, torch.Tensor]):
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(dict(values))


def need(algo: str) -> None:
    import comfy.quant_ops

    if settings_of(algo)[0] not in comfy.quant_ops.QUANT_ALGOS:
        pytest.skip(f"this ComfyUI has no {algo}")


@pytest.fixture(params=ALGOS)
def algo(request, pack) -> str:
    need(request.param)
    return request.param


def conditioning():
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(1, 8, 4096, generator=generator), {"pooled_output": torch.randn(1, 768, generator=generator)}]]


def picture(model) -> torch.Tensor:
    return random_checkpoints.picture(model, conditioning(), 16)


def twin_of(pack, model, name: str = "w4a8", **more):
    job = pack("nodes.quantization.backends").job_for(model, name, **{"backend": "torch", **more})
    return pack("nodes.quantization.twin_model").quantized_twin(model, job)


def float_weight(model, name: str = LAYER) -> torch.Tensor:
    return model.model.diffusion_model.get_submodule(name).float_weight(torch.device("cpu"))


def codes_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.diffusion_model.state_dict().items()}


def same_values(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    def as_bytes(value: torch.Tensor) -> torch.Tensor:
        return value.flatten().view(torch.uint8)

    return a.keys() == b.keys() and all(same_bits(as_bytes(a[name]), as_bytes(b[name])) for name in a)


def test_every_format_is_packed_or_passed_through_and_the_source_stays(pack, algo):
    """Formerly "this model is quantised already": of the few-step models of today most come in these formats alone."""
    values, floats = checkpoint(algo)
    source = loaded(values)
    before, full_picture = codes_of(source), picture(source)
    twin, report = twin_of(pack, source)
    assert same_values(before, codes_of(source))
    assert same_bits(picture(source), full_picture)
    if algo in BITS:
        assert not report.quantized
        assert {layer.reason for layer in report.layers if "_blocks." in layer.name} == {"it has already 4 bits"}
        assert "Nothing to gain: the model goes through as it is." in report.text()
        assert twin is not source and same_bits(picture(twin), full_picture)
        return
    assert len(report.quantized) == sum("_blocks." in name and v.ndim == 2 for name, v in floats.items())
    # 4.4 bits of 8, and the scale that a row or a block had.
    assert sum(layer.bytes_after for layer in report.quantized) < 0.56 * sum(x.bytes_before for x in report.quantized)
    assert twin.model_size() < source.model_size()
    # Eight bits before and four now: as far from its source as four bits are from floats.
    of_floats = float_weight(twin_of(pack, loaded(floats))[0])
    weight = floats[f"{LAYER}.weight"]
    dequantized = source.model.diffusion_model.get_submodule(LAYER).weight.dequantize()
    alone = relative(of_floats, weight)
    assert relative(float_weight(twin), dequantized) <= 1.02 * alone
    if settings_of(algo)[0] == "int8_tensorwise":
        assert relative(float_weight(twin), weight) <= 1.02 * alone
    else:  # what 8-bit floats lost is lost: the two errors add up as squares
        loss = relative(dequantized, weight)
        assert relative(float_weight(twin), weight) <= 1.02 * (alone**2 + loss**2) ** 0.5
    assert 0 < relative(picture(twin), full_picture) < 0.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [16, 64, 256])
@pytest.mark.parametrize("name", ["w6a8", "w4a8", "w4a4", "w3a8"])
def test_turning_a_rotated_source_back_loses_nothing(pack, name, size, dtype):
    """A rotation is orthogonal: what is packed of the weight that was turned back is as near as what would be packed of
    it as it lies, whether ours is the same rotation (64 columns) or another."""
    need("convrot")
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(96, 512, generator=generator) * torch.rand(512, generator=generator).mul(3).exp()
    weight = (0.01 * weight).to(dtype)
    source = QuantizedTensor.from_float(
        weight, QUANT_ALGOS["int8_tensorwise"]["comfy_tensor_layout"], per_channel=True, convrot=True,
        convrot_groupsize=size,
    )  # fmt: skip
    back = pack("nodes.quantization.sources").float_value(nn.Linear(1, 1), "weight", source)
    assert back.shape == weight.shape
    form = pack("qsched_core.quant").resolve_format(name)

    def packed_weight(floats: torch.Tensor) -> torch.Tensor:
        return pack("nodes.quantization.layers").HostLinear.from_float(floats, None, form).dequantized()

    alone, loss = relative(packed_weight(weight), weight), relative(back, weight)
    repacked = packed_weight(back)
    assert relative(repacked, back) <= 1.02 * alone
    assert relative(repacked, weight) <= 1.02 * (alone**2 + loss**2) ** 0.5
    if form.weight_bits <= 4:
        assert relative(repacked, weight) <= 1.02 * alone
    if size == 64:
        lying = source._qdata.float() * source._params.scale.float().view(-1, 1)
        rotated = pack("qsched_core.quant.rotation").rotate_weight(back.float(), size) / size**0.5
        assert relative(rotated, lying) < (1e-6 if dtype == torch.float32 else 2**-8)
        packing = pack("qsched_core.quant.packing")
        never_turned = packing.unpack(packing.pack(lying * size**0.5, form), 512, form) / size**0.5
        assert relative(repacked, back) == pytest.approx(relative(never_turned, lying), rel=2e-3)


def test_floats_of_one_layer_at_a_time_are_held(pack, monkeypatch):
    """Memory as for a float model: what was read back of one layer is gone when the next is read."""
    need("int8_tensorwise")
    twins, alive, most = pack("nodes.quantization.twin_model"), [], 0
    plain = twins.float_value

    def watched(layer, leaf, value):
        nonlocal most
        floats = plain(layer, leaf, value)
        if leaf == "weight" and floats.ndim == 2:
            gc.collect()
            alive[:] = [reference for reference in alive if reference() is not None]
            alive.append(weakref.ref(floats))
            most = max(most, len(alive))
        return floats

    source = loaded(checkpoint("int8_tensorwise")[0])
    monkeypatch.setattr(twins, "float_value", watched)
    gc.freeze()  # what is there before holds nothing of what is read: to search it again for each layer takes seconds
    try:
        twin_of(pack, source)
    finally:
        gc.unfreeze()
    assert most == 1


def test_layers_with_fewer_bits_stay_among_those_that_are_packed(pack, tmp_path):
    """A file of two formats: what is 4 bits already stays the host's layer, with its LoRA, in memory and in a file."""
    need("int8_tensorwise")
    need("nvfp4")
    values, _ = checkpoint("int8_tensorwise")
    four, _ = checkpoint("nvfp4")
    values = {k: v for k, v in values.items() if not k.startswith("single")}
    values |= {k: v for k, v in four.items() if k.startswith("single")}
    source = loaded(values)
    full_picture = picture(source)
    twin, report = twin_of(pack, source)
    names = {layer.name for layer in report.layers if layer.reason == "it has already 4 bits"}
    assert names == {"single_blocks.0.linear1", "single_blocks.0.linear2", "single_blocks.0.modulation.lin"}
    assert pack("nodes.host.model_info").quantization(twin) == "nvfp4+w4a8/g32"
    twin_picture = picture(twin)
    assert 0 < relative(twin_picture, full_picture) < 0.6
    lora_picture = picture(with_lora(twin, "single_blocks.0.linear1"))
    assert relative(lora_picture, twin_picture) > 0.05, "the LoRA did nothing"
    assert same_bits(picture(twin), twin_picture), "the LoRA stayed behind"
    files, path = pack("nodes.quantization.files"), tmp_path / "model.safetensors"
    files.save_model(twin, path)
    assert relative(picture(files.load_model(path)), twin_picture) < 2e-2


def with_lora(model, name: str = LAYER, scale: float = 0.5):
    import comfy.sd

    generator = torch.Generator().manual_seed(3)
    rows, columns = model.model.diffusion_model.get_submodule(name).weight.shape[0], 128
    key = "lora_unet_" + name.replace(".", "_")
    weights = {
        f"{key}.lora_up.weight": scale * torch.randn(rows, 4, generator=generator) / 4,
        f"{key}.lora_down.weight": torch.randn(4, columns, generator=generator) / 4,
        f"{key}.alpha": torch.tensor(4.0),
    }
    lora_model, _ = comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)
    assert lora_model.patches
    return lora_model


def test_a_lora_before_and_after_packing_moves_the_picture_as_on_floats(pack):
    need("convrot")
    values, floats = checkpoint("convrot")
    source = loaded(values)
    shift = relative(picture(with_lora(loaded(floats))), picture(loaded(floats)))
    twin, _ = twin_of(pack, source, "w6a8")
    plain = picture(twin)
    after, before = picture(with_lora(twin)), picture(twin_of(pack, with_lora(source), "w6a8")[0])
    assert shift > 0.05, "the LoRA did nothing"
    assert relative(after, plain) > 0.7 * shift
    assert relative(after, before) < 0.25 * shift
    assert same_bits(picture(twin), plain), "the LoRA stayed behind"


def test_the_smoothing_of_inputs_belongs_to_the_weight(pack):
    """ModelOpt's files scale a layer's inputs (pre_quant_scale); the twin's layer is given them as they are."""
    need("float8_e4m3fn")
    source = loaded(checkpoint("float8_e4m3fn")[0])
    layer = source.model.diffusion_model.get_submodule(LAYER)
    scale = 2.0 ** torch.arange(-2, 2).repeat(32).float()
    layer.register_parameter("pre_quant_scale", nn.Parameter(scale, requires_grad=False))
    twin, _ = twin_of(pack, source)
    assert relative(float_weight(twin), layer.weight.dequantize() * scale) < 0.1


def test_a_model_cast_to_float8_on_loading_is_packed(pack):
    """The loader's weight_dtype: 8-bit floats without a scale. It was refused."""
    import comfy.sd

    _, floats = checkpoint("float8_e4m3fn")
    source = comfy.sd.load_diffusion_model_state_dict(floats, model_options={"dtype": torch.float8_e4m3fn})
    full_picture = picture(source)
    twin, report = twin_of(pack, source)
    assert report.source == "float8_e4m3fn"
    assert "in float8_e4m3fn -> " in report.text()
    assert 0 < relative(picture(twin), full_picture) < 0.6
    assert twin.model.diffusion_model.get_submodule(LAYER).bias.dtype == torch.bfloat16
    assert same_bits(picture(source), full_picture)
    assert not twin_of(pack, source, "w8a8")[1].quantized


@pytest.mark.usefixtures("one_damping")
def test_layers_are_observed_and_studied_as_those_of_floats(pack):
    need("convrot")
    source = loaded(checkpoint("convrot")[0])
    layer_inputs = pack("nodes.quantization.layer_observation").observed(source, lambda: picture(source), 2**30)
    assert LAYER in layer_inputs.layers and "single_blocks.0.linear1" in layer_inputs.layers
    twin, report = twin_of(pack, source, observation=layer_inputs)
    assert any(layer.fit is not None and layer.fit.better for layer in report.quantized)
    assert 0 < relative(picture(twin), picture(source)) < 0.6
    forms = pack("nodes.quantization.study").read_formats("w4a8, w8a8")
    for observation in (None, layer_inputs):
        result = pack("nodes.quantization.study").study(
            source, lambda: picture(source), forms, "layers", lambda done, total, text: None, observation
        )
        whole = result.plan(average_bits=8.5)
        assert set(whole.forms.values()) == {None}, "as it is, a layer has 8 bits and no error"
        assert any(form is not None and form.weight_bits == 4 for form in result.plan(average_bits=5.0).forms.values())
        _, report = twin_of(pack, source, plan=result.plan(average_bits=5.0))
        assert 0 < len(report.quantized) < len([x for x in report.layers if "_blocks." in x.name])


def test_what_only_its_own_pack_can_read_is_refused_with_the_way_that_works(pack, refused):
    """Stand-ins with the features of ComfyUI-GGUF's tensors and of nunchaku's layers; the packs are not here."""
    error = pack("qsched_core").QuantizationError

    class GGMLTensor(torch.Tensor):
        tensor_type, tensor_shape = 12, torch.Size((384, 128))

    class SVDQW4A4Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.qweight = nn.Parameter(torch.zeros(384, 64, dtype=torch.int8), requires_grad=False)
            self.wscales = nn.Parameter(torch.zeros(2, 384), requires_grad=False)

    class Int8Linear(nn.Linear):
        """Of yet another pack: bytes, and scales that nobody else knows."""

    packed_by_others = Int8Linear(128, 384)
    packed_by_others.weight = nn.Parameter(torch.zeros(384, 128, dtype=torch.int8), requires_grad=False)
    gguf = nn.Linear(128, 384)
    gguf.weight = nn.Parameter(torch.zeros(384, 72, dtype=torch.uint8).as_subclass(GGMLTensor), requires_grad=False)
    for layer, text in ((gguf, "ComfyUI-GGUF"), (SVDQW4A4Linear(), "nunchaku"), (packed_by_others, "already")):
        source = loaded(checkpoint("float8_e4m3fn")[1])
        source.model.diffusion_model.double_blocks[0].img_attn.qkv = layer
        for attempt in (
            lambda source=source: twin_of(pack, source),
            lambda source=source: pack("nodes.quantization.layer_observation").observed(source, lambda: None, 2**20),
            lambda source=source: pack("nodes.quantization.study").check_budget(source, [], 5.0),
        ):
            with refused(error, text, "Q-Sched Sampler", layer=LAYER):
                attempt()


def test_a_model_that_was_quantized_here_is_refused(pack, refused):
    need("int8_tensorwise")
    twin, _ = twin_of(pack, loaded(checkpoint("int8_tensorwise")[0]))
    with refused(pack("qsched_core").QuantizationError, "quantised already", "as it was loaded"):
        twin_of(pack, twin, "w3a8")


def test_an_int8_file_becomes_a_native_four_bit_file_that_stock_loaders_read(pack, tmp_path):
    """The recipe stock over the newest models' own files; widths in 256 become 4 bits, others keep their 8."""
    need("convrot")
    need("asym_w4a8_int8")
    import comfy.sd

    source = loaded(checkpoint("convrot")[0])
    twin, report = twin_of(pack, source, backend="kitchen", recipe="stock")
    assert {layer.format for layer in report.quantized} == {"w4a8/g16"}
    assert {x.reason for x in report.layers if x.shape[1] % 256 and "_blocks." in x.name} == {"it has already 8 bits"}
    files, path = pack("nodes.quantization.files"), tmp_path / "model.safetensors"
    assert pack("nodes.quantization.file_values").is_stock(twin)
    files.save_stock(twin, path)
    assert relative(picture(comfy.sd.load_diffusion_model(str(path))), picture(twin)) < 2e-2


def test_layers_of_another_pack_are_told_by_all_that_they_have(pack):
    def pack_of(**values) -> str:
        layer = nn.Module()
        for name, value in values.items():
            layer.register_buffer(name, value)
        return pack("nodes.quantization.sources")._foreign_pack(layer)

    codes, scales = torch.zeros(2, 2, dtype=torch.int8), torch.ones(2)
    assert pack_of(qweight=codes, wscales=scales).startswith("nunchaku")
    assert pack_of(qweight=codes, wtscale=scales).startswith("nunchaku")
    assert {pack_of(qweight=codes), pack_of(wscales=scales), pack_of(wtscale=scales), pack_of()} == {""}
