"""What the sampler node checks before it samples, inside the host."""

from __future__ import annotations

import copy

import pytest
import torch
from exactness import differ, same_bits


def test_a_latent_with_content_of_another_model_is_refused(pack, demo):
    sampling, core = pack("nodes.sampling.ksampler"), pack("qsched_core")
    with pytest.raises(core.SamplingError, match="has 4 channels, the model takes 16"):
        sampling.check_latent(demo[0], {"samples": torch.ones(1, 4, 8, 8)})
    assert sampling.check_latent(demo[0], {"samples": torch.zeros(1, 4, 8, 8)}).shape == (1, 16, 8, 8)


def fits_with_two(model, latent_image):
    return latent_image.repeat(1, 4, 1, 1)


def fits_with_three(model, latent_image, downscale_ratio_spacial=None):
    return fits_with_two(model, latent_image)[..., : 8 // downscale_ratio_spacial]


def fits_with_four(model, latent_image, downscale_ratio_spacial=None, downscale_ratio_temporal=None):
    return fits_with_three(model, latent_image, downscale_ratio_spacial + downscale_ratio_temporal)


@pytest.mark.parametrize(("fit", "width"), [(fits_with_two, 8), (fits_with_three, 4), (fits_with_four, 2)])
def test_an_empty_latent_is_fitted_by_hosts_that_take_fewer_of_its_scales(pack, demo, monkeypatch, fit, width):
    """Regression: ComfyUI 0.18 takes one scale less, and its sampler failed in ours."""
    monkeypatch.setattr("comfy.sample.fix_empty_latent_channels", fit)
    latent = {"samples": torch.zeros(1, 4, 8, 8), "downscale_ratio_spacial": 2, "downscale_ratio_temporal": 2}
    assert pack("nodes.sampling.ksampler").check_latent(demo[0], latent).shape == (1, 16, 8, width)


@pytest.mark.parametrize("name", ["euler", "tcd"])
def test_an_empty_latent_of_another_scale_is_fitted_as_the_host_does(pack, demo, name):
    """EmptyLatentImage says 8 pixels a cell; FLUX.2 has 16. Regression: TCD and calibrations took twice the size."""
    model, clip, _ = demo
    model = model.clone()
    model.add_object_patch("latent_format", copy.copy(model.get_model_object("latent_format")))
    model.object_patches["latent_format"].spacial_downscale_ratio = 16
    latent = {"samples": torch.zeros(1, 4, 16, 16), "downscale_ratio_spacial": 8}
    sampling, texts = (
        pack("nodes.sampling.ksampler"),
        pack("nodes.host.conditioning").encode(clip, "a large apple"),
    )
    assert sampling.check_latent(model, latent).shape == (1, 16, 8, 8)
    done = sampling.sample_latent(model, sampling.Recipe(1, 1.0, name, "simple"), 1, texts, texts, latent)
    assert done["samples"].shape == (1, 16, 8, 8)
    assert set(done) == {"samples"}, "the scale was used up: a sampled latent is not empty"


def test_an_unknown_sampler_is_named(pack):
    sampling, core = pack("nodes.sampling.ksampler"), pack("qsched_core")
    with pytest.raises(core.SamplingError, match="'uni_pc' cannot be driven"):
        sampling.Recipe(4, 1.0, "uni_pc", "simple")
    with pytest.raises(core.SamplingError, match="'magic' is not known"):
        sampling.Recipe(4, 1.0, "magic", "simple")
    with pytest.raises(core.SamplingError, match="no sampler 'magic'"):
        pack("nodes.sampling.sampler_menu").sampler_object("magic")


def test_the_demo_autoencoder_is_the_one_that_was_trained(demo):
    """Pictures survive the stock VAE's way there and back; the encoder is linear, so this checks scale and shift."""
    from demo.scenes import draw, sample_scenes

    generator = torch.Generator().manual_seed(1)
    pictures = draw(sample_scenes(4, generator), generator).movedim(1, -1)
    vae = demo[2]
    error = vae.decode(vae.encode(pictures)) - pictures
    psnr = -10 * error.square().mean().log10().item()
    assert psnr > 30  # the training log ends above 32 dB; a wrong scale or shift is below 20


def test_the_stock_text_encoder_sees_the_words_that_were_trained(demo):
    """Sixteen tokens, pooled at the end token; an unknown word differs from a known one, and equals another unknown."""
    clip = demo[1]

    def encode(text: str):
        ((states, extra),) = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        return states, extra["pooled_output"]

    states, pooled = encode("a large apple on a white background")
    assert states.shape == (1, 16, 128)
    assert pooled.shape == (1, 128)
    assert differ(pooled, encode("a large boat on a white background")[1])
    assert same_bits(encode("zebra")[0], encode("unicorn")[0])
