"""The method, the quantiser and the preset file, in plain torch: no host is needed here.

import qsched_core as qs
qs.sample("euler", model, x, sigmas, qs.Coefficients.ramp(4, c_eps=(0.95, 1.05)))
"""

from .errors import (
    CalibrationError,
    CoefficientError,
    DependencyError,
    PresetError,
    QSchedError,
    QuantizationError,
    SamplingError,
    VoteError,
)

__all__ = [
    "Binding",
    "CalibrationError",
    "CoefficientError",
    "Coefficients",
    "DependencyError",
    "IF_DIFFERS",
    "Mismatch",
    "Observation",
    "Precision",
    "Preset",
    "PresetError",
    "QSchedError",
    "QuantReport",
    "QuantizationError",
    "SAMPLERS",
    "SamplingError",
    "VoteError",
    "encode_preset",
    "fit",
    "least_activation_bits",
    "load_observation",
    "load_preset",
    "mismatches",
    "observe",
    "parse_preset",
    "quantize",
    "sample",
    "save_preset",
]


def __getattr__(name: str) -> object:
    """Errors are there at once; the others are imported when the first is asked for: ComfyUI starts without them."""
    if name in __all__:
        from . import public

        return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
