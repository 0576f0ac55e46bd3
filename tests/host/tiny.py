"""A tiny MODEL with random weights, its inputs, and the core's samplers as SAMPLERS of the host."""

from __future__ import annotations

import torch

STEPS = 4
KINDS = ("EPS", "V_PREDICTION", "FLOW")

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    # Attention in the first block, the middle and the last one: in each of the seven it took twice the time.
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 32,
    "num_heads": 2,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "legacy": False,
    "dtype": torch.float32,
}

ONE_BLOCK = {
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [0, 0],
    "transformer_depth_middle": -1,
}
"""Of ``UNET``: one block of attention, for tests that ask what is done around the network, and not within."""


def model(kind: str, **shape):
    """An SD1.5-shaped MODEL in one of the host's parameterisations, ``KINDS``; the same weights every time. ``shape``
    replaces entries of ``UNET``."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15({**UNET, **shape})
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    base = comfy.model_base.BaseModel(config, getattr(comfy.model_base.ModelType, kind))
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


def run(model, sampler, sigmas: torch.Tensor, cfg: float = 1.0, **more) -> torch.Tensor:
    """The latent that the host samples; ``more`` replaces entries of ``inputs()`` or adds a ``noise_mask``."""
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


def core_sampler(pack, name: str, coefficients, model, **options):
    """The core's sampler as a SAMPLER of the host: the reference the patch is held against.

    What a caller has to bring is brought: er_sde's first sigma, tcd's table, D0 and the noise of the run's seed.
    """
    import comfy.k_diffusion.sampling
    import comfy.model_sampling
    import comfy.samplers

    core = pack("qsched_core.samplers")
    sampling = model.get_model_object("model_sampling")
    flow = isinstance(sampling, comfy.model_sampling.CONST)
    if name == "er_sde":
        options.setdefault("first_sigma", sampling.percent_to_sigma(1e-4))
    if name == "tcd" and not flow:
        options.setdefault("table", sampling.sigmas)

    def function(model_k, x, sigmas, extra_args=None, callback=None, disable=None):
        return core.sample(
            name,
            lambda x, sigma: model_k(x, sigma, **extra_args),
            x,
            sigmas,
            coefficients,
            flow=flow,
            noise_sampler=comfy.k_diffusion.sampling.default_noise_sampler(x, seed=extra_args.get("seed")),
            zero_denoised=lambda x, sigma: sampling.calculate_denoised(sigma, torch.zeros_like(x), x),
            callback=callback,
            **options,
        )

    return comfy.samplers.KSAMPLER(function)
