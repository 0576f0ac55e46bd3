"""Quantised files that lie: each must be refused in our words, or give a module that is the float one's twin."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import load_quantized, restore, save_quantized

from .tally import Tally, memory_folder

POOL = (None, True, -1, 0, 1, 3, 64, 2**31, 2**62, 0.5, float("nan"), "", "same", "w4a8", [], [1], [1, 1], [64, 64], {})
"""What a value of the record is changed into."""

KINDS = ("record", "name", "dtype", "shape", "value", "lose", "add", "bytes")


ATTACKS = 2000

REFUSED, RUNS = "refused", "loads and runs"
RIGHT = (REFUSED, RUNS)


class Net(nn.Module):
    """A bit of everything that is packed: Linear layers, convolutions with options, norms, a buffer of integers."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.GroupNorm(4, 64),
                    "conv": nn.Conv2d(64, 64, 3, stride=2, padding=1),
                    "wide": nn.Conv2d(64, 64, 3, padding="same", dilation=2, groups=2, bias=False),
                    "mix": nn.Linear(64, 64),
                }
            )
            for _ in range(2)
        )
        self.register_buffer("steps", torch.arange(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block["wide"](block["conv"](block["norm"](x)))
            x = block["mix"](x.movedim(1, -1)).movedim(-1, 1)
        return x


def run(attacks: int = ATTACKS, seed: int = 0) -> Tally:
    tally, draw, net = Tally(), random.Random(seed), Net()
    qs.quantize(net, "w4a8")
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        path = Path(folder, "good.safetensors")
        save_quantized(net, path)
        good = path.read_bytes()
        tensors = load_file(path)
        header = json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])["__metadata__"]
        bad = Path(folder, "bad.safetensors")
        for number in range(attacks):
            kind = KINDS[number % len(KINDS)]
            if kind == "bytes":
                bad.write_bytes(_flipped(good, draw))
            else:
                changed, metadata = dict(tensors), {**header, "layers": json.loads(header["layers"])}
                _change(kind, changed, metadata["layers"], draw)
                metadata["layers"] = json.dumps(metadata["layers"])
                save_file({name: value.contiguous() for name, value in changed.items()}, bad, metadata)
            outcome = _outcome(bad)
            tally.count(outcome) if outcome in RIGHT else tally.hurt(f"{kind}, file {number}: {outcome}")
    return tally


def _flipped(good: bytes, draw: random.Random) -> bytes:
    length = int.from_bytes(good[:8], "little")
    # Half of them in the header, which is a hundredth of the file.
    place = draw.randrange(8 + length) if draw.random() < 0.5 else draw.randrange(len(good))
    data = bytearray(good)
    data[place] ^= 1 << draw.randrange(8)
    return bytes(data[: draw.choice([len(data), len(data), draw.randrange(len(data))])])


def _change(kind: str, tensors: dict[str, torch.Tensor], layers: dict[str, Any], draw: random.Random) -> None:
    name, layer = draw.choice(list(tensors)), draw.choice(list(layers))
    if kind == "record":
        place, key = layers, layer
        while isinstance(place[key], dict) and place[key] and draw.random() < 0.9:
            place = place[key]
            key = draw.choice(list(place))
        place[key] = copy.deepcopy(draw.choice(POOL))
    elif kind == "name":
        other = draw.choice(["", "blocks", "blocks.0", f"{layer}.inner", "steps", draw.choice(list(layers))])
        layers[other] = layers[layer] if draw.random() < 0.5 else {"native": True, "shape": [64, 2**30]}
    elif kind == "dtype":
        types = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64]
        tensors[name] = tensors[name].to(draw.choice(types))
    elif kind == "shape":
        value = tensors[name]
        tensors[name] = draw.choice([value[None], value[:-1], value.flatten(), torch.cat([value, value])]).clone()
    elif kind == "value":
        value = tensors[name] = tensors[name].clone()
        damage = 255 if value.dtype == torch.uint8 else draw.choice([float("nan"), float("inf")])
        if value.is_floating_point() or value.dtype == torch.uint8:
            value[..., -2:] = damage
    elif kind == "lose":
        del tensors[name]
    else:
        tensors[draw.choice(["more", f"{layer}.more", f"{layer}.a.b", "blocks.0.weight"])] = torch.zeros(4)


def _outcome(path: Path) -> str:
    net, plain = Net(seed=1), Net(seed=1)
    try:
        restore(net, load_quantized(path))
    except QuantizationError:
        return REFUSED
    except Exception as error:  # noqa: BLE001 - counted, whatever it is
        return f"raw error: {type(error).__name__}"
    for name, layer in plain.named_modules():
        if isinstance(layer, nn.Conv2d):
            twin = net.get_submodule(name)
            if any(getattr(twin, key) != getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")):
                return "another layer"
    try:
        picture = net(torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(0)))
    except Exception as error:  # noqa: BLE001 - counted, whatever it is
        return f"raw error: {type(error).__name__} when it runs"
    return RUNS if picture.isfinite().all() else "not finite"
