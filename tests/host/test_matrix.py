"""Every sampler the host has: driven exactly, by rule, or refused.

The reference is the host's own source with the two lines of the paper written into it: wherever a sampler says
``denoised = model(x, …)`` the copy says ``denoised, x = model(x, …)``, and the model hands back D' and c_x·x.
"""

from __future__ import annotations

import functools
import inspect
import re
import types

import pytest
import torch
from host_at_hand import host_at_hand

pytestmark = pytest.mark.usefixtures("one_thread")

C_X, C_EPS = (0.93, 0.97, 1.02, 1.05), (0.88, 0.95, 1.04, 1.08)

REFUSED = {
    "uni_pc": "keeps a copy",
    "uni_pc_bh2": "keeps a copy",
    "sa_solver": "keeps a copy",
    "sa_solver_pece": "keeps a copy",
    "dpm_fast": "one by one",
    "dpm_adaptive": "one by one",
}
TWO = (0, None, 1, None, 2, None, 3)
"""Evaluations of a two-stage sampler over four steps: coefficients on the first of a step, the last step has one."""
BY_RULE = dict.fromkeys(
    ["heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde",
     "dpmpp_sde_gpu", "seeds_2", "exp_heun_2_x0", "exp_heun_2_x0_sde"],
    TWO,
)  # fmt: skip
BY_RULE |= {
    "heunpp2": (0, None, None, 1, None, None, 2, None, 3),
    "seeds_3": (0, None, None, 1, None, None, 2, None, None, 3),
}
ONE = (0, 1, 2, 3)


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        # The host is not imported when tests are collected; its list is read from the source.
        text = (host_at_hand().path / "comfy" / "samplers.py").read_text("utf-8")
        listed = re.search(r"^KSAMPLER_NAMES = \[(.*?)\]", text, re.S | re.M)[1]
        names = re.findall(r'"(\w+)"', listed) + ["ddim", "uni_pc", "uni_pc_bh2"]
        kinds = [("EPS", "FLOW"), ("V_PREDICTION", "FLOW")]  # in turn: the first two differ in what D of zero is alone
        cases = [(name, kind) for number, name in enumerate(names) for kind in kinds[number % 2]]
        metafunc.parametrize(("name", "kind"), cases)


@functools.cache
def rewritten_host() -> types.ModuleType:
    import comfy.k_diffusion.sampling as stock

    source, count = re.subn(
        r"^(\s+)(\w+) = model\((\w+), (.+), \*\*extra_args\)$",
        r"\1\2, \3 = model(\3, \4, **extra_args)",
        inspect.getsource(stock),
        flags=re.M,
    )
    assert count > 30, "the host's samplers are written in another way now"
    module = types.ModuleType("comfy.k_diffusion.sampling_with_two_lines")
    module.__package__ = "comfy.k_diffusion"
    exec(compile(source, "sampling_with_two_lines", "exec"), module.__dict__)  # noqa: S102  the host's own source
    return module


class Published:
    """model(x, sigma) -> (D', c_x·x) as METHOD's formula has it, D' = c_x·D0 - c_eps·(D0 - D)."""

    def __init__(self, model_k, steps):
        self.model_k, self.steps, self.count = model_k, steps, 0

    def __getattr__(self, name):
        return getattr(self.__dict__["model_k"], name)

    def __call__(self, x, sigma, **extra):
        import comfy.model_sampling

        step = self.steps[self.count]
        self.count += 1
        c_x, c_eps = (1.0, 1.0) if step is None else (C_X[step], C_EPS[step])
        sampling = self.model_k.inner_model.inner_model.model_sampling
        v = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
        zero = x / (float(sigma[0]) ** 2 + 1) if v else x

        def scaled(denoised):
            return c_x * zero - c_eps * (zero - denoised)

        asks = extra["model_options"].get("sampler_post_cfg_function", [])
        if asks:  # CFG++ looks at the unconditional prediction

            def told(arguments, ask=asks[-1]):
                return ask({**arguments, "uncond_denoised": scaled(arguments["uncond_denoised"])})

            extra["model_options"] = {**extra["model_options"], "sampler_post_cfg_function": [*asks[:-1], told]}
        return scaled(self.model_k(x, sigma, **extra)), c_x * x


def published_sampler(name: str):
    import comfy.samplers

    stock = comfy.samplers.sampler_object(name)
    function = getattr(rewritten_host(), stock.sampler_function.__name__)

    def sample(model_k, x, sigmas, **arguments):
        return function(Published(model_k, BY_RULE.get(name, ONE)), x, sigmas, **arguments)

    return comfy.samplers.KSAMPLER(sample, stock.extra_options, stock.inpaint_options)


@pytest.mark.filterwarnings("ignore:(Should have|To copy construct)", "ignore:__array_wrap__:DeprecationWarning")
def test_every_sampler_of_the_host(pack, tiny, models, name, kind):
    model = models[kind]
    import comfy.samplers

    core, patch = pack("qsched_core"), pack("nodes.sampling.patch")
    sigmas = tiny.schedule(model)
    preset_model = patch.apply_coefficients(model, core.Coefficients(C_X, C_EPS), sigmas.tolist())
    stock = comfy.samplers.sampler_object(name)
    if name in REFUSED:
        with pytest.raises(core.SamplingError, match=REFUSED[name]) as caught:
            tiny.run(preset_model, stock, sigmas, cfg=2.0)
        assert "Fix: use " in str(caught.value)
        return
    ours = tiny.run(preset_model, stock, sigmas, cfg=2.0)
    reference = tiny.run(model, published_sampler(name), sigmas, cfg=2.0)
    plain = tiny.run(model, stock, sigmas, cfg=2.0)
    # float32; the higher orders divide small differences by small numbers.
    assert torch.linalg.norm(ours - reference) <= 1e-5 * torch.linalg.norm(reference)
    assert torch.linalg.norm(ours - plain) > 1e-2 * torch.linalg.norm(plain), "the coefficients did nothing"


def test_the_menu_offers_what_can_be_driven(pack):
    import comfy.samplers

    names = pack("nodes.sampling.sampler_menu").sampler_names()
    assert set(names) == set(comfy.samplers.SAMPLER_NAMES) - set(REFUSED) | {"tcd"}
    assert len(names) == len(set(names))
    assert set(pack("nodes.sampling.sampler_menu").UNDRIVABLE_SAMPLERS) == set(REFUSED)
