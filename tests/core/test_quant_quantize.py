"""Quantising a whole module: which layers, why not the others, and a report whose numbers add up."""

from __future__ import annotations

import copy
import math
import weakref

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import (
    FORMATS,
    Job,
    LayerReport,
    QuantizedConv2d,
    QuantizedLinear,
    QuantReport,
    TorchBackend,
    module_bytes,
    quantized_layers,
)
from qsched_core.quant.packing import row_bytes

WIDTH = 64


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.ff = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH, bias=False))
        self.gate = nn.Linear(WIDTH, 8)  # 512 weights: too small

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ff(self.norm(x)) * self.gate(x).mean(-1, keepdim=True)


class Net(nn.Module):
    """Built as diffusion models are: projections in and out around repeated blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.proj_in = nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv2d(4, 8, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.proj_out = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("freqs", torch.arange(10, dtype=torch.float64))
        self.register_buffer("steps", torch.arange(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj_in(x)
        for block in self.blocks:
            x = block(x)
        return self.proj_out(x)


INSIDE = [f"blocks.{i}.ff.{j}" for i in range(3) for j in (0, 2)]


def reasons(report: QuantReport) -> dict[str, str]:
    return {layer.name: layer.reason for layer in report.layers}


def quantized_names(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_modules() if isinstance(child, QuantizedLinear)]


# --- in place, and close to what it was


@pytest.mark.parametrize("name", FORMATS)
def test_the_module_is_changed_in_place_and_still_runs(name):
    net, x = Net(), torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
    before, block = net(x), net.blocks[0]
    report = qs.quantize(net, name)
    assert net.blocks[0] is block
    assert quantized_names(net) == INSIDE
    assert report.format == str(FORMATS[name])
    assert {(layer.backend, layer.kernel) for layer in report.quantized} == {("torch", "unpacks, float product")}
    error = ((net(x) - before).norm() / before.norm()).item()
    # Six layers with residuals around them; 0 would mean that nothing was rounded.
    assert 0 < error < 0.2


def test_w4a8_is_the_default():
    assert qs.quantize(Net()).format == "w4a8/g32"


def test_the_bias_and_the_norms_are_kept_exactly():
    net, original = Net(), Net()
    qs.quantize(net)
    assert same_bits(net.blocks[1].ff[0].bias, original.blocks[1].ff[0].bias)
    assert net.blocks[1].ff[2].bias is None
    assert same_bits(net.blocks[1].norm.weight, original.blocks[1].norm.weight)
    assert same_bits(net.proj_in.weight, original.proj_in.weight)


def test_the_weight_is_the_rounded_one_of_the_same_layer():
    net, original = Net(), Net()
    report = qs.quantize(net, "w8a8")
    for layer in report.quantized:
        weight = net.get_submodule(layer.name).dequantized()
        exact = original.get_submodule(layer.name).weight
        error = ((weight - exact).norm() / exact.norm()).item()
        # 8 bits per channel: below 1 %. The report says the same number (1e-6: float32 norms).
        assert error == pytest.approx(layer.error, rel=1e-6)
        assert 0 < error < 0.01


def test_two_runs_give_the_same_bytes():
    one, two = Net(), Net()
    assert qs.quantize(one) == qs.quantize(two)
    for name in INSIDE:
        assert same_bits(one.get_submodule(name).weight, two.get_submodule(name).weight)


def test_a_float_layer_is_let_go_when_its_twin_is_there():
    """Streaming: regression, the walk over the modules once held every replaced layer to the end."""
    net, alive = Net(), []
    layers = [weakref.ref(net.get_submodule(name)) for name in INSIDE]
    for twin, report in quantized_layers(net, Job.of("w4a8")):
        if twin is not None:
            parent, _, leaf = report.name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, twin)
            alive.append(sum(reference() is not None for reference in layers))
    assert alive == [6, 5, 4, 3, 2, 1]  # one is still in the hands of the loop


def test_a_group_size_of_ones_own():
    net = Net()
    assert qs.quantize(net, "w4a8", group_size=16).format == "w4a8/g16"
    assert net.blocks[0].ff[0].weight.shape == (2 * WIDTH, WIDTH // 2 + WIDTH // 16 + 2)


def test_half_precision_models_keep_their_type():
    net = Net().bfloat16()
    qs.quantize(net)
    assert net.blocks[0].ff[0].bias.dtype == torch.bfloat16
    assert net(torch.randn(2, WIDTH).bfloat16()).dtype == torch.bfloat16


def test_an_fp8_checkpoint_is_quantized():
    """Regression: torch has no isfinite for float8."""
    net = Net()
    exact = net.blocks[0].ff[0].weight.detach().to(torch.float8_e4m3fn)
    net.blocks[0].ff[0].weight = nn.Parameter(exact, requires_grad=False)
    qs.quantize(net)
    weight = net.blocks[0].ff[0].dequantized()
    # 10 %: 4 bits in groups of 32.
    assert ((weight - exact.float()).norm() / exact.float().norm()).item() < 0.1


# --- which layers


def test_every_layer_is_accounted_for_with_its_reason():
    assert reasons(qs.quantize(Net())) == {
        "proj_in": "outside the repeated blocks",
        "conv": "fewer than 4096 weights",
        "proj_out": "outside the repeated blocks",
        **dict.fromkeys(INSIDE, ""),
        **{f"blocks.{i}.gate": "fewer than 4096 weights" for i in range(3)},
    }


def test_excluded_layers_are_kept():
    net = Net()
    reasons_of = reasons(qs.quantize(net, exclude=["*.ff.2", "blocks.0.*"]))
    assert [name for name, reason in reasons_of.items() if reason == "excluded by the user"] == [
        "blocks.0.ff.0",
        "blocks.0.ff.2",
        "blocks.0.gate",
        "blocks.1.ff.2",
        "blocks.2.ff.2",
    ]
    assert quantized_names(net) == ["blocks.1.ff.0", "blocks.2.ff.0"]


def test_include_reaches_outside_the_blocks_and_leaves_the_rest():
    net = Net()
    reasons_of = reasons(qs.quantize(net, include=["proj_*", "blocks.1.ff.[0]"]))
    assert quantized_names(net) == ["proj_in", "blocks.1.ff.0", "proj_out"]
    assert reasons_of["blocks.0.ff.0"] == "no include pattern matches it"


def test_exclude_wins_over_include():
    net = Net()
    qs.quantize(net, include=["proj_*"], exclude=["*_out"])
    assert quantized_names(net) == ["proj_in"]


def test_patterns_that_match_no_layer_are_named_in_the_report():
    mistyped = ["blocks.0", "Proj_in"]  # a block without its layers, and a capital letter
    report = qs.quantize(Net(), include=["blocks.*", "proj_in", *mistyped[:1]], exclude=[mistyped[1], "*.gate"])
    assert report.notes[-1] == "These patterns match no layer: blocks.0, Proj_in."
    assert report.notes[-1] in report.text().splitlines()
    assert "match no layer" not in qs.quantize(Net(), exclude=["conv", "*.gate"]).text()  # layers, though kept anyway


def test_patterns_know_upper_and_lower_case(refused):
    with refused(QuantizationError, "include names no layer"):
        qs.quantize(Net(), include=["PROJ_*"])


@pytest.mark.parametrize("patterns", [{"include": "blocks.*"}, {"exclude": "*.ff.2"}], ids=["include", "exclude"])
def test_patterns_given_as_one_text_are_refused(refused, patterns):
    """Regression: a text is a sequence of letters, and its * fitted every layer."""
    net = Net()
    with refused(QuantizationError, "lists of patterns"):
        qs.quantize(net, **patterns)
    assert quantized_names(net) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_kept_with_its_reason(bad):
    net = Net()
    net.blocks[1].ff[0].weight.data[3, 4] = bad
    assert reasons(qs.quantize(net))["blocks.1.ff.0"] == "its weight holds NaN or infinity"
    assert quantized_names(net) == [name for name in INSIDE if name != "blocks.1.ff.0"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: setattr(layer, "forward", lambda x: x), "another node has changed its forward"),
        (lambda layer: layer.register_forward_hook(lambda *_: None), "another node has changed its hooks"),
        (lambda layer: layer.register_forward_pre_hook(lambda *_: None), "another node has changed its hooks"),
        (lambda layer: setattr(layer, "forward", layer.forward), ""),
    ],
    ids=["replaced", "a hook", "a hook before", "put back"],
)
def test_a_layer_whose_call_another_node_has_changed_is_kept(change, reason):
    """Its twin would not have the change: seamless tiling is one."""
    net = Net()
    change(net.blocks[1].ff[0])
    assert reasons(qs.quantize(net))["blocks.1.ff.0"] == reason


def test_a_weight_of_another_kind_is_kept_with_its_reason():
    net = Net()
    net.blocks[1].ff[0].weight = nn.Parameter(torch.zeros(2 * WIDTH, WIDTH, dtype=torch.int8), requires_grad=False)
    assert reasons(qs.quantize(net))["blocks.1.ff.0"] == "its weight is not a plain float matrix"


def test_torchs_attention_keeps_the_layer_whose_weight_it_reads_itself():
    """Regression: nn.MultiheadAttention multiplied with the packed bytes."""
    net, x = Net(), torch.randn(1, 3, WIDTH)
    net.blocks.append(nn.MultiheadAttention(WIDTH, 2, batch_first=True))
    before = net.blocks[3](x, x, x)[0]
    assert reasons(qs.quantize(net))["blocks.3.out_proj"] == "torch's attention reads its weight directly"
    assert same_bits(net.blocks[3](x, x, x)[0], before)


def test_blocks_at_any_depth_count_as_repeated():
    net = nn.Module()
    net.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
    assert [layer.name for layer in qs.quantize(net).quantized] == ["layers.0"]
    net = nn.Module()
    net.input_blocks = nn.ModuleList([nn.Sequential(Block())])
    assert [layer.name for layer in qs.quantize(net).quantized] == ["input_blocks.0.0.ff.0", "input_blocks.0.0.ff.2"]


# --- what is refused


def test_a_module_is_not_quantized_twice(refused):
    net = Net()
    qs.quantize(net)
    before = copy.deepcopy(net.state_dict())
    with refused(QuantizationError, "quantised already", "plug in the model as it was loaded"):
        qs.quantize(net, "w8a8")
    assert all(same_bits(before[name], value) for name, value in net.state_dict().items())


def test_one_quantized_layer_is_enough_to_refuse(refused):
    net = Net()
    qs.quantize(net, include=["proj_in"])
    with refused(QuantizationError, "quantised already"):
        qs.quantize(net)


def test_a_module_without_such_layers_is_refused(refused):
    with refused(QuantizationError, "it has no layer of the kind"):
        qs.quantize(nn.Sequential(nn.LayerNorm(3), nn.GELU()))
    with refused(QuantizationError, "it has no layer of the kind"):
        qs.quantize(nn.ModuleList([nn.Conv2d(64, 64, 3)]), recipe="stock", backend="torch")


def test_a_bare_linear_layer_is_refused(refused):
    """Regression: a report said that it was quantised, and it was as before with a twin under the name ""."""
    layer = nn.Linear(128, 128)
    with refused(QuantizationError, "it has no layer of the kind"):
        qs.quantize(layer, include=["*"])
    assert list(layer.children()) == []


def test_a_module_whose_layers_are_all_kept_is_refused_with_the_most_common_reason(refused):
    net = Net()
    parts = ("nothing to quantise: include names no layer", "include patterns", "such as blocks.0.ff.0")
    with refused(QuantizationError, *parts):
        qs.quantize(net, include=["("])
    assert quantized_names(net) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"format": "int4"}, "'int4'"),
        ({"backend": "gguf"}, "'gguf'"),
        ({"recipe": "everything"}, "'everything'"),
    ],
)
def test_unknown_formats_and_backends_are_refused_before_anything_changes(refused, arguments, text):
    net = Net()
    with refused(QuantizationError, text):
        qs.quantize(net, **arguments)
    assert quantized_names(net) == []


# --- the report


def test_the_totals_of_the_report_add_up():
    net = Net()
    floats = sum(parameter.numel() for parameter in net.parameters()) + 10  # freqs
    report = qs.quantize(net)
    assert report.bytes_before == 2 * floats + 5 * 8  # every float counts as FP16; steps is int64
    assert report.bytes_after == module_bytes(net)
    saved = sum(layer.bytes_before - layer.bytes_after for layer in report.layers)
    assert report.bytes_before - report.bytes_after == saved


def test_the_bytes_of_each_layer_are_its_packed_rows():
    report = qs.quantize(Net())
    for layer in report.layers:
        rows, columns = layer.shape[0], math.prod(layer.shape[1:])
        count = rows * columns
        assert layer.bytes_before == 2 * count
        packed = rows * row_bytes(columns, FORMATS["w4a8"])
        assert layer.bytes_after == (2 * count if layer.reason else packed)
        assert (layer.error > 0) == (not layer.reason)


def test_the_error_is_relative_to_the_weight():
    errors = []
    for factor in (1.0, 2**-7, 0.0):
        net = Net()
        with torch.no_grad():
            net.blocks[0].ff[0].weight *= factor
        errors.append(next(layer.error for layer in qs.quantize(net).layers if layer.name == "blocks.0.ff.0"))
    # 1 %: small scales are a little coarser in float16.
    assert errors[1] == pytest.approx(errors[0], rel=0.01)
    assert errors[2] == 0.0


def test_quantized_are_the_layers_without_a_reason():
    report = qs.quantize(Net())
    assert [layer.name for layer in report.quantized] == INSIDE


def test_the_text_says_what_a_person_asks():
    ours = ("w4a8/g32", "torch", "unpacks")
    layers = (
        LayerReport("blocks.0.a", (100, 50), "", 10_000, 2_500, 0.08, *ours),
        LayerReport("blocks.0.b", (10, 50), "", 1_000, 250, 0.02, *ours),
        LayerReport("blocks.0.d", (10, 48), "", 1_000, 250, 0.02, "w4a8/g16", "kitchen", "cuda"),
        LayerReport("blocks.0.c", (10, 5, 3, 3), "", 1_000, 250, 0.02, *ours, "convolutions are not native"),
        LayerReport("in", (10, 50), "outside the repeated blocks", 1_000, 1_000, 0.0),
        LayerReport("out", (10, 50), "outside the repeated blocks", 1_000, 1_000, 0.0),
        LayerReport("c", (1, 50), "fewer than 4096 weights", 100, 100, 0.0),
    )
    report = QuantReport(layers, 5_140_000_000, 1_500_000, ("Not quanto: it is not installed.",))
    assert report.format == "w4a8/g32 + w4a8/g16"
    assert report.text() == (
        "3 of 6 Linear layers and 1 of 1 convolutions quantised.\n"
        "Model 5.14 GB at FP16 -> 1.50 MB (0.00x). Mean relative weight error 0.035.\n"
        "2 Linear layers: w4a8/g32, torch (unpacks).\n"
        "1 Linear layer: w4a8/g16, kitchen (cuda).\n"
        "1 convolution: w4a8/g32, torch (unpacks); convolutions are not native.\n"
        "Not quanto: it is not installed.\n"
        "Convolutions round their weights only, activations stay in floating point.\n"
        "Kept 2: outside the repeated blocks.\n"
        "Kept 1: fewer than 4096 weights.\n"
        "Largest error 0.080: blocks.0.a (100x50)."
    )


@pytest.mark.parametrize(
    ("layers", "count", "lines"),
    [
        ([("w4a4/g32", "torch")], 0, []),
        ([("w8a8/channel", "torch"), ("w4a16/g32/asym", "torch")], 1,
         ["The last step: as the others, no activation has fewer than 8 bits."]),
        ([("w4a4/g32", "torch"), ("w8a8/channel", "kitchen")], 3,
         ["The last 3 steps: 8-bit activations in 1 layers, from the same weights."]),
        ([("w4a4/channel", "kitchen"), ("w4a4/g32", "torch")], 1,
         ["The last step: 8-bit activations in 2 layers, from the same weights.",
          "1 of them are ComfyUI's own layers, whose kernel has 4-bit activations alone: there the weight is unpacked"
          " for a float product."]),
    ],
    ids=["none", "wide already", "ours", "native"],
)  # fmt: skip
def test_the_text_says_what_the_last_steps_run_with(layers, count, lines):
    """Convolutions round no activations, and are not counted."""
    linear = [LayerReport("a", (100, 50), "", 100, 25, 0.1, form, backend) for form, backend in layers]
    convolution = LayerReport("b", (10, 5, 3, 3), "", 100, 25, 0.1, "w4a4/g32", "torch")
    text = QuantReport((*linear, convolution), 200, 50, last_steps=count).text()
    assert [line for line in text.splitlines() if "last" in line or "own layers" in line] == lines


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 kB"), (2_500, "2.5 kB"), (999_900, "999.9 kB"), (10**6, "1.00 MB"), (10**9, "1.00 GB")],
)
def test_sizes_are_told_in_the_unit_that_fits(count, text):
    assert f"Model {text} at FP16 -> {text}" in QuantReport((), count, count).text()


def test_a_report_without_quantized_layers_can_be_told_too():
    assert QuantReport((), 1000, 500).text() == (
        "0 of 0 Linear layers quantised.\nModel 1.0 kB at FP16 -> 0.5 kB (0.50x). Mean relative weight error 0.000."
    )


def test_a_tensor_that_two_modules_share_is_counted_once():
    net = Net()
    alone = module_bytes(net)
    net.again = net.proj_in
    net.twin = nn.Linear(WIDTH, WIDTH)
    net.twin.weight = net.proj_in.weight
    assert module_bytes(net) == alone + 2 * WIDTH  # the twin's own bias


# --- quantized_layers, the door for hosts


def test_quantized_layers_only_reads_and_asks_for_the_values():
    net, names = Net(), []

    def weight_of(name: str, parameter: Tensor) -> Tensor:
        names.append(name)
        return parameter * 2

    pairs = list(quantized_layers(net, Job.of("w8a8"), weight_of))
    assert quantized_names(net) == []
    twins = {report.name: twin for twin, report in pairs if twin is not None}
    assert list(twins) == INSIDE
    assert names[:2] == ["blocks.0.ff.0.weight", "blocks.0.ff.0.bias"]
    exact = 2 * net.blocks[0].ff[0].weight
    # 1 %: 8 bits per channel.
    assert ((twins["blocks.0.ff.0"].dequantized() - exact).norm() / exact.norm()).item() < 0.01
    assert same_bits(twins["blocks.0.ff.0"].bias, 2 * net.blocks[0].ff[0].bias)


def test_quantized_layers_builds_the_kind_it_is_given():
    class Own(QuantizedLinear):
        pass

    own = {"torch": TorchBackend({nn.Linear: Own, nn.Conv2d: QuantizedConv2d})}
    twins = [twin for twin, _ in quantized_layers(Net(), Job.of("w4a8", backends=own)) if twin is not None]
    assert {type(twin) for twin in twins} == {Own}
