"""What becomes of a graph on the running server: the error that a user reads, or the latent that is saved."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from scripts.client import PromptFailed, PromptRefused


def error_of(server, graph: dict) -> str:
    """What the user reads when a graph is refused or fails."""
    with pytest.raises((PromptFailed, PromptRefused)) as caught:
        server.client.run(graph, timeout=120)
    return str(caught.value)


def latent(server, graph: dict) -> torch.Tensor:
    """What the graph's node ``out``, a Save Latent, has written."""
    (file,) = server.client.run(graph, timeout=120)["out"]["latents"]
    return load_file(server.folder("output") / file["subfolder"] / file["filename"])["latent_tensor"]
