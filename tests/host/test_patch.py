"""Coefficients on a MODEL: the stock samplers must do what the core's samplers do, and no more."""

from __future__ import annotations

import pytest
import torch

STEPS = 4
COEFFICIENTS = ((0.93, 0.97, 1.02, 1.05), (0.88, 0.95, 1.04, 1.08))


@pytest.fixture(scope="module", params=["EPS", "V_PREDICTION", "FLOW"])
def model(request, pack):
    """A tiny SD1.5-shaped MODEL with random weights in each parameterisation."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "context_dim": 32,
        "num_heads": 2,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "legacy": False,
        "dtype": torch.float32,
    }
    kind = comfy.supported_models.SD15(config)
    kind.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    base = comfy.model_base.BaseModel(kind, getattr(comfy.model_base.ModelType, request.param))
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.02)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def inputs(batch: int = 2) -> dict:
    generator = torch.Generator().manual_seed(3)
    return {
        "noise": torch.randn(batch, 4, 8, 8, generator=generator),
        "positive": [[torch.randn(1, 7, 32, generator=generator), {}]],
        "negative": [[torch.randn(1, 7, 32, generator=generator), {}]],
        "latent_image": torch.zeros(batch, 4, 8, 8),
    }


def run(model, sampler, sigmas, cfg: float = 1.0, **more):
    import comfy.sample

    data = {**inputs(), **more}
    noise, latent = data.pop("noise"), data.pop("latent_image")
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, data["positive"], data["negative"], latent,
        noise_mask=data.get("noise_mask"), disable_pbar=True, seed=5,
    )  # fmt: skip


def schedule(model, name: str = "simple", steps: int = STEPS) -> torch.Tensor:
    import comfy.samplers

    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), name, steps)


def core_sampler(pack, name: str, coefficients, model):
    """The core's sampler as a SAMPLER of the host: the reference the patch is held against."""
    import comfy.k_diffusion.sampling as kd
    import comfy.samplers

    core = pack("qsched_core.samplers")
    sampling = model.get_model_object("model_sampling")
    flow = type(sampling).__name__ != "ModelSamplingDiscrete" and hasattr(sampling, "shift")
    chosen = "euler_ancestral_flow" if name == "euler_ancestral" and flow else name

    def function(model_k, x, sigmas, extra_args=None, callback=None, disable=None):
        seed = extra_args.get("seed")
        return core.sample(
            chosen,
            lambda x, sigma: model_k(x, sigma, **extra_args),
            x,
            sigmas,
            coefficients,
            noise_sampler=kd.default_noise_sampler(x, seed=seed),
            zero_denoised=lambda x, sigma: sampling.calculate_denoised(sigma, torch.zeros_like(x), x),
        )

    return comfy.samplers.KSAMPLER(function)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("name", ["euler", "euler_ancestral"])
def test_patched_stock_sampler_equals_the_core(pack, model, name, cfg):
    import comfy.samplers

    patch, coefficients = pack("nodes.patch"), pack("qsched_core").Coefficients(*COEFFICIENTS)
    sigmas = schedule(model)
    stock = comfy.samplers.sampler_object(name)
    ours = run(patch.apply_coefficients(model, coefficients, sigmas.tolist()), stock, sigmas, cfg)
    reference = run(model, core_sampler(pack, name, coefficients, model), sigmas, cfg)
    plain = run(model, stock, sigmas, cfg)
    # float32, four steps: the two differ only in the order of a few roundings.
    assert torch.linalg.norm(ours - reference) <= 2e-6 * torch.linalg.norm(reference)
    assert torch.linalg.norm(ours - plain) > 1e-2 * torch.linalg.norm(plain), "the coefficients did nothing"


@pytest.mark.parametrize("name", ["euler", "euler_ancestral"])
def test_identity_is_the_stock_sampler_bit_for_bit(pack, model, name):
    import comfy.samplers

    patch, core = pack("nodes.patch"), pack("qsched_core")
    sigmas = schedule(model)
    stock = run(model, comfy.samplers.sampler_object(name), sigmas)
    patched = patch.apply_coefficients(model, core.Coefficients.identity(STEPS), sigmas.tolist())
    assert torch.equal(run(patched, comfy.samplers.sampler_object(name), sigmas), stock)
    through_core = run(model, core_sampler(pack, name, core.Coefficients.identity(STEPS), model), sigmas)
    assert torch.equal(through_core, stock)


def test_the_kept_region_of_an_inpainting_stays_exact(pack, model):
    import comfy.samplers

    patch, core = pack("nodes.patch"), pack("qsched_core")
    sigmas = schedule(model)
    latent = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    sampler = comfy.samplers.sampler_object("euler")
    data = {"latent_image": latent, "noise_mask": mask}
    stock = run(model, sampler, sigmas, **data)
    ours = run(
        patch.apply_coefficients(model, core.Coefficients(*COEFFICIENTS), sigmas.tolist()), sampler, sigmas, **data
    )
    kept = (slice(None), slice(None), slice(None), slice(4, None))
    # The stock sampler itself leaves float32 rounding of x + (D - x); ours may not be worse than a few of those.
    assert (ours[kept] - latent[kept]).abs().max() <= max(1e-5, 2 * (stock[kept] - latent[kept]).abs().max())
    assert not torch.allclose(ours[..., :4], stock[..., :4], atol=1e-3)


def test_a_part_of_the_schedule_uses_its_own_coefficients(pack, model):
    """denoise < 1 or end steps hide the global step; values are found by sigma."""
    import comfy.samplers

    patch, core = pack("nodes.patch"), pack("qsched_core")
    sigmas = schedule(model)
    coefficients = core.Coefficients(*COEFFICIENTS)
    whole = patch.apply_coefficients(model, coefficients, sigmas.tolist())
    tail = core.Coefficients(coefficients.c_x[2:], coefficients.c_eps[2:])
    sampler = comfy.samplers.sampler_object("euler")
    by_sigma = run(whole, sampler, sigmas[2:])
    direct = run(patch.apply_coefficients(model, tail, sigmas[2:].tolist()), sampler, sigmas[2:])
    assert torch.equal(by_sigma, direct)


def test_a_second_patch_replaces_the_first_and_sampler_objects_stay_clean(pack, model):
    import comfy.samplers

    patch, core = pack("nodes.patch"), pack("qsched_core")
    sigmas = schedule(model)
    sampler = comfy.samplers.sampler_object("euler")
    function = sampler.sampler_function
    stock = run(model, sampler, sigmas)
    once = patch.apply_coefficients(model, core.Coefficients(*COEFFICIENTS), sigmas.tolist())
    changed = run(once, sampler, sigmas)
    again = patch.apply_coefficients(once, core.Coefficients(*COEFFICIENTS), sigmas.tolist())
    assert torch.equal(run(again, sampler, sigmas), changed)
    back = patch.apply_coefficients(once, core.Coefficients.identity(STEPS), sigmas.tolist())
    assert torch.equal(run(back, sampler, sigmas), stock)
    assert sampler.sampler_function is function
    assert torch.equal(run(model, sampler, sigmas), stock)


def test_a_prediction_that_is_not_finite_names_its_step(pack, model):
    import comfy.samplers

    patch, core = pack("nodes.patch"), pack("qsched_core")
    sigmas = schedule(model)
    broken = patch.apply_coefficients(model, core.Coefficients(*COEFFICIENTS), sigmas.tolist())
    third = float(sigmas[2])

    def poison(arguments):
        hit = abs(float(arguments["sigma"][0]) - third) < 1e-6 * third
        return arguments["denoised"] * (float("nan") if hit else 1.0)

    broken.set_model_sampler_post_cfg_function(poison)
    with pytest.raises(core.SamplingError, match=r"step 3 \(sigma .* c_x 1\.02, c_eps 1\.04\) is not finite") as caught:
        run(broken, comfy.samplers.sampler_object("euler"), sigmas)
    assert caught.value.fields["step"] == 2
