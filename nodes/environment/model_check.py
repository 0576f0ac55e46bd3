"""What packing does to a small model on this machine: a LoRA's effect, partial loading, time and memory of a step.

The environment check prints it in a few seconds, and ``benchmarks.gpu`` in full.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import comfy.model_management
import comfy.sd
import torch
from torch import Tensor, nn

from ...qsched_core import QuantizationError
from ..quantization.backends import job_for
from ..quantization.twin_model import quantized_twin

WAYS = (("w4a8", "torch"), ("w4a8", "kitchen"), ("w8a8", "kitchen"), ("w4a16", "torch"))
"""(format, backend), what most people use first."""

LORA_RANK = 16
"""As most LoRAs have."""

_CALLS = 3
"""Of which the quickest is the time of a step."""


@dataclass(frozen=True)
class Effect:
    """Of a LoRA's effect on a float model's output, how much is there on the packed one's, and its cosine."""

    part: float
    cosine: float


class SmallModel:
    """A FLUX MODEL and one input of its network: latents, ``text`` (1, T, D) and ``pooled`` (1, P)."""

    def __init__(self, model, text: Tensor | None = None, pooled: Tensor | None = None, batch: int = 4):
        generator = torch.Generator().manual_seed(0)
        network, self.model, self.batch = model.model.diffusion_model, model, batch
        if text is None:
            text = torch.randn(1, 16, network.txt_in.in_features, generator=generator)
        if pooled is None:
            pooled = torch.randn(1, network.vector_in.in_layer.in_features, generator=generator)
        self.text, self.pooled = text, pooled
        channels = model.get_model_object("latent_format").latent_channels
        self.x = torch.randn(batch, channels, 8, 8, generator=generator)

    def output(self, patcher, load: bool = True) -> Tensor:
        """The network's, float32 on the CPU."""
        if load:
            comfy.model_management.load_models_gpu([patcher])
        return self._call(patcher).float().cpu()

    def _call(self, patcher) -> Tensor:
        place = patcher.load_device
        options = {"c_crossattn": self.text.expand(self.batch, -1, -1).to(place)}
        vector = patcher.model.encode_adm(pooled_output=self.pooled, width=64, height=64, device=place)
        if vector is not None:
            options["y"] = vector.expand(self.batch, -1).to(place)
        return patcher.model.apply_model(self.x.to(place), torch.full((self.batch,), 0.5, device=place), **options)

    def twin(self, format: str, backend: str):
        """The model, packed. Raises QuantizationError where this machine or host cannot."""
        return quantized_twin(self.model, job_for(self.model, format, None, backend))[0]

    def twins(self) -> Iterator[tuple[str, str, object]]:
        """(format, backend, packed MODEL) of each of ``WAYS`` that this machine and host have."""
        for name, backend in WAYS:
            try:
                yield name, backend, self.twin(name, backend)
            except QuantizationError as error:
                print(f"not here: {name} by {backend}, {error}")

    def with_lora(self, patcher, size: float):
        """A LoRA whose product has ``size`` times the norm of each layer's weight."""
        generator, values = torch.Generator().manual_seed(3), {}
        for name, layer in self.model.model.diffusion_model.named_modules():
            if isinstance(layer, nn.Linear) and "_blocks" in name:
                rows, columns = layer.weight.shape
                shapes = (rows, LORA_RANK), (LORA_RANK, columns)
                up, down = (torch.randn(shape, generator=generator) for shape in shapes)
                key = f"diffusion_model.{name}"
                values[f"{key}.lora_up.weight"] = up * (size * layer.weight.float().norm().cpu() / (up @ down).norm())
                values |= {f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(float(LORA_RANK))}
        return comfy.sd.load_lora_for_models(patcher, None, values, 1.0, 0.0)[0]

    def with_weights_of(self, twin):
        """The float MODEL with the rounded weights of its packed ``twin``. Layers behind a LoRA pass its effect on by
        their weights: beside this one, all that differs is how the LoRA itself acts, and the rounding of activations.
        """
        patcher, cpu = self.model.clone(), torch.device("cpu")
        layers = ((n, layer) for n, layer in twin.model.named_modules() if hasattr(layer, "float_weight"))
        patcher.add_patches({f"{name}.weight": ("set", (layer.float_weight(cpu),)) for name, layer in layers})
        return patcher

    def lora_change(self, patcher, size: float) -> Tensor:
        """What a LoRA does to the output."""
        return self.output(self.with_lora(patcher, size)) - self.output(patcher)

    def partly_loaded(self, patcher, share: float) -> Tensor:
        """The output with that share of the model in the device's memory, 0: nothing."""
        patcher.detach()  # not all models: a user's own may lie in the memory
        patcher.model_patches_to(patcher.load_device)
        patcher.patch_model(patcher.load_device, lowvram_model_memory=max(1, int(share * patcher.model_size())))
        try:
            return self.output(patcher, load=False)
        finally:
            patcher.unpatch_model(patcher.offload_device)

    def step_seconds(self, patcher) -> float:
        comfy.model_management.load_models_gpu([patcher])
        times = []
        for _ in range(_CALLS):
            start = time.perf_counter()
            self._call(patcher).float().cpu()  # waits for the device
            times.append(time.perf_counter() - start)
        return min(times)


def effect_of(change: Tensor, exact: Tensor) -> Effect:
    along, norm = (change * exact).sum(), exact.norm()
    return Effect((along / norm**2).item(), (along / (norm * change.norm()).clamp(min=1e-20)).item())


def difference(output: Tensor, other: Tensor) -> float:
    return ((output - other).norm() / other.norm()).item()
