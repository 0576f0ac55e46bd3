"""Quantising a loaded model: formats, packing, layer selection, and an honest report."""

from .formats import FORMATS, Format, resolve_format
from .linear import QuantizedLinear
from .quantize import quantize, quantized_layers, require_some
from .report import LayerReport, QuantReport, module_bytes

__all__ = [
    "FORMATS",
    "Format",
    "LayerReport",
    "QuantReport",
    "QuantizedLinear",
    "module_bytes",
    "quantize",
    "quantized_layers",
    "require_some",
    "resolve_format",
]
