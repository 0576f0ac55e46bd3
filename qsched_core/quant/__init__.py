"""Quantising a loaded model: formats, packing, layer selection, and an honest report."""

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
from .files import Stored, load_quantized, restore, save_quantized, write_checked
from .formats import FORMATS, Format, read_format, resolve_format
from .layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from .measuring import DEPTHS, FORMATS_TRIED, least_bits, measure_sensitivity, studied_layers
from .packed import is_packed
from .plan import Plan
from .quantize import Job, quantize, quantized_layers, require_some
from .report import LayerReport, QuantReport, module_bytes
from .select import RECIPES, candidates
from .sensitivity import LayerSensitivity, Measure, Sensitivity

__all__ = [
    "AUTO",
    "DEPTHS",
    "FORMATS_TRIED",
    "LayerSensitivity",
    "Measure",
    "Sensitivity",
    "least_bits",
    "measure_sensitivity",
    "studied_layers",
    "Backend",
    "Job",
    "KitchenBackend",
    "Plan",
    "QuantoBackend",
    "QuantoConv2d",
    "QuantoLayer",
    "QuantoLinear",
    "TorchBackend",
    "Way",
    "is_packed",
    "ways",
    "FORMATS",
    "RECIPES",
    "Format",
    "LayerReport",
    "QuantReport",
    "QuantizedConv2d",
    "QuantizedLayer",
    "QuantizedLinear",
    "Stored",
    "candidates",
    "load_quantized",
    "module_bytes",
    "quantize",
    "quantized_layers",
    "read_format",
    "require_some",
    "resolve_format",
    "restore",
    "save_quantized",
    "write_checked",
]
