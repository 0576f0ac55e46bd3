"""The quantiser's backends with the host's layers: its own for its native layouts, ours under its weight protocol."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import comfy.ops
import torch
from comfy.quant_ops import QUANT_ALGOS
from torch import Tensor, nn

from ...qsched_core.choices import STOCK
from ...qsched_core.quant import AUTO, Backend, Format, Job, KitchenBackend, QuantoBackend, TorchBackend, resolve_format
from ...qsched_core.quant.backends.kitchen import HALF_OR_FLOAT, NATIVE, EagerAfterFailure, Layout
from ...qsched_core.quant.trial import failed_in_run
from .detection import layers_read
from .layers import QUANTO_TWINS, TWINS, patched_at_output

_MIXED = {"mixed_ops": True}
"""What the host's own detection says of a checkpoint with packed layers."""

_FLOAT_ACTIVATIONS = "ComfyUI unpacks a text encoder's weights for each product: activations stay floats."


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


def stock_text_job_for(patcher, format: str, group_size: int | None = None, **more) -> Job:
    """The same in the host's own layouts. Its loader unpacks them for each product: activations stay floats.

    Raises:
        QuantizationError: unknown names, or a format that this host has no layout for.
    """
    linears = NativeTextLinears(patcher)
    native = UnpackingKitchen(linears, QUANT_ALGOS.keys(), linears.dtype)
    backends = {native.name: native}
    job = Job.of(format, group_size, recipe=STOCK, device=patcher.load_device, backends=backends, **more)
    return replace(job, notes=[*job.notes, _FLOAT_ACTIVATIONS])


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
        self.dtype, self.device = model.model.get_dtype_inference(), model.load_device
        config = SimpleNamespace(quant_config=_MIXED)
        self._linear = _safe_linear(
            comfy.ops.pick_operations(
                model.model.get_dtype(), self.dtype, load_device=model.load_device, model_config=config
            )
        )

    def __call__(self, layer: nn.Linear, weight: Tensor, bias: Tensor | None, layout: Layout) -> nn.Module:
        params = weight._params
        settings = {"format": layout.algo, "convrot_groupsize": params.convrot_groupsize}
        settings |= {key: getattr(params, key) for key in ("group_size", "convrot") if hasattr(params, key)}
        values = {**weight.state_dict("weight"), "comfy_quant": as_bytes(settings)}
        if bias is not None:
            values["bias"] = bias
        return self.loaded(layer, values)

    def loaded(self, layer: nn.Linear, values: dict[str, Tensor]) -> nn.Module:
        """A layer from its part of a checkpoint, to take the place of the float ``layer``. Its kernels are tried where
        it will run: a file may be of a machine with others."""
        kind, dtype = self._kind_for(layer)
        twin = kind(
            layer.in_features, layer.out_features, bias="bias" in values, device=values["weight"].device, dtype=dtype
        )
        twin.load_state_dict(values)
        twin.eager_only = self._errs(twin)
        return twin

    def _kind_for(self, layer: nn.Linear) -> tuple[type[nn.Module], torch.dtype]:
        return self._linear, self.dtype

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


class NativeTextLinears(NativeLinears):
    """The same for a CLIP, whose loader multiplies unpacked weights with floats, in each encoder's own dtype."""

    def __init__(self, patcher):
        self.dtype, self.device = torch.float32, patcher.load_device
        self._kinds: dict[torch.dtype, type[nn.Module]] = {}

    def _kind_for(self, layer: nn.Linear) -> tuple[type[nn.Module], torch.dtype]:
        dtype = layer.weight.dtype if layer.weight.dtype in HALF_OR_FLOAT else torch.float16
        if dtype not in self._kinds:
            operations = comfy.ops.mixed_precision_ops(_MIXED, dtype, full_precision_mm=True)
            self._kinds[dtype] = _safe_linear(operations)
        return self._kinds[dtype], dtype

    def _errs(self, layer: nn.Module) -> bool:
        return False  # the kernels that it might try multiply packed weights


class UnpackingKitchen(KitchenBackend):
    """The host's layouts where its layers unpack them: the kernels that multiply are never called, nor tried."""

    def trial(self, form: Format, device: torch.device, size: int = 0) -> str:
        return ""

    def kernel(self, layer: nn.Module, form: Format, device: torch.device) -> str:
        return "unpacks"

    def fast(self, form: Format, device: torch.device) -> bool:
        return False


def _safe_linear(operations) -> type[nn.Module]:
    safe = type("Linear", (EagerAfterFailure, operations.Linear), {"__doc__": "The host's, and eager after a failure."})
    return patched_at_output(safe)


def as_bytes(settings: dict) -> Tensor:
    """JSON as the host keeps it in checkpoints."""
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)
