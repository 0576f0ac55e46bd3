"""Means of packed layers' outputs brought back through their biases, layer behind layer, where the network gains by it.

Rounding moves the mean of what a layer gives. Fitting takes that away for the inputs of the full model; behind layers
that are rounded themselves the inputs have moved, and behind many of them means add up where noise averages out. So
the packed network repeats calls of the full one, on the full one's own inputs: each layer's mean is compared with what
it was there, and what is found is added at once, for the layers behind it. On inputs of the packed network's own
sampling that does not converge: a layer would make up for the steps before, and the next step for that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .input_recorder import Call, Calls, channel_means, channel_of

FEWEST_CALLS = 4
"""Calls to learn from, below which nothing is corrected: their spread has to be told from their mean."""


@dataclass(frozen=True)
class Correction:
    """``values`` (N,) of layers by name are to be added to their biases. ``before`` and ``after`` are relative errors
    of the network's output, on calls that nothing was learned from; ``note`` says why nothing is corrected."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None
    note: str = ""


class MeanError:
    """Of one layer: the mean error of each of its output channels, over the calls so far."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(())

    def see(self, error: Tensor) -> None:
        """The error (N,) of one call, by Welford's update."""
        self.count += 1
        before = error - self.mean
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before * (error - self.mean)

    @property
    def value(self) -> Tensor:
        """(N,): the mean as far as its calls agree on it. What their spread explains is taken off its square."""
        if self.count < 2:
            return torch.zeros_like(self.mean)
        chance = self.squares / (self.count * (self.count - 1))
        return self.mean * (1 - chance / self.mean.square().clamp(min=1e-30)).clamp(min=0)


def mean_correction(
    network: nn.Module,
    names: Collection[str],
    calls: Calls | None,
    on_call: Callable[[], None] = lambda: None,
) -> Correction:
    """What to add to the biases of the packed layers ``names`` below ``network``, learned from ``calls`` of the full
    network. The network has to be where it can be called; nothing of it is changed. ``on_call()`` may raise to cancel.
    """
    learn, judges = ([], []) if calls is None else calls.split()
    learn = [call for call in learn if call.means]
    if len(learn) < FEWEST_CALLS or not judges:
        return Correction(note="too few calls of the full model are kept")
    layers = {name: network.get_submodule(name) for name in names}
    layers = {name: layer for name, layer in layers.items() if layer.bias is not None}
    try:
        return _learned(network, layers, learn, judges, on_call)
    except torch.OutOfMemoryError:
        return Correction(note="out of memory for a call of the whole network")


def _learned(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    learn: Sequence[Call],
    judges: Sequence[Call],
    on_call: Callable[[], None],
) -> Correction:
    before = _error(network, judges, on_call)
    errors = {name: MeanError() for name in layers}
    with _corrected(layers, errors) as targets:
        for call in learn:
            on_call()
            targets.update({name: iter(call.means.get(name, ())) for name in layers})
            call.again(network)
        targets.clear()
        after = _error(network, judges, on_call)
    if not after < before:  # not-a-number too
        return Correction(before=before, after=after, note="the network's output came no nearer")
    values = {name: error.value for name, error in errors.items() if error.count > 1}
    return Correction(values, before, after)


@contextmanager
def _corrected(layers: Mapping[str, nn.Module], errors: Mapping[str, MeanError]) -> Iterator[dict]:
    """While this is open, layers give their outputs with what is known of their mean error added, and learn more of it
    from the means that stand in the dict for them."""
    targets: dict[str, Iterator[Tensor]] = {}

    def hook_of(name: str, channel: int):
        def hook(layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
            target = next(targets.get(name, iter(())), None)
            if target is not None:
                errors[name].see(target - channel_means(output, channel).cpu())
            if not errors[name].count:
                return output
            return output + along(errors[name].value.to(output), output, channel)

        return hook

    hooks = [layer.register_forward_hook(hook_of(name, channel_of(layer))) for name, layer in layers.items()]
    try:
        yield targets
    finally:
        for hook in hooks:
            hook.remove()


def along(values: Tensor, output: Tensor, channel: int) -> Tensor:
    """(N,) to be broadcast along an axis of an output."""
    shape = [1] * output.ndim
    shape[channel] = -1
    return values.view(shape)


def _error(network: nn.Module, calls: Sequence[Call], on_call: Callable[[], None]) -> float:
    """The relative error of the network's output."""
    error = size = 0.0
    for call in calls:
        on_call()
        exact = call.output.float()
        error += (call.again(network).cpu().float() - exact).square().sum().item()
        size += exact.square().sum().item()
    return (error / max(size, 1e-30)) ** 0.5


def add_to_biases(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write a correction into the layers, where their biases lie: a host may have pinned that memory. A constant first
    token's row is the float layer's, and stays it."""
    for name, value in values.items():
        layer = network.get_submodule(name)
        bias = layer.bias.data
        bias.copy_(bias.float() + value.to(bias.device))
        residual = getattr(layer, "first_residual", None)
        if residual is not None:
            layer.first_residual = (residual.float() - value.to(residual.device)).to(residual)
