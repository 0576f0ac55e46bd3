"""LoRAs and their kin with random values, of a given size beside the weight: for tests and benchmarks in a host."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

ADAPTERS = ("lora", "dora", "loha", "lokr", "oft", "boft", "glora", "diff")
RANK, BLOCK = 8, 8


def patch_of(kind: str, weight: Tensor, size: float, seed: int = 0):
    """A patch value of the host for a float ``weight`` (N, …) whose norm changes it by ``size`` times its own."""
    scale = 1.0
    for _ in range(3):  # the change is nearly linear in the scale
        value = _patch(kind, weight, scale, torch.Generator().manual_seed(seed))
        change = (patched(weight, value) - weight.float()).norm() / weight.float().norm()
        scale *= size / change.item()
    return _patch(kind, weight, scale, torch.Generator().manual_seed(seed))


def patched(weight: Tensor, value) -> Tensor:
    """The float weight as the host patches it."""
    import comfy.lora

    return comfy.lora.calculate_weight([(1.0, value, 1.0, None, None)], weight.float().clone(), "weight")


def _patch(kind: str, weight: Tensor, scale: float, generator: torch.Generator):
    import comfy.weight_adapter as adapters

    rows, columns = weight.shape[0], prod(weight.shape[1:])

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    if kind == "diff":
        return ("diff", (scale * random(*weight.shape),))
    if kind in ("lora", "dora"):
        norms = weight.float().flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
        dora = norms * (1 + 0.01 * scale * random(*norms.shape)) if kind == "dora" else None
        up, down = 0.01 * scale * random(rows, RANK), random(RANK, columns)
        return adapters.LoRAAdapter(set(), (up, down, float(RANK), None, dora, None))
    if kind == "loha":
        pairs = [scale * random(rows, RANK), random(RANK, columns), random(rows, RANK), random(RANK, columns)]
        return adapters.LoHaAdapter(set(), (*pairs[:2], float(RANK), *pairs[2:], None, None, None))
    if kind == "lokr":
        small, large = scale * random(4, 4), random(rows // 4, weight.shape[1] // 4, *weight.shape[2:])
        return adapters.LoKrAdapter(set(), (small, large, None, None, None, None, None, None, None))
    if kind == "oft":
        return adapters.OFTAdapter(set(), (0.01 * scale * random(rows // BLOCK, BLOCK, BLOCK), None, None, None))
    if kind == "boft":
        return adapters.BOFTAdapter(set(), (0.01 * scale * random(2, rows // BLOCK, BLOCK, BLOCK), None, 0.0, None))
    if kind == "glora":
        wide = weight.shape[1]
        parts = (0.1 * scale * random(wide, RANK), 0.1 * random(RANK, wide))
        return adapters.GLoRAAdapter(
            set(), (*parts, 0.01 * scale * random(rows, RANK), random(RANK, columns), float(RANK), None)
        )
    raise ValueError(kind)
