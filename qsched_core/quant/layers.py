"""Layers that keep their weight packed, in plain torch: they run wherever torch runs."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..step_bits import step_bits
from . import decoding, products, rotation, tokens
from .branch import LowRank
from .decoding import decode
from .formats import Format
from .packing import codes, pack, scales, unpack
from .products import int8_product, pays
from .rotation import input_gain, rotate, rotate_input, rotate_weight, rotation_of
from .tokens import rounded_tokens, token_codes

_OUTPUTS_AT_ONCE = 5 * 2**22
"""Outputs of the integer product at once: its sums take 84 MB then, in place of 370 for FLUX's widest layer, whose
unpacked weight would take 132."""

_LEAST_PART = 64
"""Output channels at once however many tokens there are."""

FIRST_TOKEN = ("first_token", "first_residual")
"""Buffers of a Linear with a constant first token: (K,) and (N,)."""

INPUT_SCALE = "input_scale"
"""Buffer of a layer whose inputs are divided by it: (K,)."""


NORM_SHIFT = "norm_shift"
"""How much longer the rows of a layer's float weight were, relative to what the bytes stand for: float16 (N,). It is in
files, but no buffer: it takes no part in a call, and stays out of a device's memory."""

_LEAST_NORM_SHIFT = 1e-3
"""Mean size of a shift that is kept: rows of 4 bits are 0.4 % too short and vary by 0.5 %, of 8 bits by 0.05 %. A DoRA
rescales rows by about 1 %."""


class QuantizedLayer(nn.Module):
    """A layer whose float weight, ``shape`` (N, …), lies in memory as ``weight`` uint8 (N, row bytes).

    All but the output channel is one row: an output's scales are its own, and its groups run along what is summed.

    A call has three parts, and each has one place for what others add:

    1. ``transformed(x)``: the input divided by ``input_scale``, if there is one, and rotated.
    2. ``product(inputs)``: rounded to at least ``activation_bits``, times the packed weight, plus the bias.
    3. ``finished(x, out)``: plus ``low_rank``, if there is one.

    ``input_scale`` (K,) or (C,) is a buffer: the packed weight is the float one with its inputs' columns multiplied by
    it. ``activation_bits`` is the format's; a run may ask for more in some of its steps (``least_activation_bits``).
    ``low_rank`` is a part of the weight that is not rounded: ``dequantized`` has it in it. ``norm_shift`` is
    for patches that rescale a weight by its norm: they need the norm that it had.
    """

    pack = staticmethod(pack)
    """What rounds a float weight (N, K): ours, or a library's into the same bytes."""

    parameter = nn.Parameter
    """What the bytes are kept in."""

    def __init__(self, packed: Tensor, bias: Tensor | None, shape: tuple[int, ...], form: Format):
        nn.Module.__init__(self)  # not super(): behind ours there may be a convolution's class, with its own arguments
        self.shape, self.format = tuple(shape), form
        self.activation_bits = form.activation_bits
        self.weight = self.parameter(packed, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer(INPUT_SCALE, None)
        self.norm_shift: Tensor | None = None
        self.low_rank: LowRank | None = None

    @classmethod
    def like(cls, layer: nn.Module, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLayer:
        """The twin of a float ``layer``, with these values."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.finished(x, self.product(self.transformed(x)))

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        if type(self.weight) is not self.parameter:  # between some devices torch makes a new one, of its own kind
            self._parameters["weight"] = self.parameter(self.weight.detach(), requires_grad=False)
        prepare(self.weight.device)
        return self

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with a float weight in place of its own; activations are rounded all the same."""
        raise NotImplementedError

    def transformed(self, x: Tensor) -> Tensor:
        """What the packed weight is multiplied with in place of the layer's input ``x``."""
        return x if self.input_scale is None else x / self._input_scale_like(x)

    def product(self, inputs: Tensor) -> Tensor:
        """The packed weight's part of the output, and the bias, of transformed inputs."""
        raise NotImplementedError

    def finished(self, x: Tensor, out: Tensor) -> Tensor:
        """The output of the layer's own input ``x``, given the packed weight's part of it."""
        return out if self.low_rank is None else self.low_rank(x, out)

    def dequantized(self, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """The weight that the layer computes with, in its own shape."""
        return self.unpacked(self.weight.to(device or self.weight.device), dtype)

    def packed(self, weight: Tensor) -> Tensor:
        """The bytes of another float weight (N, …) in our format. ``low_rank`` stays, and the bytes hold the rest."""
        return self.pack(self.packable(weight), self.format)

    def packable(self, weight: Tensor) -> Tensor:
        """What is rounded of a float weight (N, …): float32 (N, K), as it meets transformed inputs."""
        if self.low_rank is not None:
            weight = weight.float() - self.low_rank.weight().to(weight.device).reshape(self.shape)
        if self.input_scale is not None:
            weight = weight.float() * self._input_scale_like(weight, torch.float32)
        return self._turned(weight.float()).flatten(1)

    def unpacked(self, packed: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The float weight of bytes packed like ours, ``low_rank`` in it."""
        weight = self._turned_back(unpack(packed, prod(self.shape[1:]), self.format, dtype)).reshape(self.shape)
        if self.input_scale is not None:
            weight = weight / self._input_scale_like(weight)
        if self.low_rank is not None:
            weight = weight + self.low_rank.weight().to(weight).reshape(self.shape)
        return weight

    def _turned(self, weight: Tensor) -> Tensor:
        return weight

    def _turned_back(self, weight: Tensor) -> Tensor:
        return weight

    def _input_scale_like(self, values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """``input_scale`` to be broadcast over inputs, or over a weight (N, …)."""
        return self.input_scale.to(values.device, dtype or values.dtype)


class QuantizedLinear(QuantizedLayer):
    """``y = x·W^T + b`` with W as packed integers and x rounded to integers per token.

    Both are rotated before they are rounded, where a rotation fits the width. The products are summed in x's dtype:
    codes are exact in every float type the host uses, so this is the integer product, without needing a kernel for it.
    Where torch has a kernel that pays, and a weight's scale is its channel's own, the weight is not unpacked at all.
    """

    rotates = True

    def __init__(self, packed: Tensor, bias: Tensor | None, in_features: int, form: Format):
        super().__init__(packed, bias, (packed.shape[0], in_features), form)
        self.in_features, self.out_features = in_features, packed.shape[0]
        self.rotation = rotation_of(in_features) if self.rotates else 0
        for name in FIRST_TOKEN:
            self.register_buffer(name, None)

    @classmethod
    def from_float(cls, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLinear:
        size = rotation_of(weight.shape[1]) if cls.rotates else 0
        return cls(cls.pack(rotate_weight(weight.float(), size), form), bias, weight.shape[1], form)

    @classmethod
    def like(cls, layer: nn.Linear, weight: Tensor, bias: Tensor | None, form: Format) -> QuantizedLinear:
        return cls.from_float(weight, bias, form)

    def transformed(self, x: Tensor) -> Tensor:
        return rotate_input(super().transformed(x), self.rotation)

    def product(self, inputs: Tensor) -> Tensor:
        integers = multiplies_integers(self.format, inputs.device) and step_bits(self.activation_bits) == 8
        if integers and not torch.compiler.is_compiling() and products.usable(inputs.device):
            out = self._integer_product(inputs)
            if out is not None:
                return out
        gain = input_gain(self.rotation, inputs.dtype)
        packed = self.weight.to(inputs.device)
        return self._float_product(inputs, decode(packed, self.in_features, self.format, inputs.dtype, gain))

    def finished(self, x: Tensor, out: Tensor) -> Tensor:
        return super().finished(x, self._with_first_row(x, out))

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.input_scale is not None:
            weight = weight * self._input_scale_like(weight)
        turned = rotate_weight(weight, self.rotation) * input_gain(self.rotation, x.dtype)
        out = self._float_product(self.transformed(x), turned)
        return self._with_first_row(x, out)

    def _turned(self, weight: Tensor) -> Tensor:
        return rotate_weight(weight.float(), self.rotation)

    def _turned_back(self, weight: Tensor) -> Tensor:
        return rotate(weight, self.rotation)

    def _integer_product(self, x: Tensor) -> Tensor | None:
        """In parts of the output channels: sums are int32, four bytes for one of the output."""
        packed = self.weight.to(x.device)
        codes_of_tokens, largest = token_codes(x)
        out = x.new_empty(len(largest), self.out_features)
        gain = input_gain(self.rotation, x.dtype) / 127
        bias = largest.new_zeros(self.out_features) if self.bias is None else self.bias.to(x.device)
        channels = scales(packed, self.in_features, self.format).to(largest).t()
        rows = max(_LEAST_PART, _OUTPUTS_AT_ONCE // max(1, len(largest)) // 8 * 8)
        for start in range(0, self.out_features, rows):
            part = slice(start, start + rows)
            sums = int8_product(codes_of_tokens, codes(packed[part], self.in_features, self.format))
            if sums is None:
                return None
            # Where the output will lie. float16 holds neither the sums nor, of a small weight and a small token, the
            # product of the scales: there it is where the sums lie, which are not needed any more.
            there = sums.view(largest.dtype) if out.dtype == torch.float16 else out[:, part]
            scaled = torch.mul(sums, channels[:, part], out=there)
            torch.addcmul(bias[part], scaled, largest, value=gain, out=out[:, part])
            del there, sums, scaled  # else they lie beside those of the next part
        return out.view(*x.shape[:-1], -1)

    def _float_product(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x)
        return F.linear(rounded_tokens(x, step_bits(self.activation_bits), self._transforms), weight, bias)

    @property
    def _transforms(self) -> bool:
        """Whether transformed inputs are a tensor of our own, which nobody else reads."""
        return bool(self.rotation) or self.input_scale is not None

    def keep_first_token(self, token: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """From now on inputs (B, T, K) whose first token is ``token`` (K,) get the float layer's output there.

        What is kept is the token and the error of its row (N,), so that whatever else is added to the layer stays.
        """
        self.first_token = self.first_residual = None
        wide = token.detach().to(self.weight.device, torch.float32)
        bias = None if bias is None else bias.to(wide)
        residual = F.linear(wide, weight.to(wide), bias) - self.apply_weight(wide[None], self.dequantized())[0]
        self.first_token = token.detach().to(self.weight.device, copy=True)
        self.first_residual = residual.to(token.dtype)

    def _with_first_row(self, x: Tensor, out: Tensor) -> Tensor:
        if self.first_token is None or x.ndim < 3:
            return out
        there = same_token(x[..., 0, :], self.first_token).unsqueeze(-1)
        row = out[..., :1, :] + torch.where(there, self.first_residual.to(out), 0.0).unsqueeze(-2)
        return torch.cat([row, out[..., 1:, :]], dim=-2)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.format}"


def multiplies_integers(form: Format, device: torch.device) -> bool:
    """Whether a Linear in this format is multiplied without unpacking: its scales are the channels' own, and torch has
    a product of integers on the device that pays."""
    whole = form.symmetric and form.weight_bits in (4, 8) and form.activation_bits == 8 and not form.group_size
    return whole and pays(device)


def same_token(x: Tensor, token: Tensor) -> Tensor:
    """Which of the vectors ``x`` (…, K) are ``token`` (K,): bool (…). Their distance may be the square root of what the
    coarser of the two types resolves: encoders do not give the same bits in every batch, other tokens are far off."""
    tolerance = max(torch.finfo(x.dtype).eps, torch.finfo(token.dtype).eps) ** 0.5
    token = token.to(x.device, torch.float32)
    return (x.float() - token).norm(dim=-1) <= tolerance * token.norm()


def norm_shift(weight: Tensor, packed: Tensor) -> Tensor | None:
    """``NORM_SHIFT`` of a float ``weight`` (N, …) and what its bytes stand for, float16; None where it is too small to
    matter. Rounding with the least squared error makes a row shorter: by 0.4 % at 4 bits."""
    lengths, ours = (value.flatten(1).float().norm(dim=1) for value in (weight, packed))
    shift = torch.where(ours > 0, lengths / ours - 1, 0.0).clamp(-0.5, 0.5)
    return shift.half().cpu() if shift.abs().mean() >= _LEAST_NORM_SHIFT else None


def prepare(device: torch.device) -> None:
    """Make what outlives a call, for layers that will compute on ``device``: when they are packed, loaded or moved, and
    not inside a block whose allocations a host replays."""
    if device.type == "meta" or device in _prepared:
        return
    _prepared.add(device)
    rotation.prepare(device)
    decoding.prepare(device)
    tokens.prepare(device)
    products.prepare(device)


_prepared: set[torch.device] = set()
