"""A kernel is tried before it is trusted: stand-ins that throw and err as CUDA's do, on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from exactness import same_bits
from in_turn import in_turn
from torch import Tensor, nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import Job, KitchenBackend, QuantizedLinear, TorchBackend, resolve_format
from qsched_core.quant import trial as trials
from qsched_core.quant.backends import kitchen
from qsched_core.quant.backends.kitchen import W4A4, W4A8, W8A8, quantized_weight, rotation
from qsched_core.quant.backends.limits import LIMITS, rotations
from qsched_core.quant.quantizer import quantized_layers

CPU = torch.device("cpu")
MESSAGE = "convrot rotate kernel only supports group_size 256"
"""What CUDA's kernels say, word by word."""


@pytest.fixture(autouse=True)
def afresh():
    trials.forget()
    yield
    trials.forget()


@pytest.fixture
def standin(monkeypatch):
    """A backend of comfy-kitchen whose functions are ours, before all others; what it was called with."""
    kitchen_registry = pytest.importorskip("comfy_kitchen.registry")
    from comfy_kitchen.constraints import FunctionConstraints

    registry, name = kitchen_registry.registry, "stand-in"
    priority = list(registry._priority)

    def use(**functions) -> None:
        registry.register(name, SimpleNamespace(**functions), {key: FunctionConstraints() for key in functions})
        registry.set_priority([name, *priority])

    yield use
    registry.set_priority(priority)
    registry._backends.pop(name, None)
    registry._capabilities.pop(name, None)


def eager(function: str):
    from comfy_kitchen.registry import registry

    return registry.get_implementation(function, backend="eager")


def only_256(function: str):
    """The eager function, for rotations of 256; else it throws as CUDA's does."""

    def run(*args, **kwargs):
        integers = [value for value in args if isinstance(value, int)]
        sizes = {*integers, kwargs.get("group_size"), kwargs.get("convrot_groupsize")}
        if sizes & {16, 64}:
            raise RuntimeError(MESSAGE)
        return eager(function)(*args, **kwargs)

    return run


class Net(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(width, 64) for width in widths)


def test_a_kernel_that_throws_is_out_with_its_reason_in_the_report(standin):
    standin(quantize_int8_convrot_weight=only_256("quantize_int8_convrot_weight"))
    report = qs.quantize(net := Net(256, 320), "w8a8", backend="kitchen")
    wide, narrow = report.layers
    assert (wide.backend, wide.note) == ("kitchen", "")
    assert narrow.backend == "torch"
    assert MESSAGE in narrow.note
    assert isinstance(net.blocks[1], QuantizedLinear)
    assert MESSAGE in report.text()


def test_it_is_tried_once_per_kind_and_process(standin):
    calls = []

    def counted(weight, *args, **kwargs):
        calls.append(weight.shape)
        raise RuntimeError(MESSAGE)

    standin(quantize_int8_convrot_weight=counted)
    qs.quantize(Net(256, 256, 256), "w8a8", backend="kitchen")
    qs.quantize(Net(256), "w8a8", backend="kitchen")
    assert len(calls) == 1
    assert [reason for reason in trials.outcomes().values() if reason] == [f"it fails here ({MESSAGE})"]


def test_a_kernel_that_errs_is_out(standin):
    standin(int8_linear=lambda **kwargs: 1.5 * eager("int8_linear")(**kwargs))
    report = qs.quantize(Net(256), "w8a8", backend="kitchen")
    assert report.layers[0].backend == "torch"
    assert "its product of 1 rows errs by 0.5" in report.layers[0].note


def test_a_kernel_that_errs_for_many_rows_alone_is_out(standin):
    """Regression in thought: one token and many have kernels of their own."""

    def wrong(**kwargs):
        out = eager("int8_linear")(**kwargs)
        return out if kwargs["x"].shape[0] == 1 else torch.zeros_like(out)

    standin(int8_linear=wrong)
    assert "33 rows" in KitchenBackend().trial(resolve_format("w8a8"), CPU)


@pytest.mark.parametrize(("factor", "reason"), [(1.05, ""), (1.2, "its product of 1 rows is not the eager one")])
def test_a_kernel_is_out_that_is_within_what_few_bits_err_but_far_from_the_eager_one(standin, factor, reason):
    """Two right kernels may round a code otherwise, and differ a little."""
    form = KitchenBackend().form("w4a4")
    standin(convrot_w4a4_linear=lambda *args, **kwargs: factor * eager("convrot_w4a4_linear")(*args, **kwargs))
    assert KitchenBackend().trial(form, CPU, 256).removeprefix("convrot_w4a4 with rotation 256: ") == reason


def test_stock_keeps_a_layer_that_no_kernel_here_multiplies(standin, refused):
    def broken(**kwargs):
        raise RuntimeError(MESSAGE)

    standin(int8_linear=broken)
    with refused(QuantizationError, "nothing to quantise", "int8_tensorwise with rotation 256", MESSAGE):
        qs.quantize(Net(256), "w8a8", recipe="stock", backend="kitchen")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_kernel_that_throws_only_at_a_larger_shape_falls_back_in_the_run(standin, caplog, dtype):
    calls = []

    def small_only(**kwargs):
        rows = kwargs["x"].numel() // 256  # newer kernels take tokens in any shape
        calls.append(rows)
        if rows > 100:
            raise RuntimeError("too much shared memory requested")
        return eager("int8_linear")(**kwargs)

    weight, x = torch.randn(64, 256).to(dtype), torch.randn(3, 50, 256).to(dtype)
    twin = kitchen.KitchenLinear(quantized_weight(weight, resolve_format("w8a8")), None)
    expected = twin(x)
    standin(int8_linear=small_only)
    caplog.set_level("WARNING")
    assert same_bits(twin(x), expected)
    assert same_bits(twin(x), expected)
    assert calls == [150]  # it threw once, and was not asked again
    assert caplog.text.count("too much shared memory requested") == 1
    assert list(trials.failures().values()) == ["too much shared memory requested"]


def test_a_shape_that_cannot_be_packed_by_the_kernel_is_packed_the_slow_way(standin, caplog):
    weight = torch.randn(64, 256)
    expected = quantized_weight(weight, resolve_format("w8a8"))

    def narrow_only(*args, **kwargs):
        raise RuntimeError("no room in shared memory")

    standin(quantize_int8_convrot_weight=narrow_only)
    result = quantized_weight(weight, resolve_format("w8a8"))
    assert same_bits(result.dequantize(), expected.dequantize())
    assert "no room in shared memory" in caplog.text


def test_what_is_no_kernels_fault_is_raised(standin):
    twin = kitchen.KitchenLinear(quantized_weight(torch.randn(64, 256), resolve_format("w8a8")), None)
    with pytest.raises((RuntimeError, ValueError)):
        twin(torch.randn(3, 100))
    assert not twin.eager_only
    assert not trials.failures()


def test_out_of_memory_is_no_outcome():
    def full() -> str:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        trials.trial("key", full)
    assert trials.trial("key", lambda: "") == ""


# --- what every device takes


@in_turn("columns", range(16, 4097, 16))
def test_nothing_is_written_that_a_known_device_does_not_take(columns):
    for layout in (W4A8, W4A4, W8A8):
        size = rotation(columns, layout)
        if size:
            assert columns % size == 0
            assert all(size in limit.rotations for limit in LIMITS if limit.layout == layout.algo)


def test_the_table_knows_every_layout_on_cuda_and_eager():
    for layout in (W4A8, W4A4, W8A8):
        assert {limit.kernels for limit in LIMITS if limit.layout == layout.algo} >= {"cuda", "hip", "eager"}
    assert rotations(W4A8.algo) == (256,)
    assert rotations("unknown") == ()
    assert all(limit.source for limit in LIMITS)


@pytest.mark.parametrize("columns", [64, 128, 256, 320, 512, 640, 768, 1152, 1280, 2048])
@pytest.mark.parametrize("name", ["w4a8", "w4a4", "w8a8"])
def test_what_stock_packs_holds_the_rotations_of_the_table(columns, name):
    backend = KitchenBackend()
    if backend.missing(backend.form(name), CPU):
        pytest.skip("this comfy-kitchen has no such layout")
    ((twin, report),) = quantized_layers(Net(columns), Job.of(name, recipe="stock", backend="kitchen"))
    layout = next(one for one in (W4A8, W4A4, W8A8) if one.kind == twin.weight.data._layout_cls)
    size = twin.weight.data._params.convrot_groupsize
    assert all(size in limit.rotations for limit in LIMITS if limit.layout == layout.algo)
    assert columns % size == 0
    if name == "w4a8" and columns % 256:
        assert layout is W8A8, "eight bits in place of a rotation that CUDA refuses"
        assert report.format == "w8a8/channel"
        assert "no multiple of 256, as asym_w4a8_int8 needs" in report.note


def test_a_card_below_the_kernels_capability_runs_eager(standin, monkeypatch):
    """Regression: asked for a function alone, the registry says "cuda" on a card where every call then runs eager."""
    from comfy_kitchen.constraints import FunctionConstraints
    from comfy_kitchen.registry import registry

    standin(int8_linear=eager("int8_linear"))
    constraints = FunctionConstraints(min_compute_capability=(8, 0))
    monkeypatch.setitem(registry._constraints, ("stand-in", "int8_linear"), constraints)
    form, card = resolve_format("w8a8"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not KitchenBackend().fast(form, card)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert KitchenBackend().fast(form, card)
    assert not KitchenBackend().fast(form, CPU)


# --- our own products


def test_the_torch_backend_is_tried_as_well(monkeypatch):
    assert TorchBackend().trial(resolve_format("w4a8"), CPU) == ""
    trials.forget()
    product = QuantizedLinear.product
    monkeypatch.setattr(QuantizedLinear, "product", lambda self, x: product(self, x) * (1.3 if len(x) > 1 else 1))
    slow: list[Tensor] = []
    monkeypatch.setattr(
        QuantizedLinear,
        "product",
        lambda self, x: product(self, x) * (slow.append(x) or 1 + len(slow) % 2),  # every other call errs
    )
    assert TorchBackend().trial(resolve_format("w4a8"), CPU) == "its product of 1 rows is not that of the CPU"
    report = list(quantized_layers(Net(64), Job.of("w4a8", backend="torch")))
    assert "not that of the CPU" in report[0][1].reason


@pytest.mark.parametrize("name", ["w4a8", "w4a16", "w4a4", "w8a8", "w6a8", "w3a8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_right_kernels_pass(name, dtype):
    for symmetric in (True, False):
        form = resolve_format(name, symmetric=symmetric)
        assert TorchBackend(dtype=dtype).trial(form, CPU) == ""
    backend = KitchenBackend(dtype=dtype)
    if not backend.missing(backend.form(name), CPU):
        assert backend.trial(backend.form(name), CPU) == ""
