"""What the package gives out: its ``__init__`` imports this file when the first name is asked for."""

from __future__ import annotations

from .choices import IF_DIFFERS
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
from .preset_fit import Mismatch, fit, mismatches
from .quant import Observation, QuantReport, load_observation, observe, quantize
from .samplers import SAMPLERS, sample
from .step_bits import least_activation_bits
