"""The fast way against the slow one: decoding, small and large activations, what a call keeps, what a compiler sees."""

from __future__ import annotations

import pytest
import torch
from in_turn import in_turn
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import call_cost
from qsched_core.quant import FORMATS, QuantizedConv2d, QuantizedLinear, decoding, layers, products, resolve_format
from qsched_core.quant.decoding import decode
from qsched_core.quant.packing import LARGEST_STEP, SMALLEST_STEP, pack, sound_scales, unpack
from qsched_core.quant.rotation import input_gain, rotate_input, rotate_weight
from qsched_core.quant.tokens import quantize_tokens, rounded_tokens, token_codes

CPU = torch.device("cpu")
FORMS = [
    *FORMATS.values(), resolve_format("w4a8", 0), resolve_format("w8a8", 32), resolve_format("w4a8", 24),
    *(resolve_format(name, symmetric=False) for name in ("w4a8", "w6a8", "w8a8")),
]  # fmt: skip


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.mark.parametrize("form", FORMS, ids=str)
@in_turn("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@in_turn("columns", [96, 100, 128, 33])
def test_it_is_the_unpacked_weight(form, dtype, columns):
    weight = random(7, columns)
    weight[2] *= 1e-3
    weight[3] = 0
    weight[4, :40] *= 100
    packed = pack(weight, form)
    slow = unpack(packed, columns, form).double()
    for gain in (1.0, 0.25):
        fast = decode(packed, columns, form, dtype, gain)
        assert fast.shape == (7, columns)
        assert fast.dtype == dtype
        assert torch.equal(decode(packed, columns, form, dtype, gain, in_little_memory=True), fast)
        # One rounding to the type, of a group's largest value; float16's subnormals are 6e-8 apart.
        eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
        atol = 6e-8 + eps * slow.abs().amax(1, keepdim=True) * gain
        assert ((fast.double() - slow * gain).abs() <= atol + 4 * eps * slow.abs() * gain).all()


@in_turn("rows", range(1, 12))
def test_codes_that_lie_in_the_weights_own_memory_are_read_before_they_are_written_over(rows):
    weight = random(rows, 96)
    for form in (FORMATS["w4a8"], resolve_format("w4a8", symmetric=False), resolve_format("w4a8", 0)):
        packed = pack(weight, form)
        for dtype in (torch.float16, torch.bfloat16):
            fast = decode(packed, 96, form, dtype, in_little_memory=True)
            assert torch.equal(fast, decode(packed, 96, form, dtype))


@pytest.mark.parametrize("rows", [1, 5])
def test_a_row_that_starts_at_an_odd_byte_is_read(rows):
    """Three groups of 32: 48 bytes of codes, 3 of steps, and the row's own number at byte 51."""
    packed, form = pack(random(rows, 96), FORMATS["w4a8"]), FORMATS["w4a8"]
    assert relative(decode(packed, 96, form, torch.float16), unpack(packed, 96, form)) < 1e-3


def test_the_table_holds_every_step_that_packing_writes():
    form = FORMATS["w4a8"]
    for size in (2.0**-30, 2.0**-24, 1e-6, 1.0, 6e4, 1e9):
        packed = pack(size * random(4, 64), form)
        assert sound_scales(packed, 64, form)
        assert torch.isfinite(decode(packed, 64, form, torch.bfloat16)).all()
    # The smallest scale there is, clipped as far as is tried: all weights but the first are exact then.
    small = 2.0 ** (SMALLEST_STEP / 12) * torch.arange(128).remainder(15).sub(7)[None]
    small[:, 0] = 2.0**-21
    packed = pack(small, resolve_format("w4a8", 128))
    assert packed[0, -2:].clone().view(torch.int16).item() == SMALLEST_STEP
    assert sound_scales(packed, 128, resolve_format("w4a8", 128))
    packed = pack(random(4, 64), form)
    for step in (SMALLEST_STEP - 1, LARGEST_STEP + 1):
        bad = packed.clone()
        bad[1, -2:] = torch.tensor([step], dtype=torch.int16).view(torch.uint8)
        assert not sound_scales(bad, 64, form), "a file that reads outside of the table"


# --- activations of every size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@in_turn("size", [1e-5, 1e-4, 1e-3, 3e-3, 0.1, 1.0, 100.0, 3e4])
@pytest.mark.parametrize("columns", [1280, 48, 100], ids=["rotated by 64", "by 16", "not rotated"])
def test_small_and_large_inputs_are_as_exact_as_others(dtype, size, columns):
    """Regression: float16 held the scales of tokens, and at 0.003 erred 5 times as much as bfloat16; at 1e-4 all was 0.
    Uniform inputs: normal ones of this size are beyond float16."""
    x = size * (2 * torch.rand(64, columns, generator=torch.Generator().manual_seed(1)) - 1)
    weight = random(96, columns) * columns**-0.5 / 4
    for name, most in (("w8a8", 0.015), ("w8a16", 0.01)):
        twin = QuantizedLinear.from_float(weight, None, FORMATS[name])
        exact = x.to(dtype).double() @ weight.double().T
        # bfloat16 rounds a token's values by 0.2 %; float16 at 1e-5 by 0.4 % each time that it stores them.
        slack = 0.006 if size < 3e-5 and dtype == torch.float16 else 0.0
        assert relative(twin(x.to(dtype)), exact) < most + slack


@pytest.mark.parametrize("size", [64, 16, 0])
def test_a_rotated_float16_input_and_its_gain_give_the_product(size):
    x, weight = random(3, 192), random(5, 192)
    for dtype in (torch.float16, torch.float32):
        product = rotate_input(x.to(dtype), size).double() @ rotate_weight(weight, size).double().T
        assert relative(product * input_gain(size, dtype), x.double() @ weight.double().T) < 2e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_float_weight_in_its_place_gives_the_same_in_half_precision(dtype):
    twin = QuantizedLinear.from_float(0.1 * random(96, 128), random(96, seed=1), FORMATS["w4a8"])
    x = random(5, 128, seed=2).to(dtype)
    # Four roundings to the type.
    assert relative(twin.apply_weight(x, twin.dequantized(dtype)), twin(x)) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@in_turn("bits", [4, 8])
@in_turn("size", [1e-4, 1.0, 3e4])
def test_tokens_are_rounded_in_fewer_passes_as_in_many(dtype, bits, size):
    x = (size * (2 * torch.rand(9, 64, generator=torch.Generator().manual_seed(1)) - 1)).to(dtype)
    x[3] = 0
    x[4, 5:] = 0
    codes, scale = quantize_tokens(x.double(), bits)
    rounded = rounded_tokens(x, bits)
    assert rounded.dtype == dtype
    assert (rounded[3] == 0).all()
    # Exact but for one rounding to the type (float16's subnormals are 6e-8 apart), and for values between two codes.
    least = torch.finfo(dtype).eps * (codes * scale).abs() + (6e-8 if dtype == torch.float16 else 0)
    off = (rounded.double() - codes * scale).abs() > 1e-3 * scale + least
    between = ((x.double() / scale).frac().abs() - 0.5).abs() < 1e-3
    assert not (off & ~between).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_the_codes_of_tokens_are_those_of_the_slow_way(dtype):
    x = random(3, 5, 64).to(dtype)
    x[1] = 0
    expected, scale = quantize_tokens(x.double(), 8)
    codes, largest = token_codes(x)
    assert codes.dtype == torch.int8
    nonzero = torch.ones(15, dtype=torch.bool)
    nonzero[5:10] = False  # of zeros: whatever they are, they are multiplied by 0
    assert (largest[5:10] == 0).all()
    assert torch.equal(codes[nonzero].double(), expected.flatten(0, 1)[nonzero])
    assert relative(largest[nonzero] / 127, scale.flatten(0, 1)[nonzero]) < 1e-6


def test_a_token_of_zeros_is_multiplied_as_integers_to_the_bias(monkeypatch):
    monkeypatch.setattr(layers, "pays", lambda device: True)
    twin = QuantizedLinear.from_float(random(64, 128), random(64, seed=1), FORMATS["w8a8"])
    assert torch.equal(twin(torch.zeros(3, 128))[1], twin.bias)


@pytest.fixture
def counted(monkeypatch):
    """The benchmark's way to count calls on the meta device."""
    for module, cache in ((decoding, "_constants"), (layers.tokens, "_middles"), (layers.rotation, "_matrices")):
        monkeypatch.setattr(module, cache, dict(getattr(module, cache)))
    monkeypatch.setattr(products, "_is_right", products._is_right)
    call_cost.as_on_a_card()


def test_a_call_takes_no_more_kernels_than_it_must(counted):
    """On a GPU each is a launch: it was 30 a Linear and 18 a convolution."""
    x, picture = (torch.empty(size, dtype=torch.float16, device="meta") for size in ((1, 64, 1280), (1, 320, 32, 32)))
    for form in call_cost.FORMS:
        linear = call_cost.cost(call_cost.linear(640, 1280, form), x)
        convolution = call_cost.cost(call_cost.convolution(320, 320, form), picture)
        assert linear["kernels"] <= 10, form
        assert convolution["kernels"] <= 6, form
        assert linear["synchronisations"] == convolution["synchronisations"] == 0, "the device is waited for"


def test_beside_the_weight_lie_only_the_rotated_tokens(counted):
    """Regression: rounded tokens lay beside the rotated ones, 27 MB of FLUX's widest layer."""
    x = torch.empty(1, 2048, 1280, dtype=torch.float16, device="meta")
    for name in ("w4a8", "w4a4", "w4a16"):
        linear = call_cost.linear(2048, 1280, FORMATS[name])
        _, least = call_cost.least_cost(linear, x, 0)
        assert call_cost.cost(linear, x)["peak_mb"] == pytest.approx(least / 1e6, abs=0.1), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [64, 0], ids=["rotated", "not rotated"])
def test_tokens_are_rounded_in_place_only_where_they_are_our_own(dtype, size, monkeypatch):
    x = random(2, 9, 128).to(dtype)
    copy = x.clone()
    twin = QuantizedLinear.from_float(0.1 * random(48, 128), None, FORMATS["w4a8"])
    twin.rotation = size
    out = twin(x)
    assert torch.equal(x, copy)
    monkeypatch.setattr(layers, "rounded_tokens", lambda x, bits, in_place: rounded_tokens(x, bits))
    assert torch.equal(twin(x), out)
    assert torch.equal(rounded_tokens(x.clone(), 8, in_place=True), rounded_tokens(x, 8))


def test_a_convolutions_codes_take_a_third_of_a_byte_beside_its_weight(counted):
    """Regression: they took a byte, half as much as the weight itself."""
    x, weights = torch.empty(1, 640, 8, 8, dtype=torch.float16, device="meta"), 640 * 640 * 9
    for form, scales in ((FORMATS["w4a8"], 8 / 32), (resolve_format("w4a8", symmetric=False), 16 / 32)):
        most = call_cost.cost(call_cost.convolution(640, 640, form), x)["peak_mb"]
        assert most <= weights * (2 + 1 / 3 + scales) / 1e6 + 0.1, form


# --- the integer product in parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_integer_product_is_the_same_in_parts(monkeypatch, dtype, bias):
    monkeypatch.setattr(layers, "pays", lambda device: True)
    twin = QuantizedLinear.from_float(0.1 * random(200, 128), random(200) if bias else None, FORMATS["w8a8"])
    x = random(2, 9, 128).to(dtype)
    whole = twin(x)
    monkeypatch.setattr(layers, "_OUTPUTS_AT_ONCE", 18 * 64)
    assert torch.equal(twin(x), whole)
    monkeypatch.setattr(layers, "pays", lambda device: False)
    assert relative(whole, twin(x)) < 4 * torch.finfo(dtype).eps


def test_an_integer_product_that_throws_at_a_larger_shape_is_replaced(monkeypatch, caplog):
    monkeypatch.setattr(layers, "pays", lambda device: True)
    twin, x = QuantizedLinear.from_float(random(64, 128), None, FORMATS["w8a8"]), random(50, 128)
    expected, product = twin.apply_weight(x, twin.dequantized()), torch._int_mm

    def small_only(a, b):
        if a.shape[0] > 40:
            raise RuntimeError("cublas says no")
        return product(a, b)

    monkeypatch.setattr(torch, "_int_mm", small_only)
    monkeypatch.setattr(products, "_failed", set())
    products._is_right.cache_clear()
    for _ in range(2):
        assert relative(twin(x), expected) < 1e-6
    assert caplog.text.count("cublas says no") == 1


# --- what a call keeps, and what a compiler sees


class Storages(TorchDispatchMode):
    """References to all that is allocated inside."""

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        storages = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        if isinstance(out, Tensor) and out.untyped_storage()._cdata not in storages:
            self.found.append(StorageWeakRef(out.untyped_storage()))
        return out


def packed_layers(dtype: torch.dtype) -> list[tuple[nn.Module, Tensor]]:
    rows = []
    for name in ("w4a8", "w8a8", "w4a16"):
        linear = QuantizedLinear.from_float(0.1 * random(96, 128), random(96), FORMATS[name])
        conv = QuantizedConv2d.like(nn.Conv2d(16, 24, 3, padding=1), random(24, 16, 3, 3), None, FORMATS[name])
        rows += [(linear, random(2, 7, 128).to(dtype)), (conv, random(1, 16, 8, 8).to(dtype))]
    return rows


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_nothing_that_is_allocated_in_a_call_outlives_it(dtype):
    """The host's model compiler replays a block's allocations: what is kept must be there before."""
    layers._prepared.clear()
    decoding._constants.clear()
    layers.rotation._matrices.clear()
    modules = packed_layers(dtype)
    for module, _ in modules:
        module.to(CPU)  # what a host does before it runs one
    with torch.inference_mode(), Storages() as storages:
        for module, x in modules:
            module(x)
    assert len(storages.found) > 20
    assert all(reference.expired() for reference in storages.found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_layers_trace_without_a_break_and_without_building_a_matrix(dtype):
    operations = []

    def backend(graph, inputs):
        operations.append({str(node.target) for node in graph.graph.nodes})
        return graph.forward

    torch._dynamo.reset()
    for module, x in packed_layers(dtype):
        module.to(CPU)
        compiled = torch.compile(module, backend=backend, fullgraph=True)
        with torch.no_grad():
            # Fused and unfused roundings of the type.
            assert relative(compiled(x), module(x)) < 8 * torch.finfo(dtype).eps
    assert len(operations) >= 5  # convolutions alike share a graph
    assert not any("kron" in name or "tensor" in name for names in operations for name in names)
