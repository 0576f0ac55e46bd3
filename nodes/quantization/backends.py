"""The quantiser's backends with the host's layers: its own for its native layouts, ours under its weight protocol."""

from __future__ import annotations

import json
from types import SimpleNamespace

import comfy.ops
import torch
from comfy.quant_ops import QUANT_ALGOS
from torch import Tensor, nn

from ...qsched_core.quant import AUTO, Backend, Job, KitchenBackend, QuantoBackend, TorchBackend, resolve_format
from ...qsched_core.quant.backends.kitchen import NATIVE, EagerAfterFailure, Layout
from ...qsched_core.quant.trial import failed_in_run
from .detection import layers_read
from .layers import QUANTO_TWINS, TWINS, patched_at_output


def host_backends(model) -> dict[str, Backend]:
    """Backends by name, for layers of a MODEL."""
    linears = NativeLinears(model)
    native = KitchenBackend(linears, QUANT_ALGOS.keys(), linears.dtype)
    ours = (TorchBackend(TWINS, linears.dtype), QuantoBackend(QUANTO_TWINS))
    return {backend.name: backend for backend in (native, *ours)}


def job_for(
    model, format: str, group_size: int | None = None, backend: str = AUTO, recipe: str = "compact", **more
) -> Job:
    """What is asked for, for layers of a MODEL: they are packed where it will run. ``more`` are fields of Job, and
    ``symmetric``.

    Raises:
        QuantizationError: unknown names, or a backend that cannot do it on this host.
    """
    # What stock loaders shall read, they must recognise: packing four bits halves a weight's width.
    keep = layers_read(model.model.diffusion_model) if recipe == "stock" else None
    return Job.of(
        format,
        group_size,
        backend=backend,
        recipe=recipe,
        device=model.load_device,
        backends=host_backends(model),
        keep=keep,
        **more,
    )


def text_job_for(patcher, format: str, group_size: int | None = None, **more) -> Job:
    """What is asked for, for layers of a CLIP, given its patcher. Our own packing alone: an encoder runs once for each
    prompt, in float32, which the host's kernels do not take on every device.

    Raises:
        QuantizationError: unknown names.
    """
    return own_job_for(patcher, format, group_size, torch.float32, **more)


def own_job_for(patcher, format: str, group_size: int | None = None, dtype: torch.dtype = torch.float32, **more) -> Job:
    """What is asked for of our own packing, for a patcher of any kind; ``dtype`` is what its layers compute in.

    Raises:
        QuantizationError: unknown names.
    """
    ours = TorchBackend(TWINS, dtype)
    return Job.of(format, group_size, backend=ours.name, device=patcher.load_device, backends={ours.name: ours}, **more)


class NativeLinears:
    """Makes the host's mixed-precision Linear layers as its loader would, computing in the MODEL's dtype."""

    def __init__(self, model):
        config = SimpleNamespace(quant_config={"mixed_ops": True})
        self.dtype, self.device = model.model.get_dtype_inference(), model.load_device
        linear = comfy.ops.pick_operations(
            model.model.get_dtype(), self.dtype, load_device=model.load_device, model_config=config
        ).Linear
        safe = type("Linear", (EagerAfterFailure, linear), {"__doc__": "The host's, and eager after a failure."})
        self.linear = patched_at_output(safe)

    def __call__(self, layer: nn.Linear, weight: Tensor, bias: Tensor | None, layout: Layout) -> nn.Module:
        params = weight._params
        settings = {"format": layout.algo, "convrot_groupsize": params.convrot_groupsize}
        settings |= {key: getattr(params, key) for key in ("group_size", "convrot") if hasattr(params, key)}
        values = {**weight.state_dict("weight"), "comfy_quant": as_bytes(settings)}
        if bias is not None:
            values["bias"] = bias
        return self.loaded(layer.in_features, layer.out_features, values)

    def loaded(self, inputs: int, outputs: int, values: dict[str, Tensor]) -> nn.Module:
        """A layer from its part of a checkpoint. Its kernels are tried where it will run: a file may be of a machine
        with others."""
        device = values["weight"].device
        layer = self.linear(inputs, outputs, bias="bias" in values, device=device, dtype=self.dtype)
        layer.load_state_dict(values)
        layer.eager_only = self._errs(layer)
        return layer

    def _errs(self, layer: nn.Module) -> bool:
        name, params = NATIVE.get(layer.quant_format), layer.weight.data._params
        size = getattr(params, "convrot_groupsize", 0)
        if name is None or not size:
            return False
        form = resolve_format(name, getattr(params, "group_size", 0))
        reason = KitchenBackend(dtype=self.dtype).trial(form, self.device, size)
        if reason:
            failed_in_run(f"comfy-kitchen's kernel on {self.device.type}", RuntimeError(reason))
        return bool(reason)


def as_bytes(settings: dict) -> Tensor:
    """JSON as the host keeps it in checkpoints."""
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)
