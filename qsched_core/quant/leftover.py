"""What no packed form exists for: experts of a mixture, embeddings and other weights that are no matrix of a layer."""

from __future__ import annotations

from torch import nn

from .inspection import floats_as_half
from .report import module_bytes
from .select import candidates

LEAST_SHARE = 0.01
"""Of the model's bytes: norms and biases are below it in every network, an embedding or a bank of experts above."""


def unpackable(module: nn.Module, recipe: str = "compact") -> list[str]:
    """A line for each kind of module whose own weights no recipe packs, with its share of the bytes, floats as FP16."""
    layers = {id(layer) for _, layer in candidates(module, recipe)}
    groups: dict[tuple[str, int], list[int]] = {}
    for owner in module.modules():
        weights = [weight for weight in owner._parameters.values() if weight is not None]
        if id(owner) in layers or not weights:
            continue
        largest = max(weights, key=lambda weight: weight.numel())
        sizes = groups.setdefault((type(owner).__name__, largest.ndim), [])
        sizes.append(sum(floats_as_half(weight) for weight in weights))
    whole = max(1, module_bytes(module))
    shares = {kind: (len(sizes), sum(sizes) / whole) for kind, sizes in groups.items()}
    return [
        f"Not packed, no layer of a known kind: {count} {name}{f' with {axes}-D weights' if axes > 2 else ''}, "
        f"{share:.0%} of the bytes."
        for (name, axes), (count, share) in sorted(shares.items(), key=lambda item: -item[1][1])
        if share >= LEAST_SHARE
    ]
