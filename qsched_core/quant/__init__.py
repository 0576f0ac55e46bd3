"""Quantising a loaded model: formats, packing, layer selection, and an honest report."""

from ..step_bits import least_activation_bits, step_bits
from .backends import (
    AUTO,
    Backend,
    KitchenBackend,
    QuantoBackend,
    QuantoConv2d,
    QuantoLayer,
    QuantoLinear,
    TorchBackend,
    Way,
    ways,
)
from .correction import Correction, add_to_biases, mean_correction
from .files import Stored, load_quantized, restore, save_quantized, write_checked
from .fitting import Fit
from .formats import FORMATS, Format, read_format, resolve_format
from .inspection import is_packed
from .label import UNQUANTISED, has_few_bits, label_of, may_be, same_quantization
from .layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from .leftover import unpackable
from .observation import LayerInputs, Observation, load_observation, observe
from .plan import Plan
from .quantize import HAS_BITS, MAX_RANK, QUALITIES, Job, quantize, quantized_layers, require_some
from .report import LayerReport, QuantReport, module_bytes
from .select import RECIPES, candidates
from .sensitivity.measure import DEPTHS, FORMATS_TRIED, least_bits, measure_sensitivity, studied_layers
from .sensitivity.result import LayerSensitivity, Measure, Sensitivity

__all__ = [
    "AUTO",
    "DEPTHS",
    "FORMATS",
    "FORMATS_TRIED",
    "HAS_BITS",
    "MAX_RANK",
    "RECIPES",
    "QUALITIES",
    "Backend",
    "Correction",
    "Fit",
    "Format",
    "Job",
    "KitchenBackend",
    "LayerInputs",
    "LayerReport",
    "LayerSensitivity",
    "Measure",
    "Observation",
    "Plan",
    "QuantReport",
    "QuantizedConv2d",
    "QuantizedLayer",
    "QuantizedLinear",
    "QuantoBackend",
    "QuantoConv2d",
    "QuantoLayer",
    "QuantoLinear",
    "Sensitivity",
    "Stored",
    "TorchBackend",
    "UNQUANTISED",
    "Way",
    "add_to_biases",
    "candidates",
    "is_packed",
    "has_few_bits",
    "label_of",
    "least_activation_bits",
    "least_bits",
    "load_observation",
    "load_quantized",
    "may_be",
    "mean_correction",
    "measure_sensitivity",
    "module_bytes",
    "observe",
    "quantize",
    "quantized_layers",
    "read_format",
    "require_some",
    "resolve_format",
    "restore",
    "same_quantization",
    "save_quantized",
    "step_bits",
    "studied_layers",
    "unpackable",
    "ways",
    "write_checked",
]
