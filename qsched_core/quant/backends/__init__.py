"""Who packs a layer, and who multiplies with it. Every backend can say why it cannot."""

from .base import Backend
from .choose import AUTO, Way, ways
from .kitchen import NATIVE, KitchenBackend, KitchenLinear
from .quanto import QuantoBackend, QuantoConv2d, QuantoConv3d, QuantoLayer, QuantoLinear
from .torch import TorchBackend

__all__ = [
    "AUTO",
    "NATIVE",
    "Backend",
    "KitchenBackend",
    "KitchenLinear",
    "QuantoBackend",
    "QuantoConv2d",
    "QuantoConv3d",
    "QuantoLayer",
    "QuantoLinear",
    "TorchBackend",
    "Way",
    "default_backends",
    "ways",
]


def default_backends() -> dict[str, Backend]:
    """Those for any ``nn.Module``, by name; a host brings its own layers."""
    return {backend.name: backend for backend in (KitchenBackend(), TorchBackend(), QuantoBackend())}
