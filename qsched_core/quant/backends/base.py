"""What the quantiser asks of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..formats import Format, resolve_format
from ..rounding import Fitting


class Backend(ABC):
    """Packs float layers into twins of its own. Reasons are parts of a sentence; "" says that nothing is in the way."""

    name: str
    stock: bool = False
    """Whether ComfyUI's own loaders read what it packs."""

    def form(self, format: str, group_size: int | None = None, symmetric: bool = True) -> Format:
        """The Format of a name; without a group size the backend's own.

        Raises:
            QuantizationError: unknown name or group size.
        """
        return resolve_format(format, group_size, symmetric)

    @abstractmethod
    def missing(self, form: Format, device: torch.device) -> str:
        """Why no layer at all can be packed so, here."""

    @abstractmethod
    def refusal(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        """Why this layer cannot, for a model that runs on ``device``."""

    def trial(self, form: Format, device: torch.device) -> str:
        """Why its kernels for a format that is not ``missing`` are not trusted on the device, after trying them."""
        return ""

    @abstractmethod
    def kernel(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        """What multiplies, in a word or two."""

    @abstractmethod
    def fast(self, form: Format, device: torch.device) -> bool:
        """Whether that is faster than unpacking the weight."""

    @abstractmethod
    def twin(self, layer: nn.Module, weight: Tensor, bias: Tensor | None, form: Format) -> nn.Module:
        """The packed twin of a float ``layer``, with these values in place of its own."""

    def fitting(self, layer: nn.Module, twin: nn.Module, weight: Tensor, form: Format) -> Fitting | None:
        """How the ``twin`` of a float ``layer`` with ``weight`` multiplies, so that its codes can be fitted to what it
        sees; None where this backend's codes cannot be chosen."""
        return None
