"""Means of packed layers corrected by calls of the full network."""

from __future__ import annotations

import copy

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn

import qsched_core as qs
from qsched_core.quant import add_to_biases, fitting, input_recorder, mean_correction, quantizer
from qsched_core.quant.correction import Correction, MeanError

CHANNELS, DEPTH, CALLS = 64, 10, 16


class Deep(nn.Module):
    """Convolutions behind each other whose outputs have a mean, as behind a SiLU; the last one is called twice."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = [(4, CHANNELS), *[(CHANNELS, CHANNELS)] * depth, (CHANNELS, 4)]
        for place, size in enumerate(sizes):
            layer = nn.Conv2d(*size, 3, padding=1)
            layer.weight.data *= 2  # else the picture dies out on the way
            setattr(self, f"conv_{place}", layer)

    def forward(self, x: Tensor) -> Tensor:
        *layers, last, end = self.children()
        for layer in layers:
            x = nn.functional.silu(layer(x))
        return end(nn.functional.silu(last(nn.functional.silu(last(x)))))


def inputs(seed: int) -> Tensor:
    return 1 + torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def run_of(net: nn.Module, calls: int = CALLS):
    def run() -> None:
        for seed in range(calls):
            net(inputs(seed))

    return run


@pytest.fixture(scope="module")
def net() -> Deep:
    return Deep().requires_grad_(False)


@pytest.fixture(scope="module")
def shallow() -> Deep:
    """For tests that round as well as they can, which takes long, and look at none of it."""
    return Deep(2).requires_grad_(False)


@pytest.fixture(scope="module")
def observation(net):
    return qs.observe(net, run_of(net))


def error(net: nn.Module, packed: nn.Module, seeds: range = range(100, 108)) -> float:
    pairs = [(packed(inputs(seed)), net(inputs(seed))) for seed in seeds]
    return (sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)).sqrt().item()


def names_of(packed: nn.Module) -> list[str]:
    return [name for name, module in packed.named_modules() if qs.quant.is_packed(module)]


@pytest.mark.parametrize("form", ["w3a8", "w4a16"])
def test_a_deep_network_comes_nearer_on_inputs_that_it_has_not_seen(net, observation, form):
    packed = copy.deepcopy(net)
    qs.quantize(packed, form, group_size=0, observation=observation, quality="fast")
    correction = mean_correction(packed, names_of(packed), observation.calls)
    corrected = copy.deepcopy(packed)
    add_to_biases(corrected, correction.values)
    assert correction.after < 0.8 * correction.before
    assert error(net, corrected) < 0.8 * error(net, packed)
    # What is reported is the error on the last quarter of the calls. 1e-3: sums in another order, through ten layers.
    judges = range(CALLS * 3 // 4, CALLS)
    assert correction.before == pytest.approx(error(net, packed, judges), rel=1e-3)
    assert correction.after == pytest.approx(error(net, corrected, judges), rel=1e-3)


def test_the_quantizer_corrects_what_it_has_fitted_and_says_so(shallow, monkeypatch):
    net, observation = shallow, qs.observe(shallow, run_of(shallow))

    def first(*args) -> Correction:
        return Correction({"conv_1": torch.full((CHANNELS,), 0.5)}, 0.25, 0.125)

    monkeypatch.setattr(fitting, "DAMPINGS", (0.1,))  # how well it is rounded is not looked at here
    packed, plain = copy.deepcopy(net), copy.deepcopy(net)
    assert qs.quantize(copy.deepcopy(net), "w3a8", observation=observation).correction.after is not None
    assert qs.quantize(copy.deepcopy(net), "w3a8", observation=observation, quality="fast").correction is None
    monkeypatch.setattr(quantizer, "mean_correction", lambda *args: Correction(note="none"))
    qs.quantize(plain, "w3a8", group_size=0, observation=observation)
    monkeypatch.setattr(quantizer, "mean_correction", first)
    text = qs.quantize(packed, "w3a8", group_size=0, observation=observation).text()
    assert torch.allclose(packed.conv_1.bias, plain.conv_1.bias + 0.5)
    assert "Means of outputs corrected in 1 layers. Error of the network's output: 0.2500, corrected 0.1250." in text


def test_the_biases_are_what_brings_the_means_back(net, observation):
    packed = copy.deepcopy(net)
    qs.quantize(packed, "w3a8", group_size=0, observation=observation, quality="fast")
    correction = mean_correction(packed, names_of(packed), observation.calls)
    corrected = copy.deepcopy(packed)
    add_to_biases(corrected, correction.values)
    name, learn = names_of(packed)[-3], observation.calls.split()[0]
    target = torch.stack([call.means[name][0] for call in learn]).mean(0)

    def mean_of(module: nn.Module) -> Tensor:
        means = []
        hook = module.get_submodule(name).register_forward_hook(lambda m, a, out: means.append(out.mean((0, 2, 3))))
        for call in learn:
            call.again(module)
        hook.remove()
        return torch.stack(means).mean(0)

    assert (mean_of(corrected) - target).norm() < 0.3 * (mean_of(packed) - target).norm()


def test_a_mean_is_believed_as_far_as_its_calls_agree():
    correction = MeanError()
    correction.see(torch.tensor([1.0, 2.0, -1.0]))
    assert correction.value.tolist() == [0, 0, 0]  # one call cannot tell
    correction.see(torch.tensor([3.0, 2.0, 1.0]))
    # mean 2, its variance by chance 1: 2 (1 - 1/4); no spread; no mean
    assert correction.value.tolist() == [1.5, 2.0, 0.0]


def test_every_call_of_a_layer_counts(observation):
    call = observation.calls.kept[0]
    assert len(call.means[f"conv_{DEPTH}"]) == 2
    assert len(call.means["conv_1"]) == 1


def test_nothing_is_written_where_the_network_comes_no_nearer(net, observation):
    packed = copy.deepcopy(net)
    qs.quantize(packed, "w8a8", observation=observation, quality="fast")
    calls = copy.deepcopy(observation.calls)
    for call in calls.split()[0]:
        call.means = {name: [mean + 1 for mean in means] for name, means in call.means.items()}
    correction = mean_correction(packed, names_of(packed), calls)
    assert not correction.values
    assert correction.after > correction.before
    assert correction.note == "the network's output came no nearer"


def test_a_cancel_leaves_the_network_as_it_was(net, observation):
    packed = copy.deepcopy(net)
    qs.quantize(packed, "w3a8", observation=observation, quality="fast")
    before = {name: value.clone() for name, value in packed.state_dict().items()}
    left = iter(range(6))

    def on_call() -> None:
        if next(left) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mean_correction(packed, names_of(packed), observation.calls, on_call)
    assert not any(module._forward_hooks for module in packed.modules())
    assert all(same_bits(before[name], value) for name, value in packed.state_dict().items())


def test_too_few_calls_are_said(shallow, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "DAMPINGS", (0.1,))
    few = qs.observe(shallow, run_of(shallow, calls=3))
    few.save(tmp_path / "seen.safetensors")
    for observation in (few, qs.load_observation(tmp_path / "seen.safetensors")):
        report = qs.quantize(copy.deepcopy(shallow), "w3a8", observation=observation)
        assert "Means of outputs are not corrected: too few calls of the full model are kept." in report.text()


def test_running_out_of_memory_is_said(net, observation, monkeypatch):
    packed = copy.deepcopy(net)
    qs.quantize(packed, "w3a8", observation=observation, quality="fast")

    def out_of_memory(x):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(packed, "forward", out_of_memory)
    assert "out of memory" in mean_correction(packed, names_of(packed), observation.calls).note


def test_calls_are_bounded_by_their_bytes(net, monkeypatch):
    monkeypatch.setattr(input_recorder, "CALLS_BYTES", 0)
    assert len(qs.observe(net, run_of(net)).calls.kept) == 4  # those of a study


def test_a_study_repeats_the_same_few_calls(net, observation):
    plain = qs.observe(net, run_of(net), fit=False)
    assert len(observation.calls.kept) == CALLS
    assert [call.number for call in observation.calls.some(4)] == [call.number for call in plain.calls.some(4)]
    assert not plain.calls.kept[0].means


def test_a_constant_first_token_keeps_its_row():
    layer = nn.Linear(64, 64).requires_grad_(False)
    root = nn.ModuleDict({"layer": qs.quant.QuantizedLinear.from_float(layer.weight, layer.bias.clone(), FORM)})
    token = torch.randn(64, generator=torch.Generator().manual_seed(0))
    root["layer"].keep_first_token(token, layer.weight, layer.bias)
    add_to_biases(root, {"layer": torch.full((64,), 0.5)})
    x = torch.stack([token, -token])[None]
    assert torch.allclose(root["layer"](x)[0, 0], layer(x)[0, 0], atol=1e-5)


FORM = qs.quant.resolve_format("w8a16")
