"""Quantize VAE: real VAEs of the host with random weights, tiled and saved, and the given one untouched."""

from __future__ import annotations

import math

import pytest
import torch
from exactness import same_bits
from torch import nn

from scripts.random_models import MODELS, tensors

pytestmark = pytest.mark.usefixtures("one_thread")

KL = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def tiny():
    import comfy.sd

    return comfy.sd.VAE(sd={name: value.float() for name, value in tensors(MODELS["taesd16"]).items()})


def classic():
    """The VAE of SD1.5 and of FLUX.1, its decoder a quarter as wide; all the rest of it is what the host demands."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    network = AutoencoderKL(ddconfig=KL, embed_dim=4, decoder_ddconfig={**KL, "ch": 32})
    generator = torch.Generator().manual_seed(0)
    values = {}
    for name, value in network.state_dict().items():
        scale = max(1, value[0].numel()) ** -0.5 if value.ndim > 1 else 0.0
        values[name] = torch.randn(value.shape, generator=generator) * scale
        if value.ndim == 1 and name.endswith("weight"):
            values[name] = torch.ones_like(value)
    return comfy.sd.VAE(sd=values)


def video():
    import comfy.sd

    return comfy.sd.VAE(sd=tensors(MODELS["wan-vae"]))


def picture(side: int = 64) -> torch.Tensor:
    ramp = torch.linspace(0, 1, side)
    return torch.stack(
        [ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.flip(0).expand(side, side)], -1
    )[None]


def quantized(pack, vae, name: str = "w8a16", **more):
    return pack("nodes.quantization.vae").quantized_vae(vae, name, **more)


def layers_of(pack, vae) -> list[str]:
    kind = pack("nodes.quantization.layers").HostLayer
    return [name for name, layer in vae.first_stage_model.named_modules() if isinstance(layer, kind)]


def values_of(vae) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in vae.first_stage_model.state_dict().items()}


@pytest.mark.parametrize(("make", "least"), [(tiny, 40), (classic, 30)], ids=["tiny", "classic"])
def test_a_vae_is_packed_and_the_given_one_stays(pack, make, least):
    """Deep random networks make an error larger, trained ones do not: so the second has a lower bar."""
    vae, image = make(), picture()
    before, full = values_of(vae), vae.decode(vae.encode(image))
    twin, report = quantized(pack, vae, image=image)
    psnr = pack("nodes.quantization.vae").psnr
    result = twin.decode(twin.encode(image))
    assert least < psnr(result, full) < math.inf
    assert f"Your picture: PSNR {psnr(result, full):.1f} dB to the full VAE's" in report
    assert ("That can be seen" in report) == (psnr(result, full) < 40)
    packed = layers_of(pack, twin)
    assert len(packed) > 20
    assert not {"decoder.conv_in", "decoder.conv_out", "encoder.conv_in", "quant_conv"} & set(packed)
    assert make is tiny or any(name.startswith("decoder.mid.") for name in packed)
    assert twin.patcher.model_size() < vae.patcher.model_size()
    assert not twin.patcher.is_clone(vae.patcher)
    assert all(same_bits(value, before[name]) for name, value in values_of(vae).items())
    assert same_bits(vae.decode(vae.encode(image)), full)


def test_four_bits_are_said_to_be_seen(pack):
    _, report = quantized(pack, tiny(), "w4a16", image=picture())
    assert "That can be seen: use w8a16" in report


def test_the_report_says_which_of_the_two_is_how_near_to_the_picture(pack, monkeypatch):
    vae = tiny()
    module = pack("nodes.quantization.vae")
    monkeypatch.setattr(module, "round_trip", lambda one, image: image + (0.01 if one is vae else -0.1))
    _, report = quantized(pack, vae, exclude=["encoder.*"], image=picture())
    assert "19.2 dB to the full VAE's; to the picture itself 20.0 dB, the full VAE 40.0 dB." in report


def test_tiled_decoding_and_encoding_work_and_agree(pack):
    vae, image = tiny(), picture(64)
    twin, _ = quantized(pack, vae)
    psnr = pack("nodes.quantization.vae").psnr
    tiles = {"tile_x": 32, "tile_y": 32, "overlap": 8}
    latent = twin.encode_tiled(image, **tiles)
    assert latent.shape == twin.encode(image).shape
    small = {name: size // 8 for name, size in tiles.items()}
    assert psnr(twin.decode_tiled(latent, **small), vae.decode_tiled(latent, **small)) > 40


def test_save_vae_gets_floats_that_stock_comfyui_loads(pack):
    import comfy.sd

    vae = tiny()
    twin, _ = quantized(pack, vae)
    whole, saved = vae.get_sd(), twin.get_sd()
    assert {name: value.shape for name, value in saved.items()} == {name: value.shape for name, value in whole.items()}
    assert all(value.is_floating_point() for value in saved.values())
    latent = vae.encode(picture())
    again = comfy.sd.VAE(sd=dict(saved))
    assert pack("nodes.quantization.vae").psnr(again.decode(latent), twin.decode(latent)) > 60
    assert layers_of(pack, again) == []


def test_two_twins_of_one_vae_live_side_by_side(pack):
    vae, latent = tiny(), tiny().encode(picture())
    eight, four = (quantized(pack, vae, name)[0] for name in ("w8a16", "w4a16"))
    first = eight.decode(latent)
    assert not same_bits(four.decode(latent), first)
    assert same_bits(eight.decode(latent), first)


def film(frames: int = 9, side: int = 64) -> torch.Tensor:
    """(frames, H, W, C): a picture that moves to the side."""
    return torch.cat([picture(side).roll(3 * frame, 2) for frame in range(frames)])


def test_a_video_vae_is_packed_its_convolutions_over_time_too(pack):
    """Formerly they were named and left: of the VAE of Wan and of Qwen-Image a hundredth was packed."""
    from comfy.ldm.wan.vae import CausalConv3d

    vae, pictures = video(), film()
    before, full = values_of(vae), vae.decode(vae.encode(pictures))
    twin, report = quantized(pack, vae, image=pictures)
    packed = layers_of(pack, twin)
    network = twin.first_stage_model
    over_time = {name for name, layer in network.named_modules() if isinstance(layer, CausalConv3d)}
    assert len(over_time & set(packed)) > 20
    assert {"encoder.conv1", "encoder.head.2", "decoder.conv1", "decoder.head.2", "conv1", "conv2"}.isdisjoint(packed)
    assert "CausalConv3d" not in report
    assert twin.patcher.model_size() < 0.4 * vae.patcher.model_size()
    psnr = pack("nodes.quantization.vae").psnr
    # Nine frames at once: the network asks each layer for its class, to hand it the frames before.
    assert full.shape == (1, 9, 64, 64, 3)
    result = twin.decode(twin.encode(pictures))
    assert 30 < psnr(result, full) < math.inf  # as of the other deep random one
    assert all(same_bits(value, before[name]) for name, value in values_of(vae).items())
    assert same_bits(vae.decode(vae.encode(pictures)), full)


def test_a_packed_video_vae_is_the_float_one_with_rounded_weights(pack):
    """One frame, where the host leaves out what is multiplied with zeros; many; tiles in space and in time."""
    import comfy.sd

    vae = video()
    twin, _ = quantized(pack, vae, "w4a16")
    rounded = comfy.sd.VAE(sd=dict(twin.get_sd()))
    assert layers_of(pack, rounded) == []
    psnr = pack("nodes.quantization.vae").psnr
    for pictures in (film(1, 32), film(5, 32)):
        latent = vae.encode(pictures)
        assert psnr(twin.encode(pictures), rounded.encode(pictures)) > 80
        assert psnr(twin.decode(latent), rounded.decode(latent)) > 80
        assert psnr(twin.decode(latent), vae.decode(latent)) < 60, "nothing was rounded"
    latent, tiles = vae.encode(film(9, 48)), {"tile_x": 4, "tile_y": 4, "overlap": 2, "tile_t": 2, "overlap_t": 1}
    assert psnr(twin.decode_tiled(latent, **tiles), rounded.decode_tiled(latent, **tiles)) > 80


def causal_of_seedvr(pack):
    """(a layer of SeedVR2's VAE, its packed twin, the layer with the twin's rounded weight)."""
    from comfy.ldm.seedvr.vae import InflatedCausalConv3d

    def made():
        return InflatedCausalConv3d(32, 32, kernel_size=3, padding=1, inflation_mode="tail").requires_grad_(False)

    layer, generator = made(), torch.Generator().manual_seed(0)
    for value in layer.parameters():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
    form = pack("qsched_core.quant").resolve_format("w8a16")
    twin = pack("nodes.quantization.layers").HostConv3d.like(layer, layer.weight, layer.bias, form)
    rounded = made()
    rounded.weight.copy_(twin.dequantized())
    rounded.bias.copy_(layer.bias)
    return layer, twin, rounded


@pytest.mark.parametrize("limit", [math.inf, 3e-5], ids=["whole", "in parts where memory is short"])
def test_a_layer_of_seedvr2_keeps_its_memory_of_frames_and_its_limit(pack, limit):
    from comfy.ldm.seedvr.vae import MemoryState

    _, twin, rounded = causal_of_seedvr(pack)
    x = torch.randn(1, 32, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    outputs = []
    for one in (twin, rounded):
        one.set_memory_limit(limit)
        memory: dict = {}
        outputs.append([
            one(x.clone(), memory_state=state, memory_cache=memory)
            for state in (MemoryState.INITIALIZING, MemoryState.ACTIVE, MemoryState.DISABLED)
        ])  # fmt: skip
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_lora_of_a_convolution_over_time_acts_at_its_output(pack):
    """With one frame, and where the layer's class calls torch's forward past ours."""
    import comfy.weight_adapter
    from comfy.ldm.seedvr.vae import MemoryState

    _, twin, rounded = causal_of_seedvr(pack)
    generator = torch.Generator().manual_seed(2)
    up, down = torch.randn(32, 4, 1, 1, 1, generator=generator), torch.randn(4, 32, 3, 3, 3, generator=generator)
    value = comfy.weight_adapter.LoRAAdapter(set(), (up / 20, down / 20, None, None, None, None))
    twin.loaded_patches = twin.layer_patches("weight", [(1.0, value, 1.0, None, None)])
    rounded.weight.add_((up.flatten(1) @ down.flatten(1)).view(32, 32, 3, 3, 3) / 400)
    x = torch.randn(1, 32, 1, 16, 16, generator=generator)
    for limit in (math.inf, 5e-5):
        ours, theirs = (
            one.set_memory_limit(limit) or one(x.clone(), memory_state=MemoryState.DISABLED) for one in (twin, rounded)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_an_interrupt_is_heard_between_the_layers_of_a_long_decode(pack):
    import comfy.model_management

    twin, _ = quantized(pack, video())
    layer = twin.first_stage_model.get_submodule(next(n for n in layers_of(pack, twin) if n.endswith("residual.6")))
    x = torch.zeros(1, layer.in_channels, 1, 8, 8)
    comfy.model_management.interrupt_current_processing()
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            layer(x)
    finally:
        comfy.model_management.interrupt_current_processing(False)


def test_what_cannot_be_quantized_is_refused(pack, refused):
    error = pack("qsched_core").QuantizationError
    twin, _ = quantized(pack, tiny())
    with refused(error, "quantised already"):
        quantized(pack, twin)
    node = pack("nodes.quantize_vae").QSchedQuantizeVAE
    with refused(error, "no VAE", "Load VAE"):
        node.execute(None, "w8a16", "")
    import comfy.sd

    unknown = comfy.sd.VAE(sd={"of.no.family.weight": torch.zeros(8, 8)})  # the host warns and goes on
    with refused(error, "no VAE", "Load VAE"):
        node.execute(unknown, "w8a16", "")
    with refused(error, "nothing to quantise", "exclude fewer layers"):
        quantized(pack, tiny(), exclude=["*"])
    sound = tiny()
    sound.first_stage_model = nn.Sequential(nn.Conv1d(16, 16, 3))
    with refused(error, "no layer to quantise", "sound"):
        quantized(pack, sound)


def test_a_picture_too_small_to_compare_on_is_refused(pack, refused):
    """Regression: 4 x 4 pixels ended in torch's own error, out of the middle of the VAE."""
    error = pack("qsched_core").QuantizationError
    with refused(error, "the picture has 4 x 64 pixels", "plug in one of 64 x 64 or more"):
        quantized(pack, tiny(), image=picture()[:, :4])


def test_a_cancel_leaves_the_vae_as_it_was(pack):
    vae = tiny()
    before = values_of(vae)

    class Cancelled(Exception):
        pass

    def on_layer(done: int, total: int) -> None:
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        quantized(pack, vae, on_layer=on_layer)
    assert all(same_bits(value, before[name]) for name, value in values_of(vae).items())
