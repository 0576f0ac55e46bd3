"""One observation of a network: what is kept, within what memory, and what the quantiser makes of it."""

from __future__ import annotations

import copy
import itertools
from itertools import islice

import pytest
import torch
from exactness import same_bits
from flat_network import TOKENS, WIDTH, Flat, inputs, run_of
from torch import Tensor, nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import Job, measure_sensitivity, quantized_layers, quantizer, resolve_format
from qsched_core.quant.input_recorder import FIT_ROWS, Sample, judging_rows
from qsched_core.quant.observation import fingerprint


@pytest.fixture
def net() -> Flat:
    return Flat().requires_grad_(False)


@pytest.fixture
def observation(net):
    return qs.observe(net, run_of(net))


def output_error(net: nn.Module, packed: nn.Module) -> float:
    x, time = inputs(torch.Generator().manual_seed(50), pictures=8)
    exact = net(x, time)
    return ((packed(x, time) - exact).norm() / exact.norm()).item()


# --- what is recorded


def test_a_sample_is_uniform_and_the_same_in_pieces():
    whole, pieces = Sample(10), Sample(10)
    values, parts = torch.full((10,), -1), torch.full((10,), -1)
    places, items = whole.offered(100)
    values[places] = items
    for start in range(0, 100, 7):
        places, items = pieces.offered(min(7, 100 - start))
        parts[places] = items + start
    assert sorted(values.tolist()) == sorted(parts.tolist())
    assert len(set(values.tolist())) == 10


def test_places_order_and_rows_are_told_from_the_calls(observation):
    assert observation.edges() == {
        "layer_0": "it reads the network's input",
        "layer_2": "it writes the network's output",
    }
    assert [name for name in observation.layers if observation.one_row(name)] == ["time"]
    assert observation.idle == ("unused",)
    assert observation.calls.seen == 12


class Picture(nn.Module):
    """As the terrain U-Net begins and ends: a convolution of one channel, and behind it the first that is packed."""

    def __init__(self, inner: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = [(1, 32), *[(32, 32)] * 2, (32, 256), *[(256, 256)] * inner, (256, 32), *[(32, 32)] * 2, (32, 1)]
        for place, size in enumerate(sizes):
            setattr(self, f"conv_{place}", nn.Conv2d(*size, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = torch.tanh(layer(x))
        return x


@pytest.mark.parametrize(("inner", "expected"), [
    (6, ["conv_0", "conv_13", "conv_1", "conv_12"]), (0, ["conv_0", "conv_7"]),
])  # fmt: skip
def test_an_edge_too_small_to_pack_makes_the_next_one_an_edge(inner, expected, tmp_path):
    """Regression: on the terrain U-Net the kept edge had 288 weights, and the 9216 behind it, rounded to four bits,
    moved the mean of every picture: distance 0.12 with 3 observed noises, 0.40 with 6. How well the others are rounded
    is not looked at here: to nearest."""
    net = Picture(inner).requires_grad_(False)
    observation = qs.observe(net, lambda: net(torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))))
    assert list(observation.edges()) == expected  # one that is no small part of the network is packed all the same
    observation.save(tmp_path / "seen.safetensors")
    assert qs.load_observation(tmp_path / "seen.safetensors").edges() == observation.edges()
    report = qs.quantize(net, "w4a16", observation=observation, quality="fast")
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert all(reasons[name] for name in expected)
    assert sum(not reason for reason in reasons.values()) == len(reasons) - len(expected)


def test_the_largest_inputs_are_those_of_all_rows(net):
    largest = []
    hook = net.layer_1.register_forward_pre_hook(lambda module, args: largest.append(args[0].abs().amax((0, 1))))
    observation = qs.observe(net, run_of(net))
    hook.remove()
    assert same_bits(observation.layers["layer_1"].usage.largest, torch.stack(largest).amax(0))
    assert observation.layers["conv"].usage.largest.shape == (WIDTH,)


def test_rows_to_judge_are_not_those_to_fit(observation):
    layer = observation.layers["layer_1"]
    assert (len(layer.fitted), len(layer.judged)) == (9 * 2 * TOKENS, 3 * 2 * TOKENS)
    both = torch.cat([layer.fitted, layer.judged])
    assert len(both.unique(dim=0)) == len(both)
    assert observation.layers["conv"].fitted.shape[1:] == (WIDTH, 1, 3)


def test_the_last_calls_judge(net):
    """They are other prompts: rows of the same pictures would praise every rounding that was fitted to these."""
    inputs = []
    hook = net.layer_1.register_forward_pre_hook(lambda module, args: inputs.append(args[0].flatten(0, 1)))
    observation = qs.observe(net, run_of(net))
    hook.remove()
    check_rows = observation.layers["layer_1"].judged
    assert same_bits(check_rows.sort(0).values, torch.cat(inputs[9:]).sort(0).values)


def test_of_a_single_call_a_quarter_of_the_rows_judges(net):
    """There are no other prompts: then rows drawn at random."""
    layer = qs.observe(net, run_of(net, calls=1)).layers["layer_1"]
    assert (len(layer.fitted), len(layer.judged)) == (2 * TOKENS * 3 // 4, 2 * TOKENS // 4)
    assert len(torch.cat([layer.fitted, layer.judged]).unique(dim=0)) == 2 * TOKENS


def test_rows_are_bounded(net):
    observation = qs.observe(net, run_of(net, calls=120))
    assert len(observation.layers["layer_1"].fitted) == FIT_ROWS
    for name, layer in observation.layers.items():
        assert len(layer.judged) <= judging_rows(net.get_submodule(name))
        assert len(layer.fitted) <= FIT_ROWS


def test_a_small_budget_takes_more_runs_and_gives_the_same_rows(net):
    runs = []

    def run() -> None:
        runs.append(1)
        run_of(net)()

    small = qs.observe(net, run, budget=1)
    assert sum(layer.fitted is not None for layer in small.layers.values()) == 1
    one = qs.observe(net, run_of(net))
    assert len(runs) == 1
    for name in small.layers:
        assert same_bits(small.rows_to_fit(name), one.layers[name].fitted)
        assert sum(layer.fitted is not None for layer in small.layers.values()) == 1
    assert len(runs) == len(small.layers)


@pytest.mark.parametrize(("spare", "expected"), [(-1, 1), (0, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_budget_counts_the_bytes_of_each_layers_rows(spare, expected, dtype):
    """A grouped convolution's rows are as wide as all of its groups."""
    layers = nn.Sequential(nn.Conv2d(32, 64, 3, groups=2), nn.Flatten(2), nn.Linear(100, 64), nn.Linear(64, 64))
    layers.to(dtype).requires_grad_(False)
    widths = [32 * 3 * 3, 100]
    rows = [FIT_ROWS + judging_rows(layers[place]) for place in (0, 2)]
    budget = sum(width * count for width, count in zip(widths, rows, strict=True)) * dtype.itemsize + spare
    observation = qs.observe(layers, lambda: layers(torch.ones(1, 32, 12, 12, dtype=dtype)), budget=budget)
    assert sum(layer.fitted is not None for layer in observation.layers.values()) == expected


def test_nothing_stays_on_the_network(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    qs.observe(net, run_of(net))
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert all(same_bits(before[name], value) for name, value in net.state_dict().items())


def test_a_cancel_leaves_no_hooks(net):
    def on_call(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qs.observe(net, run_of(net), on_call=on_call)
    assert not any(module._forward_pre_hooks for module in net.modules())


# --- what the quantiser makes of it


def test_a_network_of_flat_names_is_quantized_but_for_its_edges(net, observation, refused):
    with refused(QuantizationError, "outside the repeated blocks", "Fix: plug in Observe Layers"):
        qs.quantize(copy.deepcopy(net))
    packed = copy.deepcopy(net)
    report = qs.quantize(packed, observation=observation)
    reasons = {layer.name: layer.reason for layer in report.layers if layer.reason}
    assert reasons == observation.edges()
    formats = {layer.name: layer.format for layer in report.quantized}
    assert formats == {
        "time": "w4a16/g32", "layer_1": "w4a8/g32", "conv": "w4a8/g32", "unused": "w4a8/g32",
    }  # fmt: skip
    assert "sees one row per picture: float activations" in report.text()
    assert "Rounding fitted to what the layers see in 3 of 4 layers." in report.text()
    assert "Rounded to nearest 1: never reached." in report.text()


def test_edges_that_are_asked_for_get_eight_bits(net, observation):
    packed = copy.deepcopy(net)
    report = qs.quantize(packed, "w4a4", observation=observation, include=["*"])
    formats = {layer.name: layer.format for layer in report.quantized}
    assert formats["layer_0"] == formats["layer_2"] == "w8a8/channel"
    assert formats["layer_1"] == "w4a4/g32"


def test_where_float_activations_are_not_to_be_had_one_row_gets_what_was_asked_for(net, observation):
    report = qs.quantize(net, "w8a8", observation=observation, recipe="stock", backend="kitchen")
    assert {layer.name: layer.format for layer in report.quantized}["time"] == "w8a8/channel"
    assert "sees one row per picture" not in report.text()


@pytest.mark.parametrize("form", ["w4a8", "w3a8", "w4a4", "w4a16"])
def test_fitted_networks_are_nearer(net, observation, form):
    fitted, nearest = copy.deepcopy(net), copy.deepcopy(net)
    report = qs.quantize(fitted, form, group_size=0, observation=observation)
    fast = qs.quantize(nearest, form, group_size=0, observation=observation, quality="fast")
    assert output_error(net, fitted) < 0.9 * output_error(net, nearest)
    assert report.bytes_after == fast.bytes_after
    assert "Rounding fitted" not in fast.text()


def test_a_rank_is_kept_beside_the_linear_layers(net, observation, refused):
    plain, ranked = copy.deepcopy(net), copy.deepcopy(net)
    before = qs.quantize(plain, "w4a4", group_size=0, observation=observation)
    after = qs.quantize(ranked, "w4a4", group_size=0, observation=observation, rank=8)
    assert output_error(net, ranked) < output_error(net, plain)
    sizes = {layer.name: layer.bytes_after for layer in after.quantized}
    for layer in before.quantized:
        branch = 2 * 8 * 2 * WIDTH if layer.name in ("time", "layer_1") else 0
        assert sizes[layer.name] - layer.bytes_after == branch
    assert after.bytes_after > before.bytes_after
    for options in ({"rank": 8}, {"rank": 8, "observation": observation, "quality": "fast"}):
        with refused(QuantizationError, "a rank needs an observation"):
            qs.quantize(copy.deepcopy(net), **options)
    best = copy.deepcopy(net)
    qs.quantize(best, "w4a4", group_size=0, observation=observation, quality="best")
    assert best.layer_1.low_rank.up.shape[1] == 16
    with refused(QuantizationError, "best needs an observation"):
        qs.quantize(copy.deepcopy(net), quality="best")
    with refused(QuantizationError, "rank 1000"):
        qs.quantize(copy.deepcopy(net), rank=1000, observation=observation)


def test_it_is_the_same_every_time_and_survives_a_file(net, observation, tmp_path):
    observation.save(tmp_path / "seen.safetensors")
    states = []
    for either in (observation, qs.load_observation(tmp_path / "seen.safetensors")):
        packed = copy.deepcopy(net)
        qs.quantize(packed, observation=either)
        states.append(packed.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(same_bits(states[0][name], states[1][name]) for name in states[0])


def test_fitting_goes_on_where_it_was_cancelled(net, observation, monkeypatch):
    fitted, real = [], quantizer.fitted_twin

    def counted(way, layer, *rest):
        fitted.append(str(way.form))
        return real(way, layer, *rest)

    def packed(form: str = "w4a8", layers: int | None = None) -> dict:
        job = Job.of(form, backend="torch", observation=observation)
        twins = islice((pair for pair in quantized_layers(net, job) if pair[0] is not None), layers)
        return {report.name: twin.weight.clone() for twin, report in twins}

    whole = packed()
    monkeypatch.setattr(quantizer, "fitted_twin", counted)
    packed(layers=2)
    assert len(fitted) == 2
    resumed = packed()
    assert len(fitted) == 3  # "unused" saw nothing
    assert all(same_bits(whole[name], resumed[name]) for name in whole)
    packed(layers=2)
    packed("w3a8", layers=2)  # another job starts anew, and what the first left is let go
    packed()
    assert len(fitted) == 3 + 2 + 2 + 3
    assert not observation.unfinished.layers


def test_a_cancel_takes_effect_within_a_layer(net, observation):
    class Cancelled(BaseException):
        pass

    def packed(check=lambda: None) -> dict:
        job = Job.of("w4a8", backend="torch", observation=observation, check=check)
        return {report.name: twin.weight.clone() for twin, report in quantized_layers(net, job) if twin is not None}

    def stop_at(number: int):
        calls = itertools.count(1)

        def check() -> None:
            if next(calls) == number:
                raise Cancelled

        return check

    whole, count = packed(), itertools.count()
    packed(lambda: next(count))
    checks = next(count)
    assert checks > 2 * len(whole)  # more often than between layers
    for number in (1, 2, checks):
        with pytest.raises(Cancelled):
            packed(stop_at(number))
        assert all(same_bits(weight, whole[name]) for name, weight in packed().items())


def test_in_place_within_a_small_budget(net):
    packed = copy.deepcopy(net)
    observation = qs.observe(packed, run_of(packed), budget=1)
    qs.quantize(packed, "w4a8", group_size=0, observation=observation)
    nearest = copy.deepcopy(net)
    qs.quantize(nearest, "w4a8", group_size=0, observation=observation, quality="fast")
    assert output_error(net, packed) < 0.9 * output_error(net, nearest)


def test_a_study_of_the_same_observation_is_fitted_and_drives_nothing(net, observation):
    def drive() -> None:
        raise AssertionError

    form = resolve_format("w4a16", 0)
    names = ["layer_1", "conv"]
    fitted = measure_sensitivity(net, drive, [form], include=names, observation=observation, depth="network")
    nearest = measure_sensitivity(net, run_of(net), [form], include=names, depth="network")
    for one, other in zip(fitted.layers, nearest.layers, strict=True):
        assert one.measure(form).damage < 0.8 * other.measure(form).damage


# --- bad input


def test_an_observation_of_another_model_is_refused(net, observation, refused):
    other = copy.deepcopy(net)
    other.layer_1.weight.data += 1e-3
    for stranger in (other, nn.Sequential(nn.Linear(WIDTH, WIDTH))):
        with refused(QuantizationError, "observation is of another model"):
            qs.quantize(stranger, observation=observation)
    with refused(QuantizationError, "observation is of another model"):
        measure_sensitivity(other, lambda: None, include=["*"], observation=observation)


def test_a_run_that_reaches_nothing_is_refused(net, refused):
    with refused(QuantizationError, "reached no layer"):
        qs.observe(net, lambda: None)


def test_quality_needs_an_observation(net, refused):
    with refused(QuantizationError, "fitted needs an observation"):
        qs.quantize(net, quality="fitted")
    with refused(QuantizationError, "'finest' is unknown"):
        qs.quantize(net, quality="finest")


@pytest.mark.parametrize(("place", "is_seen"), [(0, True), (15, True), (16, False)])
def test_a_network_is_known_by_16_weights_of_each_layer(place, is_seen):
    """Another number of them, and no file of before would be of its network."""
    net = nn.ModuleDict({"a": nn.Linear(8, 8)}).requires_grad_(False)
    before = fingerprint(net, ["a"])
    net["a"].weight.view(-1)[place] += 1
    assert (fingerprint(net, ["a"]) != before) == is_seen
    assert fingerprint(net, ["a", "b"]) == ""


@pytest.mark.parametrize(("columns", "rows"), [(1280, 102), (8192, 16), (7000, 18), (2**17, 16), (9000, 16)])
def test_a_layer_is_judged_by_a_quarter_of_a_megabyte_in_half_precision_and_by_16_rows(columns, rows):
    assert judging_rows(nn.Linear(columns, 1, device="meta")) == rows
    assert rows == 16 or 0 <= 2**18 - 2 * rows * columns < 2 * columns
