"""One bit more for some output channels, one less for as many: ``python -m benchmarks.channel_bits [net ...]``.

MPQ-DM (arXiv 2412.11549) gives a layer's channels of long tails a bit more and calm ones a bit less, at equal mean
bits. Here each layer is rounded to b - 1, b and b + 1 bits, to nearest and fitted, with a scale per channel and per 32
columns; channels are chosen by their weights' kurtosis (a tenth each way, as MPQ-DM does), and by the errors of the
output on the rows that fitted them (as many as pay). Judged on other rows: the error of a layer's output relative to
that of b bits for all, below 1 is better. Inputs of Linear layers are rotated and rounded to 8 bits, as W4A8 has them.

Nets: ``strangers`` (see there what they need) and the two toys. Two minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qsched_core as qs
from qsched_core.quant.observation import Observation
from qsched_core.quant.rotation import rotate_input, rotate_weight, rotation_of
from qsched_core.quant.rounding import IntegerGrid, NotFitted, fitted_codes, hessians_of
from qsched_core.quant.tokens import rounded_tokens

from .record import earlier, record

GROUP = 32
BITS, WIDTHS = (2, 3, 4, 5), (3, 4)
"""Bits that are tried, and the uniform ones that are to be beaten."""

TENTH = 0.1
"""Of the channels each way: MPQ-DM's share."""

MOST_LAYERS = 48
"""Of a net, evenly spaced."""

FIT_ROWS, WIDEST = 1024, 2304


def strangers_net(make: Callable) -> Callable[[], tuple[nn.Module, Observation]]:
    def observed() -> tuple[nn.Module, Observation]:
        net = make()
        return net.network, qs.observe(net.network, lambda: net.generator(3, 77)(net.identity(), range(3)))

    return observed


def toy_net(kind: str) -> Callable[[], tuple[nn.Module, Observation]]:
    def observed() -> tuple[nn.Module, Observation]:
        from . import toys

        toy = toys.load(kind)
        return toy.network, toy.observed(toys.captions(8, 909))

    return observed


def nets() -> dict[str, Callable[[], tuple[nn.Module, Observation]]]:
    from .strangers.models import galaxy, terrain

    galaxy_nets = {f"galaxies {side}": strangers_net(lambda side=side: galaxy(side)) for side in (32, 64)}
    return {**galaxy_nets, "terrain": strangers_net(terrain), "flow": toy_net("flow"), "noise": toy_net("noise")}


def layers_of(
    net: nn.Module, observation: Observation, activation_bits: int = 8, kinds: tuple[type, ...] = (nn.Linear, nn.Conv2d)
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(weight (N, K), rows to fit (R, K), rows to judge) of layers inside the net, as their products meet them."""
    names = [name for name in observation.layers if name not in observation.edges() and not observation.one_row(name)]
    layers = []
    for name in names:
        layer, rows = net.get_submodule(name), observation.rows_to_fit(name)
        check_rows = observation.layers[name].judged
        groups = getattr(layer, "groups", 1)
        if (
            not isinstance(layer, kinds)
            or rows is None
            or len(rows) < 64
            or groups > 1
            or layer.weight[0].numel() > WIDEST
            or len(layer.weight) < 20
        ):
            continue
        layers.append((layer, rows[:FIT_ROWS], check_rows[:FIT_ROWS]))
    for layer, rows, check_rows in layers[:: -(-len(layers) // MOST_LAYERS)]:
        weight = layer.weight.float()
        if isinstance(layer, nn.Conv2d):
            yield weight.flatten(1), rows.flatten(1).float(), check_rows.flatten(1).float()
        else:
            size = rotation_of(weight.shape[1])
            inputs = [rounded_tokens(rotate_input(x.float(), size), activation_bits) for x in (rows, check_rows)]
            yield rotate_weight(weight, size), *inputs


def scales_of(weight: Tensor, bits: int, group: int) -> Tensor:
    """(N, groups): as the packing chooses them, the least squared error of a few clipping factors, the largest weight
    on the side that has one code more."""
    grouped, least = weight.unflatten(1, (-1, group)), 2 ** (bits - 1)
    low, high = grouped.amin(-1), grouped.amax(-1)
    signed = torch.where(high > -low, -high, -low).unsqueeze(-1) / least
    candidates = [torch.where(signed == 0, 1e-9, signed * (1 - 0.05 * i)) for i in range(6)]
    errors = [((grouped / s).round().clamp(-least, least - 1) * s - grouped).square().sum(-1) for s in candidates]
    best = torch.stack(errors).argmin(0)
    return torch.stack(candidates).squeeze(-1).gather(0, best[None])[0]


def channel_errors(weight: Tensor, rows: Tensor, check_rows: Tensor, group: int) -> dict[tuple[str, int], Tensor]:
    """(2, N) squared errors of each output channel on the rows that fit and on those that judge, by (rounding, bits).
    Channels do not touch each other, in GPTQ too: all widths are fitted in one go."""
    count, columns = weight.shape
    whole = F.pad(weight, (0, -columns % group))
    scales = torch.cat([scales_of(whole, bits, group) for bits in BITS])
    least = torch.tensor([2.0 ** (bits - 1) for bits in BITS]).repeat_interleave(count)
    every = weight.repeat(len(BITS), 1)
    grid = IntegerGrid(scales, None, group, -least, least - 1)
    rounding = grid.block(torch.arange(columns))
    nearest = torch.stack([rounding(place, every[:, place])[1] for place in range(columns)], dim=1)
    values = {"nearest": nearest, "fitted": fitted_codes(every, hessians_of(rows), grid)[1]}
    errors_of = {}
    for name, value in values.items():
        off = (value - every).t()
        errors = torch.stack([(x @ off).square().sum(0).view(len(BITS), count) for x in (rows, check_rows)])
        errors_of |= {(name, bits): errors[:, place] for place, bits in enumerate(BITS)}
    return errors_of


def tenths(weight: Tensor) -> Tensor:
    """(N,) 1, 0 or -1 bits more: MPQ-DM's choice, by the kurtosis of each channel's weights."""
    centred = weight - weight.mean(1, keepdim=True)
    order = (centred.pow(4).mean(1) / centred.square().mean(1).square().clamp(min=1e-30)).argsort()
    more, share = torch.zeros(len(weight)), round(TENTH * len(weight))
    more[order[:share]], more[order[len(order) - share :]] = -1, 1
    return more


def paying(less: Tensor, own: Tensor, more: Tensor) -> Tensor:
    """(N,) 1, 0 or -1 bits more: as many pairs as pay, by squared errors (N,) with a bit less, as it is, a bit more."""
    gain, loss = own - more, less - own
    ups, downs, choice = gain.argsort(descending=True), loss.argsort(), torch.zeros(len(own))
    for up, down in zip(ups.tolist(), downs.tolist(), strict=True):
        if gain[up] <= loss[down] or choice[up] or choice[down] or up == down:
            break
        choice[up], choice[down] = 1, -1
    return choice


def ratios(weight: Tensor, rows: Tensor, check_rows: Tensor) -> dict[tuple, float]:
    """A layer's error with mixed bits relative to that with the same bits for all, on the rows that judge."""
    errors_of = {}
    for scope, group in (("channel", weight.shape[1]), (f"groups of {GROUP}", GROUP)):
        errors = channel_errors(weight, rows, check_rows, group)
        for rounding in ("nearest", "fitted"):
            for bits in WIDTHS:
                three = [errors[rounding, b] for b in (bits - 1, bits, bits + 1)]
                choices = {"kurtosis": tenths(weight), "measured": paying(*(each[0] for each in three))}
                for name, choice in choices.items():
                    mixed = torch.stack([each[1] for each in three]).gather(0, (choice.long() + 1)[None])[0]
                    errors_of[scope, bits, rounding, name] = float((mixed.sum() / three[1][1].sum()).sqrt())
    return errors_of


def row_of(observed: Callable[[], tuple[nn.Module, Observation]]) -> list[dict]:
    ratios_of: dict[tuple, list[float]] = {}
    net, observation = observed()
    for layer in layers_of(net, observation):
        try:
            for key, ratio in ratios(*layer).items():
                ratios_of.setdefault(key, []).append(ratio)
        except NotFitted:
            continue
    return [
        {"scale": scope, "bits": bits, "rounding": rounding, "chosen by": name, "layers": len(values),
         "error": round(float(np.median(values)), 4), "worst": round(max(values), 4)}
        for (scope, bits, rounding, name), values in ratios_of.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="some nets; the others keep their rows")
    torch.set_grad_enabled(False)
    rows, choices = earlier("channel_bits").get("nets", {}), nets()
    for name in parser.parse_args().names or choices:
        rows[name] = row_of(choices[name])
        print(name, *rows[name], sep="\n", flush=True)
    record("channel_bits", {"nets": rows})


if __name__ == "__main__":
    main()
