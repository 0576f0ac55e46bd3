"""diffusers' schedulers on one small network: their own steps by hand, and the same runs by our samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import qsched_core as qs
import qsched_core.diffusers
from qsched_core import Binding, Coefficients, Preset
from qsched_core.diffusers import apply_preset

SHAPE = (2, 4, 3, 3)
FOUR = Coefficients((1.12, 0.94, 1.07, 0.9), (0.85, 1.06, 0.93, 1.15))
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}

NO_NUMPY_WARNING = pytest.mark.filterwarnings("ignore:__array_.*:DeprecationWarning")
"""diffusers' schedulers hand tensors to numpy 2."""


def network(x: Tensor, sigma: Tensor | float) -> Tensor:
    """A smooth stand-in for a network, with outputs about 1; the same function in every dtype."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    mixed = x.roll(1, dims=1) * 0.7 + x.flip(-1) * 0.4 - x * 0.2
    return (torch.tanh(mixed / (1 + sigma**2) ** 0.5 + 0.3 * torch.cos(sigma)) + 0.1).to(x.dtype)


@dataclass(frozen=True)
class Case:
    """A diffusers scheduler, the sampler of ours that is the same, and what goes into its step."""

    scheduler: str
    sampler: str
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    prediction: str = "EPS"

    @property
    def flow(self) -> bool:
        return self.prediction == "CONST"

    @property
    def scaled(self) -> bool:
        """Whether the scheduler's sample is sqrt(alpha_bar)·x, not x; those keep float64."""
        return self.sampler in ("tcd", "lcm") and not self.flow

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.scaled else torch.float32

    @property
    def binding(self) -> Binding:
        return Binding(prediction=self.prediction, sampler=self.sampler)

    def make(self, diffusers: ModuleType, steps: int = 4) -> Any:
        scheduler = getattr(diffusers, self.scheduler)(**({} if self.flow else SD) | self.config)
        if self.scaled:
            scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        scheduler.set_timesteps(steps)
        return scheduler

    def sigmas(self, scheduler: Any) -> Tensor:
        """(n + 1,) in float64, in the host's sense."""
        if not self.scaled:
            sigmas = scheduler.sigmas.double()
            return 1 - sigmas if self.config.get("invert_sigmas") else sigmas
        return torch.cat([self.table(scheduler)[scheduler.timesteps], torch.zeros(1, dtype=torch.float64)])

    def table(self, scheduler: Any) -> Tensor:
        return (1 / scheduler.alphas_cumprod.double() - 1).sqrt()

    def preset(self, scheduler: Any, coefficients: Coefficients = FOUR) -> Preset:
        return Preset(coefficients, tuple(self.sigmas(scheduler).tolist()), self.binding)

    def start(self, scheduler: Any) -> Tensor:
        first = 1.0 if self.scaled or self.flow else scheduler.init_noise_sigma
        return first * torch.randn(SHAPE, dtype=self.dtype, generator=torch.Generator().manual_seed(3))

    def predict(self, sample: Tensor, sigma: Tensor) -> Tensor:
        return network(sample * (1 + sigma**2).sqrt().to(self.dtype) if self.scaled else sample, sigma)

    def walk(self, scheduler: Any, first: int = 0, step: Callable[..., Any] | None = None, seed: int = 7) -> Tensor:
        """A pipeline's loop over the scheduler's own (or another) step."""
        step = step or (lambda i, *args, **kwargs: scheduler.step(*args, **kwargs))
        sample, sigmas, generator = self.start(scheduler), self.sigmas(scheduler), torch.Generator().manual_seed(seed)
        for i in range(first, len(scheduler.timesteps)):
            timestep = scheduler.timesteps[i]
            if not self.flow:
                scheduler.scale_model_input(sample, timestep)
            output = self.predict(sample, sigmas[i])
            sample = step(i, output, timestep, sample, generator=generator, **self.options).prev_sample
        return sample

    def by_hand(self, scheduler: Any, coefficients: Coefficients, first: int = 0) -> Tensor:
        """The published schedulers: their update on c_x·sample and c_eps·output. ``scheduler`` is a stock one."""
        assert "step" not in vars(scheduler)

        def scaled(i: int, output: Tensor, timestep: Tensor, sample: Tensor, **kwargs: Any) -> Any:
            c_x, c_eps = coefficients.at(i)
            return scheduler.step(c_eps * output, timestep, c_x * sample, **kwargs)

        return self.walk(scheduler, first, scaled)

    def denoised(self, scheduler: Any, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        kind = scheduler.config.get("prediction_type", "epsilon")
        noise_free = {
            "epsilon": lambda: x - sigma * output,
            "v_prediction": lambda: x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5,
            "sample": lambda: output,
        }[kind]()
        if self.scheduler != "LCMScheduler":
            return noise_free
        nearest = (self.table(scheduler) - sigma).abs().argmin()
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(nearest)
        return c_out * noise_free + c_skip * x / (1 + sigma**2) ** 0.5

    def ours(self, scheduler: Any, coefficients: Coefficients) -> Tensor:
        """The run in the host's variables: x = sample / sqrt(alpha_bar), and only the denoised prediction is seen."""
        sigmas, options = self.sigmas(scheduler), dict(self.options)
        start, generator = self.start(scheduler).double(), torch.Generator().manual_seed(7)
        end = 1.0
        if self.scaled:
            start = start * (1 + sigmas[0] ** 2).sqrt()
        if self.sampler == "tcd":
            options["table"] = self.table(scheduler)
            sigmas[-1] = options["table"][0]  # diffusers ends at timestep 0
            end = scheduler.alphas_cumprod[0].sqrt()

        def at(x: Tensor, sigma: Tensor, output: Tensor | None = None) -> Tensor:
            sigma = sigma[0]
            output = network(x, sigma) if output is None else output
            return self.denoised(scheduler, output, x, sigma)

        return end * qs.sample(
            self.sampler,
            at,
            start,
            sigmas,
            coefficients,
            flow=self.flow,
            zero_denoised=lambda x, sigma: at(x, sigma, torch.zeros_like(x)),
            noise_sampler=lambda *_: torch.randn(SHAPE, dtype=self.dtype, generator=generator).double(),
            **options,
        )


V, X0 = {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}
FLOW_EULER, FLOW_LCM = "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"
# As distilled models have it c_skip is below 1e-5; with this scaling it reaches 0.5.
SKIP = {"timestep_scaling": 0.002}
CASES = {
    "euler": Case("EulerDiscreteScheduler", "euler"),
    "euler v": Case("EulerDiscreteScheduler", "euler", V, prediction="V_PREDICTION"),
    "euler x0": Case("EulerDiscreteScheduler", "euler", X0, prediction="X0"),
    "euler karras": Case("EulerDiscreteScheduler", "euler", {"use_karras_sigmas": True}),
    "ancestral": Case("EulerAncestralDiscreteScheduler", "euler_ancestral", {"timestep_spacing": "trailing"}),
    "ancestral v": Case("EulerAncestralDiscreteScheduler", "euler_ancestral", V, prediction="V_PREDICTION"),
    "tcd": Case("TCDScheduler", "tcd", options={"eta": 0.3}),
    "tcd eta 0": Case("TCDScheduler", "tcd", options={"eta": 0.0}),
    "tcd eta 1": Case("TCDScheduler", "tcd", options={"eta": 1.0}),
    "tcd v": Case("TCDScheduler", "tcd", V, {"eta": 0.3}, prediction="V_PREDICTION"),
    "tcd x0": Case("TCDScheduler", "tcd", X0, {"eta": 0.3}, prediction="X0"),
    "lcm": Case("LCMScheduler", "lcm", prediction="LCM"),
    "lcm skip": Case("LCMScheduler", "lcm", SKIP, prediction="LCM"),
    "lcm v": Case("LCMScheduler", "lcm", V | SKIP, prediction="V_PREDICTION"),
    "flow": Case(FLOW_EULER, "euler", {"shift": 3.0}, prediction="CONST"),
    "flow stochastic": Case(FLOW_EULER, "lcm", {"stochastic_sampling": True}, prediction="CONST"),
    "flow lcm": Case(FLOW_LCM, "lcm", {"shift": 2.0}, prediction="CONST"),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FAMILY = ("euler", "ancestral", "tcd", "lcm", "flow", "flow lcm")
FAMILIES = pytest.mark.parametrize("case", [CASES[name] for name in FAMILY], ids=FAMILY)


def put(scheduler: Any, preset: Preset, **options: Any) -> qsched_core.diffusers.Applied:
    return apply_preset(SimpleNamespace(scheduler=scheduler), preset, **options)
