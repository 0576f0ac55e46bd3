"""What quantising did, layer by layer, and what the whole model weighs now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..precision import LAST_STEP_BITS, Precision
from .correction import Correction
from .fitting import Fit
from .inspection import floats_as_half

FLOAT_BYTES = 2
"""Models are compared as the FP16 or BF16 files that people load, whatever a CPU holds them in."""


@dataclass(frozen=True)
class LayerReport:
    """One layer, its weight's ``shape`` (N, K) or (N, C, …). ``reason`` is empty when it was quantised; ``error``
    is the relative L2 error of its weight; ``note`` says why a better backend did not take it; ``fit`` what its output
    lost, where rounding was fitted to inputs."""

    name: str
    shape: tuple[int, ...]
    reason: str
    bytes_before: int
    bytes_after: int
    error: float
    format: str = ""
    backend: str = ""
    kernel: str = ""
    note: str = ""
    fit: Fit | None = None


@dataclass(frozen=True)
class QuantReport:
    """All layers, and bytes of the whole module with floats counted as 2 bytes. ``notes``: why not other backends.
    ``source`` is how it was quantised before, "none" if it was not. ``last_steps`` of a picture run with 8-bit
    activations. ``correction`` is that of the layers' means, where rounding was fitted."""

    layers: tuple[LayerReport, ...]
    bytes_before: int
    bytes_after: int
    notes: tuple[str, ...] = ()
    source: str = "none"
    last_steps: int = 0
    correction: Correction | None = None

    def precision(self, sigmas: Sequence[float]) -> Precision | None:
        """The bits of each step of a schedule (n + 1,) that ends at 0; None: the formats' own in all of them."""
        return Precision.last_steps(tuple(map(float, sigmas)), self.last_steps) if self.last_steps else None

    @property
    def quantized(self) -> tuple[LayerReport, ...]:
        return tuple(layer for layer in self.layers if not layer.reason)

    @property
    def is_fitted(self) -> bool:
        """Whether any layer was rounded to what it sees."""
        return any(layer.fit is not None and layer.fit.better for layer in self.quantized)

    @property
    def format(self) -> str:
        """The formats of the quantised layers, most frequent first."""
        return " + ".join(name for name, _ in Counter(layer.format for layer in self.quantized).most_common())

    def text(self) -> str:
        """A short account for a person: totals first, then why layers were kept."""
        done = self.quantized
        mean = sum(layer.error for layer in done) / max(1, len(done))
        arrow = " at FP16 -> " if self.source == "none" else f" in {self.source} -> "
        lines = [
            f"{_counts(self.layers)} quantised.",
            f"Model {size_text(self.bytes_before)}{arrow}{size_text(self.bytes_after)}"
            f" ({self.bytes_after / max(1, self.bytes_before):.2f}x). Mean relative weight error {mean:.3f}.",
        ]
        if done and self.source != "none":
            lines.append("Errors are those against the weights that the file held; what it lost before is not in them.")
        groups = Counter((layer.format, layer.backend, layer.kernel, _kind(layer), layer.note) for layer in done)
        for (form, backend, kernel, kind, note), count in groups.most_common():
            why = f"; {note}" if note else ""
            lines.append(f"{count} {kind}{'s' * (count > 1)}: {form}, {backend} ({kernel}){why}.")
        lines += self._fits()
        lines += self._last_steps()
        lines += self.notes
        if any(len(layer.shape) > 2 for layer in done):
            lines.append("Convolutions round their weights only, activations stay in floating point.")
        reasons = Counter(layer.reason for layer in self.layers if layer.reason)
        lines += [f"Kept {count}: {reason}." for reason, count in reasons.most_common()]
        worst = max(done, key=lambda layer: layer.error, default=None)
        if worst is not None:
            lines.append(f"Largest error {worst.error:.3f}: {worst.name} ({'x'.join(map(str, worst.shape))}).")
        return "\n".join(lines)

    def _last_steps(self) -> list[str]:
        """What the last steps of a picture run with."""
        if not self.last_steps:
            return []
        linear = [layer for layer in self.quantized if len(layer.shape) == 2]
        narrow = [layer for layer in linear if _activation_bits(layer) < LAST_STEP_BITS]
        steps = "step" if self.last_steps == 1 else f"{self.last_steps} steps"
        if not narrow:
            return [f"The last {steps}: as the others, no activation has fewer than 8 bits."]
        lines = [f"The last {steps}: {LAST_STEP_BITS}-bit activations in {len(narrow)} layers, from the same weights."]
        native = sum(layer.backend == "kitchen" for layer in narrow)
        if native:
            lines.append(f"{native} of them are ComfyUI's own layers, whose kernel has 4-bit activations alone: there "
                         "the weight is unpacked for a float product.")  # fmt: skip
        return lines

    def _fits(self) -> list[str]:
        """What fitting the rounding gave, on inputs that nothing was fitted to."""
        fits = [layer.fit for layer in self.quantized if layer.fit is not None]
        if not fits:
            return []
        better = [fit for fit in fits if fit.better]
        lines = [f"Rounding fitted to what the layers see in {len(better)} of {len(fits)} layers."]
        if better:
            before, after = (sum(getattr(fit, name) for fit in better) / len(better) for name in ("nearest", "fitted"))
            lines[0] += f" Mean relative output error on other inputs: nearest {before:.4f}, fitted {after:.4f}."
        why = Counter(fit.note for fit in fits if not fit.better)
        lines += [f"Rounded to nearest {count}: {note}." for note, count in why.most_common()]
        return lines + self._means()

    def _means(self) -> list[str]:
        """What correcting the layers' means gave, on calls that nothing was learned from."""
        correction = self.correction
        if correction is None:
            return []
        errors = "" if correction.before is None else f" Error of the network's output: {correction.before:.4f}"
        if not correction.values:
            than = f"{errors}, corrected {correction.after:.4f}." if errors else ""
            return [f"Means of outputs are not corrected: {correction.note}.{than}"]
        return [
            f"Means of outputs corrected in {len(correction.values)} layers.{errors}, corrected {correction.after:.4f}."
        ]


def _activation_bits(layer: LayerReport) -> int:
    return int(layer.format.partition("/")[0].rpartition("a")[2])


LINEAR, CONVOLUTION = "Linear layer", "convolution"


def _kind(layer: LayerReport) -> str:
    return LINEAR if len(layer.shape) == 2 else CONVOLUTION


def _counts(layers: Sequence[LayerReport]) -> str:
    """ "24 of 30 Linear layers and 12 of 15 convolutions", the latter only where there are some."""
    words = []
    for kind in (LINEAR, CONVOLUTION):
        alike = [layer for layer in layers if _kind(layer) == kind]
        if alike or kind == LINEAR:
            words.append(f"{sum(not layer.reason for layer in alike)} of {len(alike)} {kind}s")
    return " and ".join(words)


def module_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, floats counted as FP16, a shared tensor once."""
    ids: set[int] = set()
    total = 0
    for tensor in [*module.parameters(), *module.buffers()]:
        if id(tensor) not in ids:
            ids.add(id(tensor))
            total += floats_as_half(tensor)
    return total


def size_text(count: int) -> str:
    """Bytes as people read them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count / 1e3:.1f} kB"
