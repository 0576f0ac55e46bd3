"""Q-Sched beside everything else that people plug into sampling: the same model, driven, and through the core.

Each situation changes what the model predicts. The core's own loop, as a sampler of the host, is the reference: it
has the coefficients in its update and no wrapper anywhere.
"""

from __future__ import annotations

import pytest
import torch
from exactness import differ
from pairs import pairs

pytestmark = pytest.mark.usefixtures("one_thread")

COEFFICIENTS = ((0.93, 0.97, 1.02, 1.05), (0.88, 0.95, 1.04, 1.08))


KINDS = ("EPS", "FLOW")


@pytest.fixture(params=KINDS)
def model(request, models):
    return models[request.param]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(seed: int) -> torch.Tensor:
    return torch.randn(1, 7, 32, generator=generator(seed))


def plain(model, tiny):
    return model, {}


def guided(model, tiny):
    return model, {"cfg": 4.0}


def rescaled_guidance(model, tiny):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return RescaleCFG().patch(model, 0.7)[0], {"cfg": 4.0}


def guidance_changed_afterwards(model, tiny):
    clone = model.clone()
    clone.set_model_sampler_post_cfg_function(lambda a: a["denoised"] + 0.1 * (a["denoised"] - a["uncond_denoised"]))
    return clone, {"cfg": 3.0}


def regions(model, tiny):
    whole = {"strength": 0.5}
    left = {"area": (8, 4, 0, 0), "strength": 1.0, "set_area_to_bounds": False}
    masked = {"mask": torch.eye(8)[None], "mask_strength": 0.7, "set_area_to_bounds": False}
    return model, {"positive": [[text(1), whole], [text(2), left], [text(3), masked]], "cfg": 2.0}


def prompts_that_change_on_the_way(model, tiny):
    early, late = {"start_percent": 0.0, "end_percent": 0.5}, {"start_percent": 0.5, "end_percent": 1.0}
    return model, {"positive": [[text(1), early], [text(2), late]], "cfg": 2.0}


def batch_of_five(model, tiny):
    data = tiny.inputs(5)
    return model, {"noise": data["noise"], "latent_image": data["latent_image"]}


def image_to_image(model, tiny):
    return model, {"latent_image": torch.randn(2, 4, 8, 8, generator=generator(9)), "steps": slice(1, None)}


def inpainting(model, tiny):
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    return model, {"latent_image": torch.randn(2, 4, 8, 8, generator=generator(9)), "noise_mask": mask}


def differential_diffusion(model, tiny):
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    (clone,) = DifferentialDiffusion.execute(model).args
    mask = torch.linspace(0, 1, 8).expand(2, 1, 8, 8).clone()
    return clone, {"latent_image": torch.randn(2, 4, 8, 8, generator=generator(9)), "noise_mask": mask}


def lora(model, tiny):
    import comfy.sd

    name = "lora_unet_" + "input_blocks.1.1.transformer_blocks.0.attn1.to_q".replace(".", "_")
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    weights = {
        f"{name}.lora_up.weight": torch.randn(32, 4, generator=generator(2)),
        f"{name}.lora_down.weight": torch.randn(4, 32, generator=generator(4)),
        f"{name}.alpha": torch.tensor(4.0),
    }
    clone, _ = comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)
    assert clone.patches, "the LoRA found no layer"
    return clone, {}


def control_net(model, tiny):
    import comfy.cldm.cldm
    import comfy.controlnet

    shape = {**tiny.UNET, **tiny.ONE_BLOCK}
    shape = {key: value for key, value in shape.items() if key not in ("out_channels", "transformer_depth_output")}
    torch.manual_seed(4)
    network = comfy.cldm.cldm.ControlNet(**shape, hint_channels=3, operations=comfy.ops.manual_cast)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    device = torch.device("cpu")
    control = comfy.controlnet.ControlNet(network, load_device=device, manual_cast_dtype=None)
    control.set_cond_hint(torch.rand(1, 3, 64, 64, generator=generator(5)), 0.8)
    entry = {"control": control, "control_apply_to_uncond": False}
    return model, {"positive": [[text(1), entry]], "negative": [[text(2), {}]], "cfg": 2.0}


def easy_cache(model, tiny):
    from comfy_extras.nodes_easycache import EasyCacheNode

    return EasyCacheNode.execute(model, 2.0, 0.0, 1.0, False).args[0], {}


def lazy_cache(model, tiny):
    from comfy_extras.nodes_easycache import LazyCacheNode

    return LazyCacheNode.execute(model, 2.0, 0.0, 1.0, False).args[0], {}


def compiled(model, tiny):
    """torch.compile as the host's node does it; the "eager" backend traces like all others and needs no compiler."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    clone = model.clone()
    set_torch_compile_wrapper(clone, backend="eager")
    return clone, {}


def model_function_wrapper(model, tiny):
    clone = model.clone()
    clone.set_model_unet_function_wrapper(lambda apply, a: 0.9 * apply(a["input"], a["timestep"], **a["c"]))
    return clone, {}


SITUATIONS = [
    plain, guided, rescaled_guidance, guidance_changed_afterwards, regions, prompts_that_change_on_the_way,
    batch_of_five, image_to_image, lora, control_net, easy_cache, lazy_cache, compiled, model_function_wrapper,
]  # fmt: skip


@pytest.mark.parametrize(
    ("situation", "name", "kind"),
    pairs(SITUATIONS, ("euler", "euler_ancestral", "dpmpp_2m"), KINDS),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_composes(pack, tiny, models, situation, name, kind):
    model = models[kind]
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    changed, more = situation(model, tiny)
    part, cfg = more.pop("steps", slice(None)), more.pop("cfg", 1.0)
    whole = tiny.schedule(model)
    coefficients = core.Coefficients(*COEFFICIENTS)
    own = core.Coefficients(coefficients.c_x[part], coefficients.c_eps[part])
    sampler = pack("nodes.sampling.sampler_menu").sampler_object(name)

    def fresh(reference: bool):
        """Everything anew: caches and control nets remember earlier runs."""
        changed, data = situation(model, tiny)
        data = {key: value for key, value in data.items() if key not in ("steps", "cfg")}
        used = tiny.core_sampler(pack, name, own, model) if reference else sampler
        changed = changed if reference else patch.apply_coefficients(changed, coefficients, whole.tolist())
        return tiny.run(changed, used, whole[part], cfg, **data)

    ours, reference = fresh(False), fresh(True)
    stock = tiny.run(changed, sampler, whole[part], cfg, **more)
    assert torch.linalg.norm(ours - reference) <= 1e-5 * torch.linalg.norm(reference)
    assert torch.linalg.norm(ours - stock) > 1e-3 * torch.linalg.norm(stock), "the coefficients did nothing"


@pytest.mark.parametrize("situation", [easy_cache, lazy_cache], ids=lambda function: function.__name__)
def test_the_caches_really_skipped_steps(tiny, situation):
    """Else the test above shows nothing."""
    model = tiny.model("FLOW", **tiny.ONE_BLOCK)
    cached, _ = situation(model, tiny)
    sigmas = tiny.schedule(model)
    import comfy.samplers

    sampler = comfy.samplers.sampler_object("euler")
    assert differ(tiny.run(cached, sampler, sigmas), tiny.run(model, sampler, sigmas))


def euler_inside_the_blend(model, coefficients):
    """Euler with the two lines, and the mask written out: D' belongs to what the network sees, inside the blend."""
    import comfy.samplers

    sampling = model.get_model_object("model_sampling")

    def sample(model_k, x, sigmas, extra_args, callback=None, disable=None):
        guider, latent, options = model_k.inner_model, model_k.latent_image, extra_args["model_options"]
        for i, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            c_x, c_eps = coefficients.at(i)
            each, mask = sigma.expand(len(x)), extra_args["denoise_mask"]
            if "denoise_mask_function" in options:
                constants = {"model": guider, "sigmas": sigmas}
                mask = options["denoise_mask_function"](each, mask, extra_options=constants)
            noised = sampling.noise_scaling(sigma.view(1, 1, 1, 1), model_k.noise, latent)
            blend = x * mask + noised * (1 - mask)
            denoised = guider(blend, each, model_options=options, seed=5)
            zero = sampling.calculate_denoised(each, torch.zeros_like(blend), blend)
            denoised = (c_x * zero - c_eps * (zero - denoised)) * mask + latent * (1 - mask)
            x = c_x * x
            x = x + (x - denoised) / sigma * (after - sigma)
        return x

    return comfy.samplers.KSAMPLER(sample)


@pytest.mark.parametrize("situation", [inpainting, differential_diffusion], ids=lambda function: function.__name__)
def test_composes_with_masks(pack, tiny, model, situation):
    patch, coefficients = pack("nodes.sampling.patch"), pack("qsched_core").Coefficients(*COEFFICIENTS)
    masked, data = situation(model, tiny)
    sigmas, sampler = tiny.schedule(model), pack("nodes.sampling.sampler_menu").sampler_object("euler")
    ours = tiny.run(patch.apply_coefficients(masked, coefficients, sigmas.tolist()), sampler, sigmas, 2.0, **data)
    reference = tiny.run(masked, euler_inside_the_blend(model, coefficients), sigmas, 2.0, **data)
    stock = tiny.run(masked, sampler, sigmas, 2.0, **data)
    assert torch.linalg.norm(ours - reference) <= 1e-5 * torch.linalg.norm(reference)
    assert torch.linalg.norm(ours - stock) > 1e-3 * torch.linalg.norm(stock)


def test_the_region_that_inpainting_keeps_stays_as_exact_as_stock(pack, tiny, model):
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    _, more = inpainting(model, tiny)
    sigmas, latent = tiny.schedule(model), more["latent_image"]
    region = (slice(None), slice(None), slice(None), slice(4, None))
    for name in ("euler", "euler_ancestral", "lcm", "dpmpp_2m", "heun", "euler_cfg_pp"):
        sampler = pack("nodes.sampling.sampler_menu").sampler_object(name)
        stock = tiny.run(model, sampler, sigmas, **more)
        preset_model = patch.apply_coefficients(model, core.Coefficients(*COEFFICIENTS), sigmas.tolist())
        ours = tiny.run(preset_model, sampler, sigmas, **more)
        # The stock sampler itself leaves float32 rounding of x + (D - x); ours may not be worse than a few of those.
        worst = (stock[region] - latent[region]).abs().max()
        assert (ours[region] - latent[region]).abs().max() <= max(1e-5, 2 * worst), name
        assert not torch.allclose(ours[..., :4], stock[..., :4], atol=1e-3), name


def test_two_guiders_of_the_host(pack, tiny, model):
    """BasicGuider and DualCFGGuider through SamplerCustomAdvanced's own path."""
    from comfy_extras.nodes_custom_sampler import BasicGuider, DualCFGGuider

    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    data, sigmas = tiny.inputs(), tiny.schedule(model)
    coefficients = core.Coefficients(*COEFFICIENTS)
    preset = core.Preset(coefficients, tuple(sigmas.tolist()))
    sampler = pack("nodes.sampling.sampler_menu").sampler_object("euler")
    preset_sampler = patch.sampler_with(sampler, patch.PresetUse(preset, if_differs="refuse"))
    reference = tiny.core_sampler(pack, "euler", coefficients, model)
    first, second, negative = data["positive"], [[text(8), {}]], data["negative"]
    for make in (
        lambda: BasicGuider.execute(model, first).args[0],
        lambda: DualCFGGuider.execute(model, first, second, negative, 3.0, 2.0, "regular").args[0],
    ):
        results = [
            make().sample(data["noise"], data["latent_image"], used, sigmas, disable_pbar=True, seed=5)
            for used in (preset_sampler, reference, sampler)
        ]
        assert torch.linalg.norm(results[0] - results[1]) <= 2e-6 * torch.linalg.norm(results[1])
        assert torch.linalg.norm(results[0] - results[2]) > 1e-2 * torch.linalg.norm(results[2])


def test_another_packs_wrapper_is_still_called(pack, tiny, model):
    import comfy.patcher_extension

    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    kinds, called = comfy.patcher_extension.WrappersMP, []

    def wrapper(kind):
        def call(executor, *args, **kwargs):
            called.append(kind)
            return executor(*args, **kwargs)

        return call

    watched = model.clone()
    for kind in (kinds.OUTER_SAMPLE, kinds.SAMPLER_SAMPLE, kinds.PREDICT_NOISE, kinds.CALC_COND_BATCH):
        watched.add_wrapper_with_key(kind, "another pack", wrapper(kind))
    sigmas = tiny.schedule(model)
    preset_model = patch.apply_coefficients(watched, core.Coefficients(*COEFFICIENTS), sigmas.tolist())
    tiny.run(preset_model, pack("nodes.sampling.sampler_menu").sampler_object("euler"), sigmas)
    assert called == [kinds.OUTER_SAMPLE, kinds.SAMPLER_SAMPLE] + [kinds.PREDICT_NOISE, kinds.CALC_COND_BATCH] * 4
