"""Whether a MODEL can be the reference of another, or be shown beside it: pictures of the same prompts and noises."""

from __future__ import annotations

from ...qsched_core import CalibrationError
from ...qsched_core.quant import has_few_bits
from ..host.model_info import first_difference, quantization

_REFERENCE, _OTHER = "the reference", "the other model"
_FIXES = {
    _REFERENCE: "plug in the model before quantising, or an 8-bit twin of it",
    _OTHER: "plug in another one that was made of the same source",
}
_SAMPLING_FIX = "put the same ModelSampling node behind both"


def check_reference(model, reference) -> None:
    """Before anything is sampled.

    Raises:
        CalibrationError: the MODEL itself, another family or prediction, other latents, another schedule, or fewer
            than 8 bits.
    """
    _check_comparable(model, reference, _REFERENCE)
    if has_few_bits(label := quantization(reference)):
        raise CalibrationError(f"the reference is quantised to {label[:40]}.", _FIXES[_REFERENCE])


def check_other(model, other) -> None:
    """Before anything is sampled.

    Raises:
        CalibrationError: the MODEL itself, another family or prediction, other latents, or another schedule.
    """
    _check_comparable(model, other, _OTHER)


def _check_comparable(model, other, name: str) -> None:
    """``name``: what a person calls ``other``."""
    if other.model is model.model:
        raise CalibrationError(f"{name} is the model itself.", _FIXES[name])
    difference = first_difference(model, other)
    what = "" if difference is None else difference.what
    if what == "family":
        raise CalibrationError(f"{name} is a {difference.there}, the model a {difference.here}.", _FIXES[name])
    if what == "latent":
        raise CalibrationError(
            f"{name} makes latents {difference.there}, the model {difference.here}.", _FIXES[name]
        )  # fmt: skip
    if what == "prediction":
        raise CalibrationError(
            f"{name} samples as {difference.there}, the model as {difference.here}.", _SAMPLING_FIX
        )  # fmt: skip
    if what == "schedule":
        raise CalibrationError(
            f"{name} has another schedule: sigma {difference.there} where the model has {difference.here}.",
            _SAMPLING_FIX,
        )
