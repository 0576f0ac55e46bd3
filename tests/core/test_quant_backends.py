"""Who packs which layer: the choice, its reasons, and what happens when a device is out of memory."""

from __future__ import annotations

import sys

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import FORMATS, Backend, Job, KitchenBackend, Plan, QuantizedLinear, TorchBackend, resolve_format
from qsched_core.quant.backends.kitchen import W4A8, W8A8, rotation
from qsched_core.quant.inspection import packed_weight, stored_bytes
from qsched_core.quant.quantizer import quantized_layers

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self, width: int = 320) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(width, 64), nn.SiLU(), nn.Conv2d(32, 32, 3))])


class Quick(TorchBackend):
    """A backend as fast as one could wish, for widths of 64 alone."""

    name, stock = "quick", True

    def fast(self, form, device) -> bool:
        return True

    def kernel(self, layer, form, device) -> str:
        return "lightning"

    def refusal(self, layer, form, device) -> str:
        return "" if getattr(layer, "in_features", 0) == 64 else "it is not 64 wide"


class Lost(Quick):
    name = "lost"

    def missing(self, form, device) -> str:
        return "it was never installed"


def known(*backends: Backend) -> dict[str, Backend]:
    return {backend.name: backend for backend in (*backends, TorchBackend())}


def test_auto_takes_the_fast_one_and_what_it_refuses_goes_to_torch():
    pairs = list(quantized_layers(Net(64), Job.of("w4a8", backends=known(Quick()))))
    linear, convolution = (report for _, report in pairs)
    assert (linear.backend, linear.kernel, linear.note) == ("quick", "lightning", "")
    assert (convolution.backend, convolution.note) == ("torch", "it is not 64 wide")


def test_auto_says_why_a_backend_is_not_among_its_ways():
    job = Job.of("w4a8", backends=known(Lost(), KitchenBackend()))
    assert [way.backend.name for way in job.ways] == ["torch"]
    assert job.notes[0] == "Not lost: it was never installed."
    assert len(job.notes) == 2


def test_stock_never_falls_back_to_what_stock_cannot_read(refused):
    with refused(QuantizationError, "lost cannot do w4a8 here: it was never installed.", "compact"):
        Job.of("w4a8", recipe="stock", backends=known(Lost()))
    pairs = list(quantized_layers(Net(320), Job.of("w4a8", recipe="stock", backends=known(Quick()))))
    assert [(twin, report.reason) for twin, report in pairs] == [(None, "it is not 64 wide")]


@pytest.mark.parametrize(
    ("name", "why"),
    [("w8a8", "100 inputs are no multiple of 16, as int8_tensorwise needs"),
     ("w4a4", "100 inputs are no multiple of 16, as int8_tensorwise needs")],
)  # fmt: skip
def test_what_no_way_takes_is_kept_for_the_reason_of_the_last_resort(name, why):
    """Not for that of a format which would have taken fewer widths."""
    pairs = list(quantized_layers(Net(100), Job.of(name, recipe="stock", backend="kitchen")))
    assert [(twin, report.reason) for twin, report in pairs] == [(None, why)]


def test_a_backend_that_was_asked_for_and_cannot_is_an_error(refused):
    with refused(QuantizationError, "lost cannot do w4a8 here", "another format", backend="lost"):
        Job.of("w4a8", backend="lost", backends=known(Lost()))


def test_out_of_memory_on_the_device_packs_that_layer_on_the_cpu_and_says_so():
    class Small(TorchBackend):
        def twin(self, layer, weight: Tensor, bias, form):
            if weight.is_meta and weight.ndim == 4:
                raise torch.OutOfMemoryError("no room")
            return super().twin(layer, weight, bias, form) if not weight.is_meta else nn.Linear(1, 1)

    net = Net(64)
    layer = net.blocks[0][2]
    job = Job.of("w4a8", device=torch.device("meta"), backends={"torch": Small()}, include=["*.2"])
    ((_, linear), (twin, report)) = quantized_layers(net, job)
    assert linear.reason == "no include pattern matches it"
    assert report.note == "packed on the CPU, meta was out of memory"
    assert same_bits(twin.weight, TorchBackend().twin(layer, layer.weight.data, layer.bias, FORMATS["w4a8"]).weight)


def test_out_of_memory_on_the_cpu_is_not_hidden():
    class Full(TorchBackend):
        def twin(self, *arguments):
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        list(quantized_layers(Net(64), Job.of("w4a8", backends={"torch": Full()})))


def test_a_plan_decides_layer_by_layer():
    net = Net(64)
    plan = Plan({"blocks.0.0": resolve_format("w8a8"), "blocks.0.2": None})
    report = qs.quantize(net, "w4a8", backend="torch", plan=plan)
    assert [(layer.format, layer.reason) for layer in report.layers] == [
        ("w8a8/channel", ""),
        ("", "the plan keeps it"),
    ]
    assert isinstance(net.blocks[0][0], QuantizedLinear)
    assert isinstance(net.blocks[0][2], nn.Conv2d)


def test_a_plan_for_a_format_that_a_backend_has_not_is_not_bent():
    job = Job.of("w8a8", recipe="stock", backend="kitchen", plan=Plan({"blocks.0.0": FORMATS["w3a8"]}))
    ((twin, report),) = quantized_layers(Net(256), job)
    assert (twin, report.reason) == (None, "ComfyUI has no native layout for w3a8")


# --- comfy-kitchen's layouts, outside ComfyUI


@pytest.mark.parametrize(
    ("columns", "size"), [(1280, 256), (640, 64), (320, 64), (2816, 256), (48, 16), (100, 0), (8, 0)]
)
def test_a_rotation_divides_the_width(columns, size):
    assert rotation(columns, W8A8) == size
    assert size == 0 or columns % size == 0
    # Regression: 64 and 16 were written for W4A8, and CUDA's kernel threw at the model's first layer.
    assert rotation(columns, W4A8) == (256 if columns % 256 == 0 else 0)


@pytest.mark.parametrize(("name", "bits", "most"), [("w8a8", 8, 0.02), ("w4a4", 4, 0.25)])
def test_native_layouts_on_any_module(name, bits, most):
    net = Net(320)
    layer, x = net.blocks[0][0], torch.randn(5, 320)
    exact = layer(x)
    report = qs.quantize(net, name, backend="kitchen", recipe="stock")
    twin = net.blocks[0][0]
    assert [entry.kernel for entry in report.quantized] == ["eager"]
    assert 0 < ((twin(x) - exact).norm() / exact.norm()).item() < most
    assert ((packed_weight(twin) - layer.weight).norm() / layer.weight.norm()).item() < most
    # One float32 scale per output channel.
    assert stored_bytes(twin.weight) == 64 * 320 * bits // 8 + 64 * 4 == report.quantized[0].bytes_after


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("w3a8",), "no native layout for w3a8"),
        (("w4a4", 32), "one scale per channel"),
        (("w8a8", 0, False), "is symmetric"),
    ],
)
def test_what_no_layout_holds(arguments, reason):
    backend = KitchenBackend()
    assert reason in backend.missing(backend.form(*arguments), CPU)


@pytest.mark.parametrize(
    ("group", "reason"), [(0, "takes groups of 16, 32, 64 or 128"), (8, "takes groups of 16, 32, 64 or 128"), (16, "")]
)
def test_the_groups_of_the_w4a8_layout(monkeypatch, group, reason):
    """With a comfy-kitchen that has no such layout, too."""
    from comfy_kitchen.tensor.base import LAYOUTS

    monkeypatch.setitem(LAYOUTS, W4A8.kind, object())
    backend = KitchenBackend()
    assert backend.missing(backend.form("w4a8", group), CPU).removeprefix(f"{W4A8.algo} ") == reason


def test_widths_that_no_rotation_divides_are_refused_by_name():
    backend = KitchenBackend()

    def refusal(layer: nn.Module, name: str) -> str:
        return backend.refusal(layer, backend.form(name), CPU)

    assert refusal(nn.Linear(100, 8), "w8a8") == "100 inputs are no multiple of 16, as int8_tensorwise needs"
    assert refusal(nn.Linear(48, 8), "w4a4") == "48 inputs are no multiple of 64"
    assert refusal(nn.Linear(640, 8), "w4a8") == "640 inputs are no multiple of 256, as asym_w4a8_int8 needs"
    assert "Linear layers only" in refusal(nn.Conv2d(8, 8, 3), "w8a8")
    grouped = backend.form("w4a8", 48)
    assert backend.refusal(nn.Linear(512, 8), grouped, CPU) == "512 inputs are no multiple of the group, 48"


def test_a_missing_kitchen_is_a_reason_and_no_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy_kitchen.tensor.base", None)
    assert "cannot be imported" in KitchenBackend().missing(FORMATS["w8a8"], CPU)


def test_a_host_that_does_not_know_a_layout_is_named():
    assert KitchenBackend(algorithms=()).missing(FORMATS["w8a8"], CPU) == "this ComfyUI has no int8_tensorwise"


def test_the_report_says_where_torch_multiplies_integers():
    """Per channel and both in 8 bits or fewer, on a device where that pays; a CPU's does not."""
    linear, convolution, gpu = nn.Linear(64, 64), nn.Conv2d(32, 32, 3), torch.device("cuda")
    texts = {
        (name, group, device.type): TorchBackend().kernel(linear, resolve_format(name, group), device)
        for name, group, device in (
            ("w8a8", 0, gpu),
            ("w4a8", 0, gpu),
            ("w4a8", 32, gpu),
            ("w4a16", 0, gpu),
            ("w8a8", 0, CPU),
        )
    }
    assert {key for key, kernel in texts.items() if kernel == "torch's int8 product"} == {
        ("w8a8", 0, "cuda"),
        ("w4a8", 0, "cuda"),
    }
    assert TorchBackend().kernel(convolution, resolve_format("w8a8"), gpu) == "unpacks, float product"
