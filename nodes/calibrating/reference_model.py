"""Whether a MODEL can be the reference of another: the same pictures, only better."""

from __future__ import annotations

from ...qsched_core import CalibrationError
from ...qsched_core.quant import has_few_bits
from ..host.model_info import first_difference, quantization

_FIX = "plug in the model before quantising, or an 8-bit twin of it"
_SAMPLING_FIX = "put the same ModelSampling node behind both"


def check_reference(model, reference) -> None:
    """Before anything is sampled.

    Raises:
        CalibrationError: the MODEL itself, another family or prediction, other latents, another schedule, or fewer
            than 8 bits.
    """
    if reference.model is model.model:
        raise CalibrationError("the reference is the model itself.", _FIX)
    difference = first_difference(model, reference)
    what = "" if difference is None else difference.what
    if what == "family":
        raise CalibrationError(f"the reference is a {difference.there}, the model a {difference.here}.", _FIX)
    if has_few_bits(label := quantization(reference)):
        raise CalibrationError(f"the reference is quantised to {label[:40]}.", _FIX)
    if what == "latent":
        raise CalibrationError(f"the reference makes latents {difference.there}, the model {difference.here}.", _FIX)
    if what == "prediction":
        raise CalibrationError(
            f"the reference samples as {difference.there}, the model as {difference.here}.", _SAMPLING_FIX
        )
    if what == "schedule":
        raise CalibrationError(
            f"the reference has another schedule: sigma {difference.there} where the model has {difference.here}.",
            _SAMPLING_FIX,
        )
