"""Packed layers under the host's weight protocol: ours, and the host's own, with patches applied at their output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.ops
import torch
from comfy.model_patcher import LowVramPatch
from torch import Tensor, nn
from torch.nn import functional as F

from ...qsched_core.quant import (
    QuantizedConv2d,
    QuantizedConv3d,
    QuantizedLinear,
    QuantoConv2d,
    QuantoConv3d,
    QuantoLinear,
    convolve,
    step_bits,
)
from ...qsched_core.quant.backends.kitchen import W4A4
from .layer_patches import LayerPatches
from .packed_bytes import PackedBytes


class PatchedAtOutput:
    """A packed layer whose weight stays as it was packed, whatever patches there are.

    They come three ways. The host leaves ``LowVramPatch`` objects in ``weight_function`` and ``bias_function`` of a
    layer that it has not loaded. Our patcher sets ``loaded_patches`` where the host would merge them into a loaded
    one, and ``hook_patches`` while a hook holds. Other functions in the two lists map a float weight to another.
    """

    comfy_cast_weights = False  # as the host's own layers start: what has this name is one of them to it
    loaded_patches: LayerPatches | None = None
    hook_patches: LayerPatches | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight_function: list[Callable[[Tensor], Tensor]] = []
        self.bias_function: list[Callable[[Tensor], Tensor]] = []

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        if not (self.weight_function or self.bias_function or self.loaded_patches or self.hook_patches):
            return super().forward(x, *args, **kwargs)
        with self._functions_aside() as (weight_functions, bias_functions):
            out = super().forward(x, *args, **kwargs)
            patches = self._patches(weight_functions)
            if patches is not None:
                out = patches.added(self, x, out)
            return self._with_patched_bias(x, out, bias_functions)

    @contextmanager
    def _functions_aside(self) -> Iterator[tuple[list, list]]:
        """What computes the packed product must not see them: the host would unpack the weight for them."""
        functions = self.weight_function, self.bias_function
        self.weight_function, self.bias_function = [], []
        try:
            yield functions
        finally:
            self.weight_function, self.bias_function = functions

    def _patches(self, functions: list[Callable]) -> LayerPatches | None:
        late = [function for function in functions if isinstance(function, LowVramPatch)]
        wrappers = [one for one in functions if not isinstance(one, (LowVramPatch, PatchesOfWeight))]
        # A layer that the host has moved out again still has what it was loaded with.
        loaded = None if late else self.loaded_patches
        if not wrappers and not late and (loaded is None or self.hook_patches is None):
            return self.hook_patches if loaded is None else loaded
        patches = [patch for function in late for patch in function.patches[function.key]]
        keys = [function.key for function in late]
        for more in (loaded, self.hook_patches):
            if more is not None:
                patches += more.patches
                keys.append(more.key)
        return self.layer_patches(keys[0] if keys else "weight", patches, wrappers)

    def own_patches(self) -> LayerPatches | None:
        """Those that our patcher gave it; the host's own functions of the weight are left out."""
        return self._patches([])

    def layer_patches(self, key: str, patches: list[tuple], wrappers: list[Callable] = ()) -> LayerPatches:
        """The host's patches of our weight, ready to be applied."""
        return LayerPatches(key, patches, self.float_shape, wrappers, getattr(self, "groups", 1), self.norm_shift)

    def _with_patched_bias(self, x: Tensor, out: Tensor, functions: list[Callable]) -> Tensor:
        if self.bias is None or not functions:
            return out
        bias = self.bias.to(device=x.device, dtype=torch.float32)
        new_bias = bias.clone()
        for function in functions:
            new_bias = function(new_bias)
        return out + self.along_channels((new_bias - bias).to(x.dtype))

    def along_channels(self, bias: Tensor) -> Tensor:
        """(N,) as it is added to an output."""
        return bias

    @property
    def float_shape(self) -> tuple[int, ...]:
        """Of the weight that the codes stand for."""
        raise NotImplementedError

    def float_weight(self, device: torch.device) -> Tensor:
        """The weight that the codes stand for, float32 and on that device."""
        raise NotImplementedError

    def patched_weight(self, device: torch.device) -> Tensor:
        """The float weight that the layer acts with, patches in it, float32 and on that device."""
        weight, patches = self.float_weight(device), self._patches(self.weight_function)
        return weight if patches is None else patches.merged(weight)

    def float_product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The float layer with these values."""
        return F.linear(x, weight, None if bias is None else bias.to(x))

    def add_thin(self, x: Tensor, out: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """``out`` and what a weight up·down adds to it: up (N, R), down (R, K)."""
        hidden = F.linear(x, down).reshape(-1, len(down))
        return torch.addmm(out.reshape(-1, out.shape[-1]), hidden, up.t()).reshape(out.shape)


class HostLayer(PatchedAtOutput):
    """Our layers. ``convert_weight`` and ``set_weight`` are how other nodes read and replace a packed weight."""

    parameter = PackedBytes

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        if self.weight.device == x.device:
            return super().forward(x, *args, **kwargs)
        with self._brought_to(x.device, x.dtype):
            return super().forward(x, *args, **kwargs)

    @contextmanager
    def _brought_to(self, device: torch.device, bias_dtype: torch.dtype) -> Iterator[None]:
        """An offloaded layer's bytes and bias are on the device, by the host's own streams and pinned memory."""
        with self._functions_aside():  # the host would apply them to the bytes
            weight, bias, stream = comfy.ops.cast_bias_weight(
                self, dtype=self.weight.dtype, device=device, bias_dtype=bias_dtype, offloadable=True
            )
        own = dict(self._parameters)
        self._parameters.update({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
        try:
            yield
        finally:
            self._parameters.update(own)
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)

    def convert_weight(self, weight: Tensor, inplace: bool = False, **kwargs) -> Tensor:
        # The host may have cast the bytes to a float type on the way; 0 … 255 are exact in all of them.
        return self.unpacked(weight.to(torch.uint8))

    def set_weight(self, weight: Tensor, inplace_update=False, seed=None, return_weight=False, **kwargs):
        packed = self.packed(weight)
        if return_weight:
            return packed
        self.norm_shift = None  # of the weight that was here before
        if inplace_update:
            self.weight.data.copy_(packed)
        else:
            self.weight = self.parameter(packed, requires_grad=False)
        return None

    @property
    def float_shape(self) -> tuple[int, ...]:
        return self.shape

    def float_weight(self, device: torch.device) -> Tensor:
        return self.dequantized(torch.float32, device)


class _HostConvolution(HostLayer):
    def along_channels(self, bias: Tensor) -> Tensor:
        return bias.view(-1, *[1] * len(self.kernel_size))

    def float_product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.convolved(x, weight, bias)

    def add_thin(self, x: Tensor, out: Tensor, down: Tensor, up: Tensor) -> Tensor:
        return out + convolve(self.float_product(x, down, None), up.view(*up.shape, *[1] * len(self.kernel_size)))


class _HostConvolutionOverTime(_HostConvolution):
    """Over the host's own class, whose product knows how to leave out what is multiplied with zeros, and a fault of
    cuDNN's memory."""

    _autopad: str | None = None

    def forward(self, x: Tensor, *args, autopad: str | None = None, **kwargs) -> Tensor:
        if not torch.compiler.is_compiling():
            # A video is decoded for minutes in one call of the network, and the host listens in every such layer.
            comfy.model_management.throw_exception_if_processing_interrupted()
        self._autopad = autopad
        try:
            return super().forward(x, *args, **kwargs)
        finally:
            self._autopad = None

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        more = {} if self._autopad is None else {"autopad": self._autopad}
        return self._conv_forward(x, weight, None if bias is None else bias.to(x), **more)

    def float_values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.patched_weight(x.device).to(x.dtype), None if self.bias is None else self.bias.to(x)


class HostLinear(HostLayer, QuantizedLinear):
    """A packed Linear of the host."""


class HostConv2d(_HostConvolution, QuantizedConv2d):
    """A packed Conv2d of the host."""


class HostConv3d(_HostConvolutionOverTime, QuantizedConv3d, comfy.ops.disable_weight_init.Conv3d):
    """A packed Conv3d of the host."""


class HostQuantoLinear(HostLayer, QuantoLinear):
    """A Linear of the host with weights rounded by quanto."""


class HostQuantoConv2d(_HostConvolution, QuantoConv2d):
    """A Conv2d of the host with weights rounded by quanto."""


class HostQuantoConv3d(_HostConvolutionOverTime, QuantoConv3d, comfy.ops.disable_weight_init.Conv3d):
    """A Conv3d of the host with weights rounded by quanto."""


TWINS = {nn.Linear: HostLinear, nn.Conv2d: HostConv2d, nn.Conv3d: HostConv3d}
QUANTO_TWINS = {nn.Linear: HostQuantoLinear, nn.Conv2d: HostQuantoConv2d, nn.Conv3d: HostQuantoConv3d}


class PatchesOfWeight:
    """A function of a layer's weight, for code of the host that reads the weight by itself (``linear_input_act``).

    Such code never calls the layer, and would not see the patches that act at its output.
    """

    def __init__(self, layer: PatchedAtOutput):
        self.layer = layer

    def __call__(self, weight: Tensor) -> Tensor:
        patches = self.layer.own_patches()
        return weight if patches is None else patches.merged(weight.float()).to(weight.dtype)


def patched_at_output(linear: type[nn.Module]) -> type[nn.Module]:
    """The host's mixed-precision Linear, its own product and loader, with patches applied at the output."""

    class WideInSteps(linear):
        """Their kernel for 4-bit activations knows no others: a step that asks for more gets a float product."""

        def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
            if self.quant_format != W4A4.algo or step_bits(4) == 4:
                return super().forward(x, *args, **kwargs)
            return PatchedAtOutput.float_product(self, x, self.float_weight(x.device).to(x.dtype), self.bias)

    class NativeLinear(PatchedAtOutput, WideInSteps):
        """A Linear in one of the host's own layouts."""

        norm_shift: Tensor | None = None  # no buffer: the host's files have no place for it

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name in ("loaded_patches", "hook_patches"):
                others = [one for one in self.weight_function if not isinstance(one, PatchesOfWeight)]
                has_patches = self.loaded_patches is not None or self.hook_patches is not None
                self.weight_function = [PatchesOfWeight(self), *others] if has_patches else others

        @property
        def float_shape(self) -> tuple[int, ...]:
            return (self.out_features, self.in_features)

        def float_weight(self, device: torch.device) -> Tensor:
            return self.convert_weight(self.weight.data.to(device)).float()

    return NativeLinear
