"""Codes fitted to what a layer sees: the same bytes and scales, a smaller error of the output."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from exactness import same_bits
from layer_inputs import PACKINGS, correlated
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qsched_core import QuantizationError
from qsched_core.quant import (
    KitchenBackend,
    TorchBackend,
    Way,
    fitting,
    module_bytes,
    resolve_format,
    rounding,
)
from qsched_core.quant.files import load_quantized, restore, save_quantized
from qsched_core.quant.fitting import MOST_SMOOTHING, fitted_twin, layer_output, leading_part, output_error, smoothing
from qsched_core.quant.packing import codes, grid_of, pack, unpack
from qsched_core.quant.rounding import NotFitted, fitted_codes, hessians_of

CPU = torch.device("cpu")


def linear(columns: int = 128, outputs: int = 48, bias: bool = True) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(columns, outputs, bias).requires_grad_(False)


def fit(layer: nn.Module, form, rows: Tensor, check_rows: Tensor, backend=None):
    bias = None if layer.bias is None else layer.bias.data
    return fitted_twin(Way(backend or TorchBackend(), form), layer, layer.weight.data, bias, rows, check_rows)


def test_a_cut_costs_little_and_stays_better_than_nearest(monkeypatch):
    layer, rows, check_rows = linear(), correlated(2000, 128), correlated(300, 128, seed=1)
    form = resolve_format("w4a16", 0)
    _, whole = fit(layer, form, rows, check_rows)
    monkeypatch.setattr(rounding, "MAX_COLUMNS", 64)
    _, cut = fit(layer, form, rows, check_rows)
    assert whole.fitted < cut.fitted < cut.nearest


@pytest.mark.parametrize("form", [*PACKINGS, resolve_format("w4a16"), resolve_format("w4a4")], ids=str)
def test_the_output_is_nearer_on_inputs_that_nothing_was_fitted_to(form):
    layer, check_rows = linear(), correlated(500, 128, seed=1)
    twin, report = fit(layer, form, correlated(3000, 128), check_rows)
    nearest = TorchBackend().twin(layer, layer.weight.data, layer.bias.data, form)
    assert report.nearest == pytest.approx(output_error(layer, nearest, layer.weight.data, layer.bias.data, check_rows))
    assert report.fitted == pytest.approx(output_error(layer, twin, layer.weight.data, layer.bias.data, check_rows))
    # Rounded activations have an error of their own, which no weight takes back; 8 bits of it are most of W8A8's.
    assert report.fitted < report.nearest * (0.8 if form.activation_bits > 4 and form.weight_bits < 6 else 1.0)
    assert twin.weight.shape == nearest.weight.shape


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_are_fitted_through_their_patches(groups):
    torch.manual_seed(2)
    layer = nn.Conv2d(16, 24, 3, groups=groups).requires_grad_(False)
    rows = correlated(3000, 16 * 9).view(-1, 16, 3, 3)
    check_rows = correlated(400, 16 * 9, seed=1).view(-1, 16, 3, 3)
    twin, report = fit(layer, resolve_format("w4a16"), rows, check_rows)
    assert report.fitted < 0.9 * report.nearest
    exact = layer(check_rows)
    assert (twin(check_rows) - exact).norm() < 0.91 * report.nearest * (exact - layer.bias[:, None, None]).norm()
    assert twin.shape == tuple(layer.weight.shape)


def test_the_bias_takes_the_mean_error_away():
    layer, rows = linear(), correlated(3000, 128) + 2.0
    twin, _ = fit(layer, resolve_format("w3a8", 0), rows, rows[:200])
    nearest = TorchBackend().twin(layer, layer.weight.data, layer.bias.data, resolve_format("w3a8", 0))
    exact = layer(rows)
    assert (twin(rows) - exact).mean(0).abs().max() < 1e-4 * exact.abs().max()
    assert (nearest(rows) - exact).mean(0).abs().max() > 1e-2 * exact.abs().max()
    bare = linear(bias=False)
    assert fit(bare, resolve_format("w3a8", 0), rows, rows[:200])[0].bias is None


def test_the_weights_do_not_come_near_only_the_output_does():
    """GPTQ leaves the weights farther away: it is the output that counts."""
    weight, form = linear().weight.data, resolve_format("w4a16", 0)
    packed = pack(weight, form)
    _, values = fitted_codes(weight, hessians_of(correlated(3000, 128)), grid_of(packed, 128, form))
    assert (values - weight).norm() > (unpack(packed, 128, form) - weight).norm()


@pytest.mark.parametrize(("rows", "best"), [(40, 1.0), (3000, 0.01)], ids=["few rows", "many rows"])
def test_the_damping_is_the_one_that_is_best_on_other_inputs(rows, best, monkeypatch):
    layer, form, inputs, check_rows = linear(), resolve_format("w4a16"), correlated(rows, 128), correlated(300, 128, 1)
    twin, report = fit(layer, form, inputs, check_rows)
    singles = {}
    for damping in rounding.DAMPINGS:
        monkeypatch.setattr(fitting, "DAMPINGS", (damping,))
        singles[damping] = fit(layer, form, inputs, check_rows)
    assert min(singles, key=lambda damping: singles[damping][1].fitted) == best
    assert report == singles[best][1]
    for damping, (single, _) in singles.items():
        assert same_bits(twin.weight, single.weight) == (damping == best)
        assert same_bits(twin.bias, single.bias) == (damping == best)


# --- comfy-kitchen's tensors


@pytest.mark.parametrize("name", ["w8a8", "w4a8", "w4a4"])
def test_native_tensors_are_fitted_in_their_own_bytes(name):
    backend = KitchenBackend()
    form = backend.form(name)
    if reason := backend.missing(form, CPU):
        pytest.skip(reason)
    layer = linear(columns=256)
    nearest = backend.twin(layer, layer.weight.data, layer.bias.data, form)
    fitting = backend.fitting(layer, nearest, layer.weight.data, form)
    before = nearest.weight.data._qdata.clone()
    rounded = fitting.grids[0].block(torch.arange(256))
    fitting.write(torch.stack([rounded(i, fitting.weight[0][:, i].contiguous())[0] for i in range(256)], 1))
    # Their rotation sums in another order: a weight halfway between two codes may fall to either side.
    assert (nearest.weight.data._qdata != before).float().mean() < 1e-3
    twin, report = fit(layer, form, correlated(3000, 256), correlated(300, 256, 1), backend)
    assert report.fitted < 0.9 * report.nearest
    assert {key: (v.shape, v.dtype) for key, v in twin.weight.data.state_dict("weight").items()} == {
        key: (v.shape, v.dtype) for key, v in nearest.weight.data.state_dict("weight").items()
    }


# --- bad input: nearest, and why


def test_dead_columns_are_rounded_to_nearest():
    layer, rows = linear(), correlated(1000, 128)
    rows[:, 40:50] = 0
    form = resolve_format("w4a16")
    nearest = pack(layer.weight.data, form)
    numbers, _ = fitted_codes(layer.weight.data, hessians_of(rows), grid_of(nearest, 128, form))
    assert same_bits(numbers[:, 40:50].to(torch.int8), codes(nearest, 128, form)[:, 40:50])


def test_fewer_rows_than_columns_are_enough_to_be_better():
    """Of a time embedding every sampling shows the same few points: they lie on few axes."""
    layer = linear()
    rows, check_rows = (correlated(count, 4, seed) @ correlated(4, 128, 3) for count, seed in ((40, 0), (300, 1)))
    _, report = fit(layer, resolve_format("w4a16", 0), rows, check_rows)
    assert report.fitted < report.nearest
    _, report = fit(layer, resolve_format("w4a16", 0), rows[:8], check_rows)
    assert report.fitted is not None  # "fewer than 8" are too few


@pytest.mark.parametrize(("rows", "check_rows", "note"), [
    (None, correlated(20, 128), "fewer than 8 inputs seen"),
    (correlated(7, 128), correlated(20, 128), "fewer than 8 inputs seen"),
    (correlated(100, 128).fill_(float("nan")), correlated(20, 128), "its inputs hold NaN or infinity"),
    (correlated(100, 128), correlated(20, 128).fill_(float("inf")), "its inputs hold NaN or infinity"),
])  # fmt: skip
def test_inputs_that_tell_nothing_leave_nearest(rows, check_rows, note):
    layer, form = linear(), resolve_format("w4a16")
    twin, report = fit(layer, form, rows, check_rows)
    assert (report.fitted, report.note) == (None, note)
    assert same_bits(twin.weight, TorchBackend().twin(layer, layer.weight.data, None, form).weight)


@pytest.mark.parametrize(("error", "note"), [
    (torch.OutOfMemoryError("no"), "out of memory for its Hessian"), (NotFitted("it is odd"), "it is odd"),
])  # fmt: skip
def test_what_goes_wrong_in_the_factorisation_leaves_nearest(monkeypatch, error, note):
    def fail(hessian: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(rounding, "_unit_factor", fail)
    layer, form = linear(), resolve_format("w4a16")
    twin, report = fit(layer, form, correlated(100, 128), correlated(20, 128))
    assert report.note == note
    assert not report.better
    assert same_bits(twin.bias, layer.bias)


def test_fitted_to_other_inputs_than_judged_stays_nearest():
    """Where it got worse on inputs that nothing was fitted to, nearest is kept."""
    layer, form = linear(), resolve_format("w4a16", 0)
    rows = torch.zeros(100, 128)
    rows[:, :4] = correlated(100, 4) * 100
    rows[:, 4:] = rows[:, :1] * 0.3
    check_rows = torch.randn(400, 128, generator=torch.Generator().manual_seed(5))
    twin, report = fit(layer, form, rows, check_rows)
    assert report.fitted > report.nearest
    assert report.note == "fitted was not better"
    assert same_bits(twin.weight, TorchBackend().twin(layer, layer.weight.data, None, form).weight)


def test_no_warning_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(linear(), resolve_format("w4a8"), correlated(100, 128), correlated(20, 128))


def test_the_layers_own_product_is_what_is_judged():
    layer, rows = linear(), correlated(50, 128)
    assert torch.allclose(layer_output(layer, layer.weight.data, rows), layer(rows) - layer.bias, atol=1e-5)


# --- rotation and smoothing, chosen by what they do to the output


def loud(rows: int, seed: int = 0) -> Tensor:
    """A few input columns are a hundred times the others."""
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(seed))
    x[:, ::40] *= 100
    return x


def exact_in_four_bits(weight: Tensor) -> Tensor:
    """Whole numbers from -8 to 7, the least one in each row."""
    whole = torch.randint(-8, 8, weight.shape, generator=torch.Generator().manual_seed(0)).float()
    whole[:, 0] = -8.0
    return whole


def test_smoothing_evens_inputs_and_weights_out():
    weight = torch.tensor([[1.0, 4.0, 0.0, 1.0], [-2.0, 1.0, 0.0, 1.0]])
    scale = smoothing(weight, torch.tensor([8.0, 1.0, 5.0, 0.0]))
    assert same_bits(scale[2:], torch.ones(2))  # no weight, and never anything seen
    assert scale[:2].prod().item() == pytest.approx(1.0)
    assert (scale[0] / scale[1]).item() == pytest.approx(4.0)  # sqrt(8 / 2) / sqrt(1 / 4)
    assert smoothing(weight, torch.tensor([1e9, 1e-9, 1.0, 1.0])).max() == MOST_SMOOTHING


def test_the_error_of_an_output_does_not_depend_on_how_large_it_is():
    layer, rows = linear(bias=False), correlated(200, 128)
    twin = TorchBackend().twin(layer, layer.weight, None, resolve_format("w4a16"))
    error = output_error(layer, twin, layer.weight, None, rows)
    assert 0.01 < error < 0.5
    assert output_error(layer, twin, layer.weight, None, rows * 1e-6) == pytest.approx(error, rel=1e-3)


def test_four_bit_activations_of_loud_columns_are_smoothed():
    layer, rows, check_rows = linear(), loud(3000), loud(400, seed=1)
    form = resolve_format("w4a4", 0)
    bias = layer.bias.data
    twin, report = fitted_twin(
        Way(TorchBackend(), form), layer, layer.weight.data, bias, rows, check_rows, rows.abs().amax(0)
    )
    _, plain = fit(layer, form, rows, check_rows)
    assert twin.input_scale is not None
    assert report.fitted < 0.9 * plain.fitted
    assert output_error(layer, twin, layer.weight.data, bias, check_rows) == pytest.approx(report.fitted)
    # A host's LoRA goes through these: the weight is still the layer's own.
    near = (twin.dequantized() - layer.weight).norm() / layer.weight.norm()
    assert near < 0.5
    wide, _ = fitted_twin(
        Way(TorchBackend(), resolve_format("w4a8")),
        layer,
        layer.weight.data,
        bias,
        rows,
        check_rows,
        rows.abs().amax(0),
    )
    assert wide.input_scale is None


def test_a_rotation_that_harms_is_left_out():
    """Weights that four bits hold exactly: rotated, they would be rounded."""
    layer = linear(bias=False)
    layer.weight.data = exact_in_four_bits(layer.weight.data)
    rows, check_rows = correlated(1000, 128), correlated(200, 128, seed=1)
    twin, report = fit(layer, resolve_format("w4a16", 0), rows, check_rows)
    assert twin.rotation == 0
    assert report.fitted < 1e-3 < report.nearest


@pytest.mark.parametrize("name", ["w4a4", "w4a16"])
def test_both_survive_a_file_bit_for_bit(tmp_path, name):
    layer, rows = linear(), loud(2000)
    if name == "w4a16":
        layer.weight.data = exact_in_four_bits(layer.weight.data)
        rows = correlated(1000, 128)
    twin, _ = fitted_twin(
        Way(TorchBackend(), resolve_format(name, 0)), layer, layer.weight.data, layer.bias.data, rows, rows[:200],
        rows.abs().amax(0),
    )  # fmt: skip
    assert twin.rotation == 0 or twin.input_scale is not None
    path = tmp_path / "a.safetensors"
    save_quantized(nn.ModuleDict({"a": twin}), path)
    packed_file = load_quantized(path)
    other = nn.ModuleDict({"a": linear()})
    assert packed_file.shapes() == {key: tuple(value.shape) for key, value in other.state_dict().items()}
    restore(other, packed_file)
    assert other["a"].rotation == twin.rotation
    assert same_bits(other["a"](rows[:50]), twin(rows[:50]))


@pytest.mark.parametrize(("columns", "rotation"), [(128, 7), (128, True), (128, "64"), (128, -64), (100, 64)])
def test_a_strangers_rotation_is_refused(tmp_path, refused, columns, rotation):
    layer, path = linear(columns, 64), tmp_path / "a.safetensors"
    twin = TorchBackend().twin(layer, layer.weight.data, None, resolve_format("w4a16"))
    save_quantized(nn.ModuleDict({"a": twin}), path)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    layers = json.loads(metadata["layers"])
    layers["a"]["rotation"] = rotation
    save_file(tensors, path, {**metadata, "layers": json.dumps(layers)})
    with refused(QuantizationError, "damaged"):
        load_quantized(path)


@pytest.mark.parametrize(
    ("part", "scale"),
    [
        *(("input_scale", torch.ones(*size)) for size in ((127,), (1, 128))),
        *(("norm_shift", torch.ones(*size)) for size in ((1,), (128, 1))),
        *((name, torch.ones(128, dtype=torch.int64)) for name in ("input_scale", "norm_shift")),
    ],
)
def test_a_strangers_input_scale_or_norms_are_refused(tmp_path, refused, part, scale):
    layer, path = linear(), tmp_path / "a.safetensors"
    twin = TorchBackend().twin(layer, layer.weight.data, None, resolve_format("w4a16"))
    save_quantized(nn.ModuleDict({"a": twin}), path)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    save_file({**tensors, f"a.{part}": scale}, path, metadata)
    with refused(QuantizationError, "damaged"):
        load_quantized(path)


# --- a part of low rank


def test_the_leading_part_is_that_of_a_whole_decomposition():
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    weight += torch.randn(96, 4, generator=torch.Generator().manual_seed(1)) @ torch.ones(4, 128)
    scale = torch.linspace(0.5, 2.0, 128)
    for factor in (None, scale):
        smoothed = weight if factor is None else weight * factor
        left, sizes, right = torch.linalg.svd(smoothed, full_matrices=False)
        exact = (left[:, :8] * sizes[:8]) @ right[:8]
        values = leading_part(weight, factor, 8).weight() * (1.0 if factor is None else factor)
        least = (smoothed - exact).norm()
        assert (smoothed - values).norm() < 1.01 * least  # no part of that rank leaves less
    before = torch.random.get_rng_state()
    leading_part(weight, None, 8)
    assert same_bits(torch.random.get_rng_state(), before)


def ranked(form_name: str, rank: int):
    """A layer with a few directions of large weights, as real ones have them."""
    layer, rows, check_rows = linear(), loud(3000), loud(400, seed=1)
    few = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
    layer.weight.data += 0.3 * few @ torch.randn(4, 128, generator=torch.Generator().manual_seed(2))
    way = Way(TorchBackend(), resolve_format(form_name, 0))
    twin, report = fitted_twin(
        way, layer, layer.weight.data, layer.bias.data, rows, check_rows, rows.abs().amax(0), rank
    )  # fmt: skip
    return layer, twin, report, check_rows


@pytest.mark.parametrize("name", ["w4a4", "w4a8"])
def test_a_branch_brings_the_output_nearer(name):
    _, plain, without, _ = ranked(name, 0)
    layer, twin, report, check_rows = ranked(name, 8)
    assert plain.low_rank is None
    assert twin.low_rank.up.shape == (48, 8)
    assert twin.low_rank.down.dtype == torch.float16
    assert report.fitted < 0.8 * without.fitted
    assert output_error(layer, twin, layer.weight.data, layer.bias.data, check_rows) == pytest.approx(report.fitted)


def test_a_branch_survives_a_file_bit_for_bit(tmp_path):
    _, twin, _, check_rows = ranked("w4a4", 8)
    path, net = tmp_path / "a.safetensors", nn.ModuleDict({"a": twin})
    save_quantized(net, path)
    packed_file, other = load_quantized(path), nn.ModuleDict({"a": linear()})
    assert packed_file.shapes() == {key: tuple(value.shape) for key, value in other.state_dict().items()}
    restore(other, packed_file)
    assert same_bits(other["a"](check_rows), twin(check_rows))
    assert module_bytes(other) == module_bytes(net)


@pytest.mark.parametrize("parts", [
    {"up": torch.ones(48, 8)}, {"up": torch.ones(48, 8), "down": torch.ones(9, 128)},
    {"up": torch.ones(47, 8), "down": torch.ones(8, 128)}, {"up": torch.ones(48, 60), "down": torch.ones(60, 128)},
    {"up": torch.ones(48, 8, dtype=torch.int8), "down": torch.ones(8, 128)},
    {"up": torch.ones(8), "down": torch.ones(8)},
])  # fmt: skip
def test_a_strangers_branch_is_refused(tmp_path, refused, parts):
    layer, path = linear(), tmp_path / "a.safetensors"
    twin = TorchBackend().twin(layer, layer.weight.data, None, resolve_format("w4a16"))
    save_quantized(nn.ModuleDict({"a": twin}), path)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    save_file({**tensors, **{f"a.low_rank.{key}": value for key, value in parts.items()}}, path, metadata)
    with refused(QuantizationError, "damaged"):
        load_quantized(path)
