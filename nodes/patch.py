"""Coefficients on a MODEL: two wrappers around the host's own sampling, so every exact sampler just works.

PREDICT_NOISE turns the denoised prediction into D' (inside the inpainting blend, after guidance, as the published
schedulers do); OUTER_SAMPLE lends the sampler a proxy of the model that scales the sampler's own x once the model
has seen it. k-diffusion's samplers go on with the very tensor they passed, so scaling it in place is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy.samplers import KSAMPLER

from ..qsched_core import Coefficients, SamplingError
from ..qsched_core.precondition import precondition_denoised, precondition_sample
from ..qsched_core.samplers import check_finite

KEY = "qsched"
EXACT_SAMPLERS = ("euler", "euler_ancestral")
"""Stock samplers with one evaluation per step whose update is tested against the published ones."""


@dataclass(frozen=True)
class Plan:
    """Coefficients and the sigmas they were made for, looked up by the sigma of the moment."""

    coefficients: Coefficients
    sigmas: tuple[float, ...]

    @lru_cache(maxsize=8)  # noqa: B019  it keeps eight plans at most, of a few numbers each
    def over(self, run: tuple[float, ...]) -> Coefficients:
        return self.coefficients.for_sigmas(self.sigmas, run)

    def at(self, run: Sequence[float], sigma: float) -> tuple[int, float, float]:
        """(step, c_x, c_eps) for the step of the run whose sigma is nearest."""
        run = tuple(run)
        step = min(range(len(run) - 1), key=lambda i: abs(run[i] - sigma))
        return step, *self.over(run).at(step)


def apply_coefficients(model, coefficients: Coefficients, sigmas: Sequence[float]):
    """A clone of the MODEL that samples with ``coefficients``. An earlier Q-Sched patch is replaced, not stacked.

    The identity leaves no wrapper behind: it is the stock sampler, bit for bit.
    """
    patched = model.clone()
    for kind in (WrappersMP.PREDICT_NOISE, WrappersMP.OUTER_SAMPLE):
        patched.remove_wrappers_with_key(kind, KEY)
    if coefficients.is_identity:
        return patched
    plan = Plan(coefficients, tuple(float(sigma) for sigma in sigmas))
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, _Predict(plan))
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _Outer(plan))
    return patched


class _Predict:
    def __init__(self, plan: Plan):
        self.plan = plan

    def __call__(self, executor, x, timestep, model_options=None, seed=None):
        options = model_options or {}
        denoised = executor(x, timestep, options, seed)
        run = options["transformer_options"]["sample_sigmas"].tolist()
        sigma = float(timestep[0])
        step, c_x, c_eps = self.plan.at(run, sigma)
        check_finite(denoised, step, sigma, (c_x, c_eps))
        sampling = executor.class_obj.inner_model.model_sampling
        zero = sampling.calculate_denoised(timestep, torch.zeros_like(x), x)
        return precondition_denoised(denoised, zero, c_x, c_eps)


class _Outer:
    def __init__(self, plan: Plan):
        self.plan = plan

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        if not isinstance(sampler, KSAMPLER):
            raise SamplingError(
                f"sampler {type(sampler).__name__} cannot be driven.", "use euler or another stock sampler"
            )
        # The SAMPLER object is shared by every node it is plugged into: a copy is changed, never the object.
        lent = copy.copy(sampler)
        lent.sampler_function = _scaling(sampler.sampler_function, self.plan)
        return executor(noise, latent_image, lent, sigmas, *args, **kwargs)


def _scaling(function, plan: Plan):
    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None, **options):
        run = sigmas.tolist()
        lent = _ModelProxy(model, plan, run)
        # clone: some parameterisations hand over the latent itself as the first x.
        return function(lent, x.clone(), sigmas, extra_args=extra_args, callback=callback, disable=disable, **options)

    sample.__name__ = getattr(function, "__name__", "sample")
    return sample


class _ModelProxy:
    """The model as samplers know it, which scales the caller's x after looking at it."""

    def __init__(self, model: Any, plan: Plan, run: list[float]):
        object.__setattr__(self, "_own", (model, plan, run))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_own")[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._own[0], name, value)

    def __call__(self, x, sigma, **extra):
        model, plan, run = self._own
        denoised = model(x, sigma, **extra)
        _, c_x, _ = plan.at(run, float(sigma[0]))
        x.copy_(precondition_sample(x, c_x))
        return denoised
