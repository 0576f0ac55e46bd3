"""What a network's layers see while it runs: rows of their inputs, constant first tokens, and whole calls to repeat."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from .convolutions import CONVOLUTIONS
from .layers import same_token

FIT_ROWS = 4096
"""Input rows that rounding is fitted to: more change nothing (measured on four trained nets), and a layer of
1280 inputs takes 10 MB."""

VALUES, FEWEST_ROWS = 2**17, 16
"""Input values that judge a layer, and rows at least: 0.3 MB a layer in half precision, 0.2 GB for SDXL's 800 layers.
They are not among the rows that rounding is fitted to."""

JUDGED_SHARE = 4
"""One in so many calls of the network judges, the last ones: they are other prompts. Rows of the same pictures would
praise every rounding that was fitted to those pictures."""


CALLS_BYTES = 2**28
"""Of the calls that are kept to be repeated, with the means of their layers' outputs: 15 of FLUX."""


class Sample:
    """A uniform sample of ``size`` items from a stream, the same in every run: the items with the smallest lots."""

    def __init__(self, size: int):
        self.size = size
        self.lots = torch.empty(0)
        self._random = torch.Generator().manual_seed(0)

    def offered(self, count: int) -> tuple[Tensor, Tensor]:
        """Of ``count`` new items, (the places in the sample that are to be written, the items that go there)."""
        before = len(self.lots)
        lots = torch.cat([self.lots, torch.rand(count, generator=self._random)])
        is_member = torch.zeros(len(lots), dtype=torch.bool)
        is_member[lots.topk(min(self.size, len(lots)), largest=False).indices] = True
        free = (~is_member[:before]).nonzero().flatten()
        items = is_member[before:].nonzero().flatten()
        places = torch.cat([free, torch.arange(before, before + len(items) - len(free))])
        self.lots = torch.cat([self.lots, torch.empty(len(items) - len(free))])
        self.lots[places] = lots[before + items]
        return places, items


@dataclass
class Rows:
    """Inputs of one layer, one row for each of the outputs they make: tokens (R, K) of a Linear, patches
    (R, C, kh, kw) of a convolution, of one over time (R, C, kt, kh, kw). They lie on the CPU in the type they had."""

    sample: Sample
    values: Tensor | None = None
    calls: Tensor | None = None

    def take(self, layer: nn.Module, x: Tensor, call: int = 0) -> None:
        """Inputs of the network's call of that number."""
        pick = _patches if isinstance(layer, CONVOLUTIONS) else _tokens
        count, at = pick(layer, x)
        places, items = self.sample.offered(count)
        if not len(items):
            return
        new = at(items.to(x.device)).detach().to("cpu", copy=True)
        if len(self.sample.lots) > (0 if self.values is None else len(self.values)):
            missing = len(self.sample.lots) - (0 if self.values is None else len(self.values))
            room = new.new_empty(missing, *new.shape[1:])
            numbers = torch.zeros(missing, dtype=torch.int64)
            self.values = room if self.values is None else torch.cat([self.values, room])
            self.calls = numbers if self.calls is None else torch.cat([self.calls, numbers])
        self.values[places], self.calls[places] = new.to(self.values.dtype), call

    def split(self, judges: int, calls: int) -> tuple[Tensor, Tensor]:
        """(rows to fit to, at most ``judges`` that judge: those of the last of the network's ``calls``; where these
        were too few to tell, others drawn at random)."""
        order = self.sample.lots.argsort()
        last = self.calls[order] >= calls - calls // JUDGED_SHARE
        if not last.any() or last.all():
            last = torch.arange(len(order)) < max(1, len(order) // JUDGED_SHARE)
        return self.values[order[~last][:FIT_ROWS]], self.values[order[last][:judges]]


def judging_rows(layer: nn.Module) -> int:
    """How many rows judge a layer."""
    return max(FEWEST_ROWS, VALUES // prod(layer.weight.shape[1:]))


def _tokens(layer: nn.Linear, x: Tensor) -> tuple[int, Callable[[Tensor], Tensor]]:
    rows = x.reshape(-1, x.shape[-1])
    return len(rows), lambda index: rows[index]


def _patches(layer: nn.Module, x: Tensor) -> tuple[int, Callable[[Tensor], Tensor]]:
    """As many as the convolution has output positions."""
    padded = F.pad(x, layer._reversed_padding_repeated_twice)
    offsets = [
        torch.arange(size, device=x.device) * gap
        for size, gap in zip(layer.kernel_size, layer.dilation, strict=True)
    ]  # fmt: skip
    spans = [int(offset[-1]) + 1 for offset in offsets]
    sizes = [
        (size - span) // stride + 1 for size, span, stride in zip(padded.shape[2:], spans, layer.stride, strict=True)
    ]
    axes = len(sizes)

    def at(index: Tensor) -> Tensor:
        places, rest = [], index
        for size, stride, offset in reversed(list(zip(sizes, layer.stride, offsets, strict=True))):
            places.insert(0, (rest % size * stride)[:, None] + offset)
            rest = rest // size
        # Each axis's places along an axis of their own: (R, 1, …, k, …, 1).
        wide = [
            place.view(len(index), *[1] * axis, -1, *[1] * (axes - 1 - axis)) for axis, place in enumerate(places)
        ]  # fmt: skip
        patches = padded[(rest.view(-1, *[1] * axes), slice(None), *wide)]
        return patches.movedim(-1, 1)

    return len(x) * prod(sizes), at


@dataclass
class FirstToken:
    """Whether a Linear's first token is one vector for every prompt while the rest is not: CLIP's start of text, the
    outlier of cross-attention's keys and values (MixDQ, arXiv 2405.17873, §3.2). Told by what is seen, not by names."""

    _token: Tensor | None = None
    _rest: Tensor | None = None
    _constant: bool = True
    _rest_varies: bool = False

    def see(self, x: Tensor) -> None:
        """``x`` (B, T, K) of one call; other shapes say that there is no first token."""
        if not self._constant:
            return
        if x.ndim != 3 or x.shape[1] < 2:
            self._constant = False
            return
        first, rest = x[:, 0], x[:, 1:].float().mean(1)
        if self._token is None:
            # On the CPU: a host that replays a block's allocations forbids it to leave one behind on the device.
            self._token, self._rest = (value[0].detach().to("cpu", copy=True) for value in (first, rest))
        self._constant = bool(same_token(first, self._token).all()) and bool(self._token.any())
        # A mean over the tokens: whole inputs of every layer would not fit into memory.
        self._rest_varies = self._rest_varies or not bool(same_token(rest, self._rest).all())

    @property
    def found(self) -> Tensor | None:
        """The token (K,), or None."""
        return self._token.cpu() if self._token is not None and self._constant and self._rest_varies else None


@dataclass
class Call:
    """One call of the whole network: what it was given (tensors and containers copied: what it does to them is no
    longer seen), the first tensor that it returned, and for each layer with a bias the mean of each output channel
    (N,), once for every time that the layer was called in it. ``lot`` orders calls at random, the same in every run."""

    number: int
    args: tuple
    kwargs: dict[str, Any]
    lot: float = 0.0
    output: Tensor | None = None
    means: dict[str, list[Tensor]] = field(default_factory=dict)

    def again(self, network: nn.Module) -> Tensor:
        """The first tensor that the network returns of the same arguments. Some networks use theirs up."""
        args, kwargs = copied((self.args, self.kwargs))
        return first_tensor(network(*args, **kwargs))


@dataclass
class Calls:
    """A few calls of the whole network, drawn at random, within ``CALLS_BYTES`` but at least ``few``."""

    sample: Sample
    few: int = 0
    seen: int = 0
    batch: int = 1
    kept: list[Call] = field(default_factory=list)
    open: Call | None = None

    def take(self, args: tuple, kwargs: dict[str, Any], more: int = 0) -> None:
        """``more`` bytes are what will be recorded of each call beside its arguments."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        wide = [tensor for tensor in tensors if tensor.ndim > 1]
        self.batch = len(wide[0]) if wide else 1
        if not self.seen:
            size = more + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.sample.size = min(self.sample.size, max(self.few, CALLS_BYTES // max(1, size)))
        self.seen += 1
        self.open = None
        places, items = self.sample.offered(1)
        if not len(items):
            return
        place = int(places[0])
        self.open = Call(self.seen - 1, *copied((args, kwargs)), float(self.sample.lots[place]))
        self.kept[place : place + 1] = [self.open]

    def some(self, count: int) -> list[Call]:
        """``count`` of them, drawn at random."""
        return sorted(self.kept, key=lambda call: call.lot)[:count]

    def split(self) -> tuple[list[Call], list[Call]]:
        """(those to learn from, those that judge: the last of what was seen), each in the order of the calls."""
        order = sorted(self.kept, key=lambda call: call.number)
        first = self.seen - self.seen // JUDGED_SHARE
        return [call for call in order if call.number < first], [call for call in order if call.number >= first]


def first_tensor(tree: Any) -> Tensor:
    """The first tensor of what a network returns."""
    return next(leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def channel_of(layer: nn.Module) -> int:
    """The axis of a layer's output that its bias runs along."""
    return 1 if hasattr(layer, "kernel_size") else -1


def channel_means(output: Tensor, channel: int) -> Tensor:
    """(N,) float32: an output's mean over all axes but ``channel``."""
    return output.detach().float().movedim(channel, -1).flatten(0, -2).mean(0)


def copied(tree: Any) -> Any:
    """Nested lists, tuples and dicts anew, tensors cloned, everything else as it is."""
    return tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, tree)


@dataclass
class Usage:
    """How the network uses a layer: its place in the order of first calls, whether it sees at most one row per picture
    (modulation, time, pooled text), the largest magnitude of each input column (K,) or channel (C,), and how many
    weights the layer has."""

    order: int
    one_row: bool = True
    largest: Tensor | None = None
    weights: int = 0

    def see(self, layer: nn.Module, x: Tensor, batch: int) -> None:
        self.weights = layer.weight.numel()
        axis = 1 if isinstance(layer, CONVOLUTIONS) else x.ndim - 1
        self.one_row = self.one_row and x.numel() // max(1, x.shape[axis]) <= batch
        largest = x.detach().abs().transpose(0, axis).flatten(1).amax(1).float().cpu()
        self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)


@dataclass(frozen=True)
class Observed:
    """What one run showed. ``rows``, ``first_tokens`` and ``usage`` are per layer, ``calls`` of the root."""

    rows: Mapping[str, Rows]
    first_tokens: Mapping[str, FirstToken]
    calls: Calls
    usage: dict[str, Usage] = field(default_factory=dict)

    def take_input(self, name: str, layer: nn.Module, args: tuple) -> None:
        """What a layer was called with; a call without a tensor, or with an empty one, says nothing."""
        if not args or not isinstance(args[0], Tensor) or not args[0].numel():
            return
        x = args[0]
        self.rows[name].take(layer, x, max(0, self.calls.seen - 1))
        self.usage.setdefault(name, Usage(len(self.usage))).see(layer, x, self.calls.batch)
        if name in self.first_tokens:
            self.first_tokens[name].see(x)

    def take_mean(self, name: str, layer: nn.Module, output: Any) -> None:
        """Of a layer's output, where the call of the network is one of those that are kept."""
        if self.calls.open is not None and isinstance(output, Tensor):
            self.calls.open.means.setdefault(name, []).append(channel_means(output, channel_of(layer)).cpu())

    def take_output(self, output: Any) -> None:
        """What the network returned: its call is over."""
        if self.calls.open is not None:
            self.calls.open.output = first_tensor(output).detach().to("cpu", copy=True)
            self.calls.open = None


@contextmanager
def observing(
    root: nn.Module,
    layers: Mapping[str, nn.Module],
    calls: int,
    on_call: Callable[[int], None],
    fitted: Collection[str] = (),
    few: int = 0,
) -> Iterator[Observed]:
    """While this is open, inputs of ``layers`` (below ``root``) are recorded by hooks, which are gone afterwards.

    Of each layer the rows that judge it are kept, and of those named in ``fitted`` ``FIT_ROWS`` more. ``calls`` are
    kept of the root's, where memory is short ``few``; if these are fewer than ``calls``, with the means of the layers'
    outputs. ``on_call(number so far)`` is told of each, before it is made, and may raise.
    """
    recording = Observed(
        {
            name: Rows(Sample(judging_rows(layer) + (FIT_ROWS if name in fitted else 0)))
            for name, layer in layers.items()
        },
        {name: FirstToken() for name, layer in layers.items() if not isinstance(layer, CONVOLUTIONS)},
        Calls(Sample(calls), few),
    )
    biased = {name: layer for name, layer in layers.items() if calls > few and layer.bias is not None}
    mean_bytes = 4 * sum(layer.bias.numel() for layer in biased.values())

    def input_hook(name: str):
        return lambda layer, args: recording.take_input(name, layer, args)

    def mean_hook(name: str):
        return lambda layer, args, output: recording.take_mean(name, layer, output)

    def root_hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        on_call(recording.calls.seen)
        recording.calls.take(args, kwargs, mean_bytes)

    hooks = [layer.register_forward_pre_hook(input_hook(name)) for name, layer in layers.items()]
    hooks.append(root.register_forward_pre_hook(root_hook, with_kwargs=True))
    if calls:
        hooks += [layer.register_forward_hook(mean_hook(name)) for name, layer in biased.items()]
        hooks.append(root.register_forward_hook(lambda module, args, output: recording.take_output(output)))
    try:
        yield recording
    finally:
        for hook in hooks:
            hook.remove()
