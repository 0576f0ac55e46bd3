"""How a calibration samples: by names as on KSampler, or by the graph's own SAMPLER, SIGMAS and GUIDER."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from comfy.samplers import CFGGuider

from ...qsched_core import SamplingError
from ...qsched_core.schedule import check_schedule
from ..sampling.dry_run import name_of
from ..sampling.ksampler import Recipe
from ..sampling.patch import guidance_scale
from ..sampling.sampler_menu import sampler_object


@dataclass(frozen=True)
class SamplingSetup:
    """``sigmas`` (n + 1,) noisiest first; ``sampler`` a plain SAMPLER; ``guider`` lends its kind, its guidance and its
    other conditionings, never its MODEL or its positive. ``name`` and ``scheduler`` are what a preset is bound by."""

    sigmas: tuple[float, ...]
    sampler: Any
    name: str
    scheduler: str
    cfg: float
    guider: Any = None

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def guide(self, model, positive: list, negative: list):
        """A guider for one batch: nobody else's object is changed."""
        if self.guider is None:
            guider = CFGGuider(model)
            guider.set_conds(positive, negative)
            guider.set_cfg(self.cfg)
            return guider
        guider = copy.copy(self.guider)
        guider.model_patcher, guider.model_options = model, model.model_options
        guider.original_conds = dict(self.guider.original_conds)
        guider.inner_set_conds({"positive": positive})
        return guider


def setup_of(model, recipe: Recipe, sampler=None, sigmas=None, guider=None) -> SamplingSetup:
    """What is plugged in counts; what is not comes from the names.

    Raises:
        SamplingError: sigmas that do not descend, or a guider that has no positive conditioning to be exchanged.
    """
    if guider is not None and "positive" not in getattr(guider, "original_conds", {}):
        raise SamplingError("this GUIDER has no positive conditioning.", "use BasicGuider, CFGGuider or a kind of them")
    # A preset on the SAMPLER would win over the candidates.
    sampler = getattr(sampler, "qsched_inner", sampler)
    name = recipe.sampler if sampler is None else name_of(getattr(sampler, "sampler_function", sampler))
    return SamplingSetup(
        recipe.falling_sigmas(model) if sigmas is None else read_sigmas(sigmas),
        sampler_object(recipe.sampler) if sampler is None else sampler,
        name,
        recipe.scheduler if sigmas is None else "",
        recipe.cfg if guider is None else guidance_scale(guider),
        guider,
    )


def read_sigmas(sigmas: torch.Tensor) -> tuple[float, ...]:
    """Raises SamplingError for sigmas that are no schedule."""
    values = tuple(float(sigma) for sigma in sigmas.flatten())
    check_schedule(values, "the SIGMAS input", strict=True)
    return values
