"""How long fitted rounding takes: ``python -m benchmarks.fit_time [SDXL | FLUX.1-schnell ...]``. 8 GB, Linux.

After an observation, on the CPU, all its threads: one layer of each shape of a network is packed and fitted as
*Quantize Model W4A8* does it in W4A8 (nearest, each damping, and the errors that choose), with as many random inputs as
an observation keeps at most, and its time is taken as often as the network has such layers.

Memory at most: the model, the inputs that an observation holds at once, and what fitting the widest layer takes beside
them, in a process of its own. Some minutes for each network.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from qsched_core.quant import Job
from qsched_core.quant.convolutions import CONVOLUTIONS
from qsched_core.quant.fitting import fitted_twin
from qsched_core.quant.input_recorder import FEWEST_ROWS, FIT_ROWS, VALUES
from qsched_core.quant.observation import BUDGET
from qsched_core.quant.select import candidates, reason_to_keep

from .in_host import import_host
from .networks import families, randomised
from .quantise_time import in_own_process
from .record import earlier, record

FORMAT = "w4a8"
NETWORKS = ("SDXL", "FLUX.1-schnell")
TARGET_MINUTES = {"SDXL": 20.0}
FP16_BYTES = 2
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Shape = tuple[int, ...]


def unmade(name: str) -> nn.Module:
    """A network of zeros that all share their memory: layers are chosen by their shapes, and by being finite."""
    make, depths = families("meta", torch.float16)[name]
    network = make(*depths)
    for layer in network.modules():
        for key, parameter in layer._parameters.items():
            if parameter is not None:
                layer._parameters[key] = nn.Parameter(torch.zeros(1).expand(parameter.shape), requires_grad=False)
    return network


def packed_shapes(network: nn.Module) -> Counter[tuple[Shape, bool]]:
    """How many layers of each weight's shape are packed by default; with whether they are convolutions."""
    return Counter(
        (tuple(layer.weight.shape), isinstance(layer, CONVOLUTIONS))
        for name, layer in candidates(network, "compact")
        if not reason_to_keep(network, name, layer, (), ())
    )


def layer_of(shape: Shape, is_convolution: bool) -> nn.Module:
    if not is_convolution:
        return randomised(nn.Linear(shape[1], shape[0]))
    padding = tuple(size // 2 for size in shape[2:])
    return randomised(nn.Conv2d(shape[1], shape[0], shape[2:], padding=padding))


def inputs(shape: Shape, count: int, seed: int) -> Tensor:
    """(count, *shape[1:]): some columns are louder than others, as a network's are."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(shape[1:], generator=torch.Generator().manual_seed(1)) + 0.1
    return torch.randn(count, *shape[1:], generator=generator) * loudness


def cost_of(shape: Shape, is_convolution: bool) -> tuple[float, int]:
    """(seconds, bytes beside the weight and its inputs that are held at most) of packing and fitting a layer."""
    torch.set_grad_enabled(False)
    layer = layer_of(shape, is_convolution)
    job, check_count = Job.of(FORMAT, backend="torch"), max(FEWEST_ROWS, VALUES // layer.weight[0].numel())
    way = next(way for way in job.ways if not way.backend.refusal(layer, way.form, job.device))
    rows, check_rows = (inputs(shape, count, count).half() for count in (FIT_ROWS, check_count))
    largest = None if is_convolution else rows.abs().amax(0)
    CLEAR.write_text("5")
    before, start = memory("VmRSS"), time.perf_counter()
    fitted_twin(way, layer, layer.weight, layer.bias, rows, check_rows, largest)
    return time.perf_counter() - start, memory("VmHWM") - before


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since a 5 was written to CLEAR. What `getrusage` says never falls
    and is handed on to the processes that one starts."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def row_of(name: str) -> dict:
    network = unmade(name)
    shapes, seconds = packed_shapes(network), {}
    for shape, is_convolution in shapes:
        seconds[shape], _ = cost_of(shape, is_convolution)
        print(name, "x".join(map(str, shape)), shapes[shape, is_convolution], round(seconds[shape], 1), flush=True)
    total = sum(count * seconds[shape] for (shape, _), count in shapes.items())
    slowest = max(seconds, key=seconds.__getitem__)
    widest = max(shapes, key=lambda key: (prod(key[0][1:]), key[0][0]))
    _, beside = in_own_process(partial(cost_of, *widest))  # memory that others gave back is not counted again
    model = FP16_BYTES * sum(parameter.numel() for parameter in network.parameters())
    return {
        "layers": sum(shapes.values()), "shapes": len(shapes), "minutes": round(total / 60, 1),
        "target_minutes": TARGET_MINUTES.get(name),
        "slowest": {"shape": "x".join(map(str, slowest)), "seconds": round(seconds[slowest], 1)},
        "model_gb": round(model / 1e9, 2), "inputs_gb": round(BUDGET / 1e9, 2),
        "widest_layer_gb": round(beside / 1e9, 2), "peak_to_model": round((model + BUDGET + beside) / model, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS, help="some networks; the others keep their rows")
    torch.set_grad_enabled(False)
    import_host()
    networks = earlier("fit_time").get("networks", {})
    for name in parser.parse_args().names:
        networks[name] = row_of(name)
        print(name, networks[name], flush=True)
    record("fit_time", {"format": FORMAT, "rows": FIT_ROWS, "networks": networks})


if __name__ == "__main__":
    main()
