"""What quantising did, layer by layer, and what the whole model weighs now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import nn

FLOAT_BYTES = 2
"""Models are compared as the FP16 or BF16 files that people load, whatever a CPU holds them in."""


@dataclass(frozen=True)
class LayerReport:
    """One layer, its weight's ``shape`` (N, K) or (N, C, kh, kw). ``reason`` is empty when it was quantised; ``error``
    is the relative L2 error of its weight."""

    name: str
    shape: tuple[int, ...]
    reason: str
    bytes_before: int
    bytes_after: int
    error: float


@dataclass(frozen=True)
class QuantReport:
    """All layers, and bytes of the whole module with floats counted as 2 bytes."""

    format: str
    backend: str
    layers: tuple[LayerReport, ...]
    bytes_before: int
    bytes_after: int

    @property
    def quantized(self) -> tuple[LayerReport, ...]:
        return tuple(layer for layer in self.layers if not layer.reason)

    def text(self) -> str:
        """A short account for a person: totals first, then why layers were kept."""
        done = self.quantized
        mean = sum(layer.error for layer in done) / max(1, len(done))
        lines = [
            f"{self.format}, backend {self.backend}: {self._counts()} quantised.",
            f"Model {_size(self.bytes_before)} at FP16 -> {_size(self.bytes_after)}"
            f" ({self.bytes_after / max(1, self.bytes_before):.2f}x). Mean relative weight error {mean:.3f}.",
        ]
        if any(len(layer.shape) == 4 for layer in done):
            lines.append("Convolutions round their weights only, activations stay in floating point.")
        kept = Counter(layer.reason for layer in self.layers if layer.reason)
        lines += [f"Kept {count}: {reason}." for reason, count in kept.most_common()]
        worst = max(done, key=lambda layer: layer.error, default=None)
        if worst is not None:
            lines.append(f"Largest error {worst.error:.3f}: {worst.name} ({'x'.join(map(str, worst.shape))}).")
        return "\n".join(lines)

    def _counts(self) -> str:
        """ "24 of 30 Linear layers and 12 of 15 convolutions", the latter only where there are some."""
        words = []
        for rank, name in ((2, "Linear layers"), (4, "convolutions")):
            alike = [layer for layer in self.layers if len(layer.shape) == rank]
            if alike or rank == 2:
                words.append(f"{sum(not layer.reason for layer in alike)} of {len(alike)} {name}")
        return " and ".join(words)


def module_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, floats counted as FP16, a shared tensor once."""
    seen: set[int] = set()
    total = 0
    for tensor in [*module.parameters(), *module.buffers()]:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            total += tensor.numel() * (FLOAT_BYTES if tensor.is_floating_point() else tensor.element_size())
    return total


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count / 1e3:.1f} kB"
