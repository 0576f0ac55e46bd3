"""The method, the quantiser and the preset file, in plain torch: no host is needed here.

import qsched_core as qs
qs.sample("euler", model, x, sigmas, qs.Coefficients.ramp(4, c_eps=(0.95, 1.05)))
"""

from .coefficients import Coefficients
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
from .precision import Precision
from .preset import Binding, Preset, encode_preset, load_preset, parse_preset, save_preset
from .preset_fit import IF_DIFFERS, Mismatch, fit, mismatches
from .quant import Observation, QuantReport, load_observation, observe, quantize
from .samplers import SAMPLERS, sample
from .step_bits import least_activation_bits

__all__ = [
    "IF_DIFFERS",
    "SAMPLERS",
    "Binding",
    "CalibrationError",
    "CoefficientError",
    "Coefficients",
    "DependencyError",
    "Mismatch",
    "Observation",
    "Precision",
    "Preset",
    "PresetError",
    "QSchedError",
    "QuantReport",
    "QuantizationError",
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
