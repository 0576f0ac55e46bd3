"""Quantising a loaded model: formats, packing, layer selection, and an honest report."""

from .files import Stored, load_quantized, restore, save_quantized
from .formats import FORMATS, Format, resolve_format
from .layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from .quantize import quantize, quantized_layers, require_some
from .report import LayerReport, QuantReport, module_bytes
from .select import RECIPES, candidates

__all__ = [
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
    "require_some",
    "resolve_format",
    "restore",
    "save_quantized",
]
