"""What the host's model detection reads of a checkpoint: layers whose packed shape would mislead it."""

from __future__ import annotations

import comfy.model_detection
import torch
from torch import Tensor, nn

REASON = "ComfyUI tells the model by its shape"


class _ReadingDict(dict):
    """A state dict that remembers which entries were looked at."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default=None):
        return self[key] if key in self else default


def layers_read(network: nn.Module) -> dict[str, str]:
    """{layer name: why it is kept} for every layer whose weight's shape the host reads to tell what a model is.

    Observed rather than listed: the host's own detection runs over the network's shapes, so a family that comes
    tomorrow is covered.
    """
    # Not the state dict: of layers that are packed already it holds bytes and settings.
    keys = network.state_dict().keys()
    tensors = [*network.named_parameters(), *network.named_buffers()]
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors if name in keys}
    state = _ReadingDict(shapes)
    comfy.model_detection.model_config_from_unet(state, "")
    return {name.removesuffix(".weight"): REASON for name in state.read if name.endswith(".weight")}
