"""How large a network the host would make of a file's shapes, found out before it takes the memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from ...qsched_core import QuantizationError


def check_size(config, shapes: Mapping[str, Tensor], name: str) -> None:
    """The host reads a network's sizes off a few tensors. Where a file's other tensors do not go along, it would take
    all memory for layers that the file does not hold. ``shapes`` are the file's tensors, on the meta device.

    Raises:
        QuantizationError: the network has more weights than the file.
    """
    try:
        network = config.get_model(dict(shapes), "", device=torch.device("meta")).diffusion_model
    except (NotImplementedError, RuntimeError):
        return  # a family that computes while it is made, which meta tensors cannot: nothing is known of it
    model_weights, file_weights = (
        sum(value.numel() for value in network.parameters()),
        sum(prod(t.shape) for t in shapes.values()),
    )
    if model_weights > file_weights:
        raise QuantizationError(
            f"{name[:30]} holds {file_weights:,} weights of a network of {model_weights:,}.",
            "download or save the file again",
        )
