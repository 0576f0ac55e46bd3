"""What the package gives out: its ``__init__`` imports this file when the first name is asked for."""

from __future__ import annotations

from ..choices import AUTO, DEPTHS, MAX_RANK, QUALITIES, RECIPES
from ..step_bits import least_activation_bits, step_bits
from .backends import (
    Backend,
    KitchenBackend,
    QuantoBackend,
    QuantoConv2d,
    QuantoConv3d,
    QuantoLayer,
    QuantoLinear,
    TorchBackend,
    Way,
    ways,
)
from .checked_write import write_checked, write_together
from .convolutions import QuantizedConv2d, QuantizedConv3d, QuantizedConvolution, convolve
from .correction import Correction, add_to_biases, mean_correction
from .files import Stored, load_quantized, restore, save_quantized
from .fitting import Fit
from .formats import FORMATS, Format, read_format, resolve_format
from .inspection import is_packed
from .label import UNQUANTIZED, has_few_bits, label_of, may_be, same_quantization
from .layers import QuantizedLayer, QuantizedLinear
from .leftover import unpackable
from .observation import LayerInputs, Observation, load_observation, observe
from .plan import Plan
from .quantizer import HAS_BITS, Job, quantize, quantized_layers, require_some
from .records import layer_records
from .report import LayerReport, QuantReport, module_bytes
from .select import candidates
from .sensitivity.measure import FORMATS_TRIED, least_bits, measure_sensitivity, studied_layers
from .sensitivity.result import LayerSensitivity, Measure, Sensitivity
from .step_cost import bit_cost
