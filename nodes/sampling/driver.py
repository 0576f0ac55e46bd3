"""A sampler driven by coefficients: the host's own sampler, between two proxies.

The guider's proxy turns a denoised prediction into D' (after guidance and everybody's patches, inside the inpainting
blend, as the published schedulers do). The model's proxy scales the sampler's own x once the model has seen it:
k-diffusion's samplers go on with the very tensor they passed, so scaling it in place is exact. Which evaluation gets
which coefficients is known from the rehearsal.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import set_model_options_pre_cfg_function
from comfy.samplers import KSAMPLER
from torch import Tensor

from ...qsched_core import Coefficients, Precision, SamplingError
from ...qsched_core.precondition import precondition_denoised, precondition_sample
from ...qsched_core.samplers import check_finite
from .dry_run import name_of, rehearse
from .model_library import require_models
from .step_precision import put_precision_in_run

Choose = Callable[[Any, str, tuple[float, ...]], Coefficients]
"""choose(guider, sampler name, sigmas (n + 1,)) -> the coefficients of these n steps"""


class DrivenSampler(KSAMPLER):
    """A SAMPLER like the one it is made of, whose update follows ``choose``'s coefficients, and the model's precision
    in each step the plan ``precision`` where there is one.

    It has every attribute of the inner one, for other code that reads them. The inner SAMPLER is shared by all nodes
    it is plugged into, so a copy is changed at each run, never the object.

    Raises (when it samples):
        SamplingError: the sampler cannot be driven, or a prediction is not finite.
    """

    def __init__(self, sampler: KSAMPLER, choose: Choose, precision: Precision | None = None):
        super().__init__(sampler.sampler_function, sampler.extra_options, sampler.inpaint_options)
        self.qsched_inner, self.qsched_choose, self.qsched_precision = sampler, choose, precision

    def max_denoise(self, model_wrap, sigmas):
        return self.qsched_inner.max_denoise(model_wrap, sigmas)

    def sample(self, model_wrap, sigmas, extra_args, *args, **kwargs):
        inner = self.qsched_inner
        if (plan := self.qsched_precision) is not None:
            require_models(model_wrap.model_patcher, plan)
            put_precision_in_run(extra_args["model_options"], plan)  # the run's own
        args = extra_args, *args
        if len(sigmas) < 2:
            return inner.sample(model_wrap, sigmas, *args, **kwargs)
        coefficients = self.qsched_choose(model_wrap, name_of(inner.sampler_function), tuple(sigmas.tolist()))
        if coefficients.is_identity:
            return inner.sample(model_wrap, sigmas, *args, **kwargs)
        run = _DrivenRun(coefficients, model_wrap.inner_model.model_sampling)
        sampler = copy.copy(inner)
        sampler.sampler_function = run.driven(inner.sampler_function)
        return sampler.sample(_Guider(model_wrap, run), sigmas, *args, **kwargs)


def drive(sampler, choose: Choose, precision: Precision | None = None) -> DrivenSampler:
    """Raises SamplingError for what is no k-diffusion sampler. A driven sampler is driven anew, never twice."""
    sampler = getattr(sampler, "qsched_inner", sampler)
    if not isinstance(sampler, KSAMPLER):
        raise SamplingError(f"{type(sampler).__name__} cannot be driven.", "use a stock sampler, euler for example")
    return DrivenSampler(sampler, choose, precision)


class _DrivenRun:
    """One run of one sampler: the step of the moment, and the two lines applied to it."""

    def __init__(self, coefficients: Coefficients, sampling: Any):
        self.coefficients, self.sampling = coefficients, sampling
        self.rehearsal, self.count, self.step, self.sigma = None, 0, None, 0.0

    def driven(self, function: Callable) -> Callable:
        def sample(model, x, sigmas, extra_args=None, callback=None, disable=None, **options):
            extra_args = extra_args or {}
            self.rehearsal = rehearse(function, model, x, sigmas, extra_args, options)
            # clone: some parameterisations hand over the latent itself as the first x.
            return function(
                _Model(model, self), x.clone(), sigmas, extra_args=extra_args, callback=callback, disable=disable,
                **options,
            )  # fmt: skip

        sample.__name__ = getattr(function, "__name__", "sample")
        return sample

    def begin(self) -> None:
        """The next evaluation starts. Raises SamplingError when there was none in this place in rehearsal."""
        steps, sigmas = self.rehearsal.steps, self.rehearsal.sigmas
        if self.count >= len(steps):
            raise _other_steps()
        self.step, self.sigma, self.count = steps[self.count], sigmas[self.count], self.count + 1

    @property
    def now(self) -> tuple[float, float]:
        """(c_x, c_eps) of this evaluation; a later stage of a step is left alone."""
        return (1.0, 1.0) if self.step is None else self.coefficients.at(self.step)

    def scale(self, x: Tensor) -> None:
        c_x, _ = self.now
        if c_x != 1.0:
            x.copy_(precondition_sample(x, c_x))

    def check(self, denoised: Tensor, sigma: Tensor) -> None:
        """Raises SamplingError when a prediction is not finite, or when the rehearsal was at another sigma here."""
        # One number after the other would make a GPU wait twice.
        is_finite, actual_sigma = torch.stack(
            [torch.isfinite(denoised).all().to(sigma.dtype), sigma.flatten()[0]]
        ).tolist()
        if not math.isclose(actual_sigma, self.sigma, rel_tol=1e-4):
            raise _other_steps()
        if not is_finite:
            steps = self.rehearsal.steps[: self.count]
            check_finite(denoised, max((step for step in steps if step is not None), default=0), actual_sigma, self.now)

    def correct(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        c_x, c_eps = self.now
        if c_x == c_eps == 1.0:
            return denoised
        zero = self.sampling.calculate_denoised(sigma, torch.zeros_like(x), x)
        return precondition_denoised(denoised, zero, c_x, c_eps)

    def correct_parts(self, arguments: dict[str, Any]) -> list[Tensor]:
        """The same before guidance, for samplers that use the unconditional prediction too. Guidance is affine."""
        x, sigma = arguments["input"], arguments["sigma"]
        parts = zip(arguments["conds_out"], arguments["conds"], strict=True)
        return [part if cond is None else self.correct(part, x, sigma) for part, cond in parts]


def _other_steps() -> SamplingError:
    return SamplingError("the sampler took other steps than in rehearsal.", "use one of fixed steps, like euler")


class _Proxy:
    """Looks like its target in every attribute, read and written."""

    def __init__(self, target: Any, run: _DrivenRun):
        object.__setattr__(self, "_own", (target, run))

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_own")[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._own[0], name, value)


class _Model(_Proxy):
    """The model as samplers know it: model(x, sigma, **extra_args) -> denoised."""

    def __call__(self, x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        model, run = self._own
        run.begin()
        if run.rehearsal.reads_guidance and run.now != (1.0, 1.0):
            options = dict(extra.get("model_options", {}))
            extra["model_options"] = set_model_options_pre_cfg_function(options, run.correct_parts)
        denoised = model(x, sigma, **extra)
        run.scale(x)
        return denoised


class _Guider(_Proxy):
    """The guider, called inside the inpainting blend: (x, sigma, …) -> denoised after guidance."""

    def __call__(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        guider, run = self._own
        denoised = guider(x, timestep, *args, **kwargs)
        run.check(denoised, timestep)
        return denoised if run.rehearsal.reads_guidance else run.correct(denoised, x, timestep)
