"""Whether a MODEL can be the reference of another: the same pictures, only better."""

from __future__ import annotations

from ...qsched_core import CalibrationError
from ...qsched_core.quant import has_few_bits
from ..host.model_info import describe
from .sampling_setup import SamplingSetup

PERCENTS = (0.25, 0.5, 0.75)
"""Places of the schedule at which two models must have the same noise."""

_SIGMA_TOLERANCE = 1e-3
"""Relative: sigmas are computed in single precision."""

_FIX = "plug in the model before quantising, or an 8-bit twin of it"


def check_reference(model, reference, way: SamplingSetup) -> None:
    """Before anything is sampled.

    Raises:
        CalibrationError: the MODEL itself, another family or prediction, other latents, another schedule, or fewer
            than 8 bits.
    """
    if reference.model is model.model:
        raise CalibrationError("the reference is the model itself.", _FIX)
    here, there = (describe(each, way.name, way.scheduler, way.cfg) for each in (model, reference))
    if here.model != there.model:
        raise CalibrationError(f"the reference is a {there.model}, the model a {here.model}.", _FIX)
    if has_few_bits(there.quantization):
        raise CalibrationError(f"the reference is quantised to {there.quantization[:40]}.", _FIX)
    latents = [_latent(each) for each in (model, reference)]
    if latents[0] != latents[1]:
        raise CalibrationError(f"the reference makes latents {latents[1]}, the model {latents[0]}.", _FIX)
    if here.prediction != there.prediction:
        raise CalibrationError(
            f"the reference samples as {there.prediction}, the model as {here.prediction}.",
            "put the same ModelSampling node behind both",
        )
    for percent in PERCENTS:
        schedules = [each.get_model_object("model_sampling") for each in (model, reference)]
        sigmas = [float(schedule.percent_to_sigma(percent)) for schedule in schedules]
        if abs(sigmas[0] - sigmas[1]) > _SIGMA_TOLERANCE * abs(sigmas[0]):
            raise CalibrationError(
                f"the reference has another schedule: sigma {sigmas[1]:.4g} where the model has {sigmas[0]:.4g}.",
                "put the same ModelSampling node behind both",
            )


def _latent(model) -> str:
    kind = model.get_model_object("latent_format")
    return f"of {kind.latent_channels} channels ({type(kind).__name__})"
