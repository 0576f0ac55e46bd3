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
    found = twin.decode(twin.encode(image))
    assert least < psnr(found, full) < math.inf
    assert f"Your picture: PSNR {psnr(found, full):.1f} dB to the full VAE's" in report
    assert ("That can be seen" in report) == (psnr(found, full) < 40)
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


def test_tiled_decoding_and_encoding_work_and_agree(pack):
    vae, image = tiny(), picture(128)
    twin, _ = quantized(pack, vae)
    psnr = pack("nodes.quantization.vae").psnr
    tiles = {"tile_x": 64, "tile_y": 64, "overlap": 16}
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


def test_a_video_vae_says_what_is_not_packed(pack):
    vae = video()
    twin, report = quantized(pack, vae, image=picture())
    assert set(layers_of(pack, twin)) <= {
        name for name, layer in vae.first_stage_model.named_modules() if isinstance(layer, nn.Conv2d)
    }
    assert "CausalConv3d with 5-D weights" in report


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
