"""What models, text encoders and VAEs weigh after quantising, against FP16: ``python -m benchmarks.model_bytes``,
``… encoders`` for the text encoders and VAEs alone.

The host's own networks at the published sizes, their weights one shared zero each: selection and packing formats are
the real ones, and only the bytes are counted, so nothing of a model's size is ever held.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from math import prod
from unittest.mock import patch

import torch
from torch import Tensor, nn

import qsched_core.quant as quant
from qsched_core.quant import select
from qsched_core.quant.convolutions import CONVOLUTIONS
from qsched_core.quant.packing import row_bytes

from .encoders import autoencoders, encoders
from .in_host import import_host
from .networks import families
from .record import earlier, record

TARGETS = {"SDXL": 0.29, "SD1.5": 0.30, "FLUX.1-schnell": 0.285}


class _SizedLinear(quant.QuantizedLinear):
    """As many bytes as the packed layer, without packing it."""

    @classmethod
    def like(cls, layer, weight, bias, form):
        return cls(torch.empty(weight.shape[0], row_bytes(weight.shape[1], form), dtype=torch.uint8), None, 1, form)

    def dequantized(self, *arguments) -> Tensor:
        return torch.zeros(1).expand(self.shape)


class _SizedConvolution(quant.QuantizedConvolution):
    @classmethod
    def like(cls, layer, weight, bias, form):
        columns = weight[0].numel()
        return cls(torch.empty(weight.shape[0], row_bytes(columns, form), dtype=torch.uint8), None, weight.shape, form)

    def dequantized(self, *arguments) -> Tensor:
        return torch.zeros(1).expand(self.shape)


class _Sizes(quant.TorchBackend):
    """Packs sizes alone: there is nothing to try."""

    def trial(self, form: quant.Format, device: torch.device) -> str:
        return ""


class _NativeSizes(quant.KitchenBackend):
    """The native layouts' own rules for each layer, with eight bits where four have no rotation; their bytes are those
    of our packing in the same bits and groups, which has as many scales."""

    def missing(self, form: quant.Format, device: torch.device) -> str:
        return ""

    def trial(self, form: quant.Format, device: torch.device, size: int = 0) -> str:
        return ""

    def twin(self, layer, weight, bias, form):
        return _SizedLinear.like(layer, weight, bias, form)


def whole(make: Callable[..., nn.Module], depths: tuple[int, ...], name: str, recipe: str) -> list[int]:
    """[parameters, bytes as FP16, bytes packed]: one block of each kind is weighed, and counted."""
    ones = [1] * len(depths)
    base = weigh(make(*ones), name, recipe)
    total = list(base)
    for kind, depth in enumerate(depths):
        two = weigh(make(*[count + (i == kind) for i, count in enumerate(ones)]), name, recipe)
        total = [t + (depth - 1) * (b - a) for t, a, b in zip(total, base, two, strict=True)]
    return total


def weigh(network: nn.Module, name: str, recipe: str) -> tuple[int, int, int]:
    """(parameters, bytes as FP16, bytes packed) of a network."""
    for module in network.modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_meta:
                shared = torch.zeros(1).expand(parameter.numel()).view(parameter.shape)
                module._parameters[key] = nn.Parameter(shared, requires_grad=False)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    sized = {
        "kitchen": _NativeSizes(),
        "torch": _Sizes(dict.fromkeys(CONVOLUTIONS, _SizedConvolution) | {nn.Linear: _SizedLinear}),
    }
    backend = "kitchen" if recipe == "stock" else "torch"
    job = quant.Job.of(name, backend=backend, recipe=recipe, backends=sized)
    with (
        patch.object(select, "float_values", lambda weight: torch.zeros(())),
        patch.object(sys.modules["qsched_core.quant.quantizer"], "norm_shift", lambda weight, packed: None),
    ):  # what looks at every weight: here all are zero
        reports = [report for _, report in quant.quantized_layers(network, job)]
    saved = sum(report.bytes_before - report.bytes_after for report in reports)
    return parameters, 2 * parameters, 2 * parameters - saved


_FEWEST = 4
"""Blocks: some encoders give the output of the third from the end."""


def encoder_bytes() -> dict[str, dict]:
    """What the text encoders weigh. Towers for pictures stay as they are, as in the node: no text reaches them."""
    result = {}
    for name, (make, depth) in encoders().items():
        row: dict = {}
        for form in ("w4a8", "w8a8"):
            few, more = (counted(make(blocks), form, ["*visual*"]) for blocks in (_FEWEST, _FEWEST + 1))
            row["parameters"], before, after = (f + (depth - _FEWEST) * (m - f) for f, m in zip(few, more, strict=True))
            row["GB at FP16"] = round(before / 1e9, 2)
            row[f"GB in {form}"], row[form] = round(after / 1e9, 2), round(after / before, 4)
        result[name] = row
        print(name, row, flush=True)
    return result


def vae_bytes() -> dict[str, dict]:
    """What the VAEs weigh: Linear layers and convolutions are packed, over time too. The node leaves those at both ends
    alone, which are a few thousand weights."""
    result = {}
    for name, make in autoencoders().items():
        parameters, before, after = counted(make(), "w8a16", include=["*"])
        gigabytes = {"GB at FP16": round(before / 1e9, 3), "GB in w8a16": round(after / 1e9, 3)}
        result[name] = {"parameters": parameters, **gigabytes, "w8a16": round(after / before, 4)}
        print(name, result[name], flush=True)
    return result


def counted(
    network: nn.Module, name: str, exclude: Sequence[str] = (), include: Sequence[str] = ()
) -> tuple[int, int, int]:
    """(parameters, bytes as FP16, bytes packed) of a network on the meta device, by the rows of what is packed. That
    its weights are finite is taken for granted: on meta there are none."""
    form, saved = quant.resolve_format(name), 0
    with patch.object(select, "float_values", lambda weight: torch.zeros(())):
        for key, layer in quant.candidates(network):
            if not select.reason_to_keep(network, key, layer, include, exclude):
                rows, columns = layer.weight.shape[0], prod(layer.weight.shape[1:])
                saved += 2 * rows * columns - rows * row_bytes(columns, form)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, 2 * parameters, 2 * parameters - saved


def main() -> None:
    import_host()
    if sys.argv[1:] == ["encoders"]:
        others = {key: value for key, value in earlier("model_bytes").items() if key != "ran_on"}
        record("model_bytes", {**others, "text encoders": encoder_bytes(), "VAEs": vae_bytes()})
        return
    result = {}
    for family, (make, depths) in families("meta", torch.float32).items():
        row = {"target_compact_w4a8": TARGETS.get(family)}
        for name in ("w4a8", "w8a8"):
            for recipe in ("compact", "stock"):
                row["parameters"], before, after = whole(make, depths, name, recipe)
                row[f"{name} {recipe}"] = round(after / before, 4)
        result[family] = row
        print(family, row, flush=True)
    result["text encoders"], result["VAEs"] = encoder_bytes(), vae_bytes()
    record("model_bytes", result)


if __name__ == "__main__":
    main()
