"""What each layer loses in each format, on what it really sees; and the plan that follows."""

from __future__ import annotations

import copy
import itertools
import random

import pytest
import torch
from exactness import same_bits
from torch import Tensor, nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import (
    Measure,
    Plan,
    QuantizedLinear,
    fitting,
    load_quantized,
    measure_sensitivity,
    module_bytes,
    resolve_format,
    restore,
    save_quantized,
)
from qsched_core.quant.input_recorder import FEWEST_ROWS, VALUES, observing
from qsched_core.quant.sensitivity.measure import content_and_quality

WIDTH, TOKENS, PLACES = 64, 7, 8
W4, W8 = resolve_format("w4a8"), resolve_format("w8a8")


class Block(nn.Module):
    """A convolution, and attention's reading of a text without the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, stride=1, padding=1, groups=2)
        self.to_k = nn.Linear(WIDTH, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + torch.tanh(self.conv(x))
        tokens = x.flatten(2).transpose(1, 2)
        keys = self.to_k(context)
        read = torch.softmax(tokens @ keys.transpose(1, 2) / 8, -1) @ keys
        return x + self.out(read).transpose(1, 2).reshape(x.shape)


class Net(nn.Module):
    """Layers that differ much in what they lose: weights of one have long tails."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.proj_in = nn.Conv2d(4, WIDTH, 1)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.blocks.append(nn.Linear(WIDTH, WIDTH))  # never reached
        self.proj_out = nn.Conv2d(WIDTH, 4, 1)
        self.blocks[1].out.weight.data.pow_(5).mul_(3000)

    def forward(self, x: Tensor, *, context: Tensor, options: dict) -> tuple[Tensor, dict]:
        options["left"].pop()  # a network may use its arguments up
        x = self.proj_in(x)
        for block in list(self.blocks)[:3]:
            x = block(x, context)
        return self.proj_out(x), options


NAMES = [f"blocks.{i}.{leaf}" for i in range(3) for leaf in ("conv", "to_k", "out")]


def inputs(prompt: int, first: Tensor | None = None) -> tuple[Tensor, dict]:
    generator = torch.Generator().manual_seed(prompt)
    context = torch.randn(1, TOKENS, WIDTH, generator=generator)
    if first is not None:
        context[:, 0] = first
    x = torch.randn(1, 4, PLACES, PLACES, generator=generator)
    return x, {"context": context, "options": {"left": [1]}}


def driving(net: Net, prompts: int = 3, first: Tensor | None = None):
    def drive() -> None:
        for prompt in range(prompts):
            x, more = inputs(prompt, first)
            net(x, **more)

    return drive


def outlier() -> Tensor:
    """Such as CLIP's start of text: long, and along few axes."""
    token = torch.randn(WIDTH, generator=torch.Generator().manual_seed(9))
    token[5] = 60.0
    return token


def true_error(net: Net, plan: Plan) -> float:
    """Of the output, on prompts that no study has seen."""
    packed = copy.deepcopy(net)
    qs.quantize(packed, plan=plan, include=["blocks.?.*"])
    errors = []
    for prompt in range(100, 106):
        (x, more), (_, again) = inputs(prompt), inputs(prompt)
        exact, result = net(x, **more)[0], packed(x, **again)[0]
        errors += content_and_quality(result, exact)
    return sum(error**2 for error in errors) ** 0.5


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


@pytest.fixture(scope="module", params=["layers", "network"])
def study(request, net):
    return measure_sensitivity(net, driving(net), depth=request.param)


# --- what is measured


def test_every_layer_that_would_be_packed_and_ran_is_measured(net, study):
    assert [layer.name for layer in study.layers] == NAMES
    assert study.idle == ("blocks.3",)
    assert study.calls == 3
    for layer in study.layers:
        four, eight, floats = (layer.measure(form) for form in (W4, W8, None))
        assert four.error > 3 * eight.error > floats.error == floats.damage == 0
        assert layer.shape == tuple(net.get_submodule(layer.name).weight.shape)


def test_a_layers_error_is_that_of_its_output(net):
    """Few rows: then the sample is all there was."""
    inputs = []
    layer = net.blocks[2].out
    with layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0])):
        driving(net)()  # by itself: a layer that somebody else has hooked is not quantised
    study = measure_sensitivity(net, driving(net), include=["blocks.2.out"])
    twin = QuantizedLinear.from_float(layer.weight.detach(), layer.bias.detach(), W4)
    exact = torch.cat([layer(x) - layer.bias for x in inputs])
    result = torch.cat([twin(x) - layer.bias for x in inputs])
    error = (result - exact).norm() / exact.norm()
    assert study.layers[0].measure(W4).error == pytest.approx(error.item(), rel=1e-4)


def test_a_convolutions_patches_give_its_outputs(net):
    inputs = []
    layer = nn.Conv2d(32, 64, 3, stride=2, padding=(2, 1), dilation=2, groups=4)
    holder = nn.ModuleList([layer])
    holder.forward = lambda x: layer(x)
    x = torch.randn(2, 32, 11, 9, generator=torch.Generator().manual_seed(1))
    inputs.append(holder(x))
    study = measure_sensitivity(holder, lambda: holder(x), include=["0"])
    packed = nn.ModuleList([copy.deepcopy(layer)])
    qs.quantize(packed, include=["0"])
    result = packed[0](x) - layer.bias[:, None, None]
    exact = inputs[0] - layer.bias[:, None, None]
    error = ((result - exact).norm() / exact.norm()).item()
    # All positions fit into the sample: the same numbers in another order.
    assert study.layers[0].measure(W4).error == pytest.approx(error, rel=1e-4)


def test_the_networks_error_is_that_of_the_network_with_the_packed_layer(net):
    name = "blocks.1.out"
    study = measure_sensitivity(net, driving(net, prompts=2), depth="network", include=[name])
    packed = copy.deepcopy(net)
    qs.quantize(packed, include=[name])
    errors = []
    for prompt in range(2):
        (x, more), (_, again) = inputs(prompt), inputs(prompt)
        errors.append(content_and_quality(packed(x, **again)[0], net(x, **more)[0]))
    content, quality = (sum(e**2 / 2 for e in part) ** 0.5 for part in zip(*errors, strict=True))
    measure = study.layers[0].measure(W4)
    assert (measure.content, measure.quality) == (pytest.approx(content, rel=1e-3), pytest.approx(quality, rel=1e-3))


def test_content_is_what_is_where_and_quality_is_texture():
    generator = torch.Generator().manual_seed(1)
    exact = torch.randn(2, 3, 10, 9, generator=generator)  # not in whole fours
    assert content_and_quality(exact, exact) == (0.0, 0.0)
    coarse = torch.randn(2, 3, 3, 3, generator=generator)
    shift = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :10, :9]
    content, quality = content_and_quality(exact + shift, exact)
    assert content > 1
    assert quality < 1e-6
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(5, 5)[:, :8]
    content, quality = content_and_quality(exact[..., :8] + checks, exact[..., :8])
    assert content < 1e-6
    assert quality > 0.5
    content, quality = content_and_quality(exact[0, 0] * 1.5, exact[0, 0])
    assert content == quality == pytest.approx(0.5)


def test_kurtosis_finds_the_long_tails(study):
    values = {layer.name: layer.kurtosis for layer in study.layers}
    assert max(values, key=values.get) == "blocks.1.out"
    assert values["blocks.0.out"] < 3 < values["blocks.1.out"]  # 1.8: evenly distributed


def test_the_rows_kept_are_bounded(net):
    large = nn.ModuleList([nn.Linear(256, 64), nn.Linear(16384, 8)])
    large.forward = lambda: [layer(torch.ones(2, 300, layer.in_features)) for layer in large]
    with observing(large, {"0": large[0], "1": large[1]}, 1, lambda number: None) as recorder:
        large()
        large()
    assert recorder.rows["0"].values.shape == (VALUES // 256, 256)
    assert recorder.rows["1"].values.shape == (FEWEST_ROWS, 16384)


def test_two_studies_are_the_same(net):
    one, two = (measure_sensitivity(net, driving(net), depth="network").layers for _ in range(2))
    assert one == two


# --- nothing stays behind


def test_the_network_is_only_read(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure_sensitivity(net, driving(net), depth="network")
    assert hooks(net) == 0
    assert all(same_bits(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("when", ["recording", "layer", "network"])
def test_a_cancel_leaves_no_hooks(net, when):
    class Cancelled(BaseException):
        pass

    def progress(done, total, text):
        if text.startswith(when) and done >= (0 if when == "recording" else 2):
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_sensitivity(net, driving(net), depth="network", on_progress=progress)
    assert hooks(net) == 0


@pytest.mark.parametrize("depth", ["layers", "network"])
def test_a_cancel_takes_effect_while_a_layer_is_fitted(net, depth, monkeypatch):
    monkeypatch.setattr(fitting, "DAMPINGS", (0.1,))  # how well it is rounded is not looked at here

    class Cancelled(BaseException):
        pass

    observation, part = qs.observe(net, driving(net)), ["blocks.0.*"]  # a layer of each kind

    def count(check) -> None:
        measure_sensitivity(net, lambda: None, include=part, depth=depth, observation=observation, check=check)

    calls = itertools.count()
    count(lambda: next(calls))
    last = next(calls) - 1
    for number in (0, last):
        numbers = itertools.count()

        def stop(number=number, numbers=numbers) -> None:
            if next(numbers) == number:
                raise Cancelled

        with pytest.raises(Cancelled):
            count(stop)
        assert hooks(net) == 0


def test_progress_is_told_from_start_to_end(net):
    events = []
    measure_sensitivity(net, driving(net), depth="network", on_progress=lambda *args: events.append(args))
    assert sum(text.startswith("recording") for _, _, text in events) == 3
    evaluations = [(done, total) for done, total, text in events if text.startswith("network")]
    total = evaluations[0][1]
    assert total >= len(NAMES) * 2 * 3
    assert evaluations == [(done, total) for done in range(total)]


# --- the first token


def test_a_constant_first_token_is_found(net):
    study = measure_sensitivity(net, driving(net, first=outlier()))
    tokens = {layer.name: layer.first_token for layer in study.layers if layer.first_token is not None}
    assert list(tokens) == [f"blocks.{i}.to_k" for i in range(3)]
    assert same_bits(tokens["blocks.0.to_k"], outlier())
    assert study.plan(average_bits=5).first_tokens.keys() == tokens.keys()


@pytest.mark.parametrize(("prompts", "first"), [(3, None), (1, outlier()), (3, torch.zeros(WIDTH))])
def test_no_first_token_where_it_varies_or_one_prompt_cannot_tell(net, prompts, first):
    study = measure_sensitivity(net, driving(net, prompts, first))
    assert all(layer.first_token is None for layer in study.layers)


def test_keeping_it_takes_most_of_the_error_away(net):
    """Rounded per token, the outlier takes the levels that its other values would need: its row is the worst."""
    study = measure_sensitivity(net, driving(net, first=outlier()), depth="network")
    with_token = study.layers[1].measure(W4)
    plan = study.uniform(W4)
    packed, without = copy.deepcopy(net), copy.deepcopy(net)
    qs.quantize(packed, plan=plan, include=["*.to_k"])
    qs.quantize(without, include=["*.to_k"])
    (x, more), (_, two), (_, three) = (inputs(50, outlier()) for _ in range(3))
    exact = net.blocks[0].to_k(more["context"])
    row_output, plain_output = (other.blocks[0].to_k(more["context"]) for other in (packed, without))
    assert (row_output[:, 0] - exact[:, 0]).norm() < 1e-5 * exact[:, 0].norm()
    assert (plain_output[:, 0] - exact[:, 0]).norm() > 1e-2 * exact[:, 0].norm()
    assert same_bits(row_output[:, 1:], plain_output[:, 1:])
    error = (row_output[:, 1:] - exact[:, 1:]).norm() / exact[:, 1:].norm()
    assert with_token.error == pytest.approx(error.item(), rel=0.2)  # another prompt's tokens
    exact = net(x, **more)[0]
    assert (packed(x, **two)[0] - exact).norm() < 0.7 * (without(x, **three)[0] - exact).norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_row_is_the_float_layers_in_every_type(dtype):
    torch.manual_seed(3)
    layer, token = nn.Linear(WIDTH, 96), outlier().to(dtype)
    twin = QuantizedLinear.like(layer, layer.weight.detach(), layer.bias.detach(), W4)
    twin.keep_first_token(token, layer.weight.detach(), layer.bias.detach())
    x = torch.randn(2, 5, WIDTH).to(dtype)
    x[0, 0] = token
    exact, result = nn.functional.linear(x.float(), layer.weight, layer.bias), twin(x).float()
    plain = QuantizedLinear.like(layer, layer.weight.detach(), layer.bias.detach(), W4)(x).float()
    tolerance = 4 * torch.finfo(dtype).eps * (token.float().norm() * layer.weight.norm(dim=1)).max()
    assert (result[0, 0] - exact[0, 0]).abs().max() < tolerance
    assert same_bits(result[1], plain[1])  # not the token
    assert same_bits(result[0, 1:], plain[0, 1:])
    flat = x[0]  # without a token axis the first row is a batch's
    assert same_bits(twin(flat), twin(flat.clone()[None])[0]) is False
    assert same_bits(copy.deepcopy(twin)(x).float(), result)


def with_tokens(net: Net) -> Net:
    packed = copy.deepcopy(net)
    study = measure_sensitivity(net, driving(net, first=outlier()))
    qs.quantize(packed, plan=study.plan(average_bits=5))
    return packed


def test_it_survives_a_file_bit_for_bit(net, tmp_path):
    packed, path = with_tokens(net), tmp_path / "a.safetensors"
    save_quantized(packed, path)
    packed_file = load_quantized(path)
    assert packed_file.shapes() == {name: tuple(value.shape) for name, value in net.state_dict().items()}
    other = Net()
    restore(other, packed_file)
    (x, one), (_, two) = inputs(7, outlier()), inputs(7, outlier())
    assert same_bits(other(x, **one)[0], packed(x, **two)[0])
    assert module_bytes(other) == module_bytes(packed)


ATTACKS = {
    "too long": lambda t, name: t.update({f"{name}.first_token": torch.ones(WIDTH + 1)}),
    "integers": lambda t, name: t.update({f"{name}.first_residual": torch.ones(WIDTH, dtype=torch.int64)}),
    "half of it": lambda t, name: t.pop(f"{name}.first_residual"),
    "on a convolution": lambda t, name: t.update(
        {"blocks.0.conv.first_token": torch.ones(WIDTH), "blocks.0.conv.first_residual": torch.ones(WIDTH)}
    ),
    "as long as a convolution's kernel": lambda t, name: t.update(
        {"blocks.0.conv.first_token": torch.ones(3), "blocks.0.conv.first_residual": torch.ones(3)}
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_strangers_first_token_is_refused(net, tmp_path, refused, attack):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / "a.safetensors"
    save_quantized(with_tokens(net), path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    ATTACKS[attack](tensors, "blocks.0.to_k")
    save_file(tensors, path, metadata)
    with refused(QuantizationError, "damaged"):
        load_quantized(path)


# --- halves of a skip connection


def test_groups_join_where_the_halves_of_an_input_differ():
    """One half of the input is 30 times the other, and its weights a thirtieth: both halves count alike."""
    torch.manual_seed(1)
    layer, alike = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
    layer.weight.data[:, :32] /= 30
    net = nn.ModuleList([layer, alike])
    x = torch.randn(1, 64, 8, 8)
    skip = torch.cat([30 * x[:, :32], x[:, 32:]], 1)
    net.forward = lambda: (layer(skip), alike(x))[0]
    per_channel = resolve_format("w4a8", 0)
    study = measure_sensitivity(net, lambda: net(), [per_channel, W8], include=["0", "1"])
    split, plain = study.layers
    assert split.measure(W4).error < 0.2 * split.measure(per_channel).error
    assert plain.measure(W4) is None
    plan = study.plan(average_bits=4.5)
    assert plan.forms == {"0": W4, "1": per_channel}
    assert "w4a8/g32" in study.text(plan)


# --- plans


def test_the_plan_is_the_best_within_its_bits(net, study):
    plan = study.plan(average_bits=6)
    assert study.bits(plan) <= 6
    draw, others = random.Random(0), []
    while len(others) < 20:
        forms = {name: draw.choice((W4, W8)) for name in NAMES}
        other = Plan(forms)
        if study.bits(other) <= 6:
            others.append(other)
    assert all(study.predicted(plan) < study.predicted(other) for other in others)
    assert study.predicted(plan) < study.predicted(study.uniform(W4))
    assert study.bits(study.plan(average_bits=16)) == 16
    assert study.predicted(study.plan(average_bits=16)) == 0


def test_the_plan_draws_better_than_uniform_and_random_ones_of_its_size(net):
    study = measure_sensitivity(net, driving(net), depth="network")
    planned = true_error(net, plan := study.plan(average_bits=7))
    draw, others = random.Random(1), []
    while len(others) < 8:
        other = Plan({name: draw.choice((W4, W4, W8, None)) for name in NAMES})
        if 0 <= study.bits(plan) - study.bits(other) < 0.3:
            others.append(true_error(net, other))
    assert planned < true_error(net, study.uniform(W4))
    assert planned < min(others)


def test_bytes_are_those_of_the_quantized_module(net):
    for first in (None, outlier()):
        study = measure_sensitivity(net, driving(net, first=first))
        plan = study.plan(average_bits=5)
        packed = copy.deepcopy(net)
        report = qs.quantize(packed, plan=plan, exclude=["blocks.3"])
        assert {layer.name: layer.format for layer in report.quantized} == {
            name: str(form) for name, form in plan.forms.items() if form is not None
        }
        tokens = sum(2 * 2 * WIDTH for name in plan.first_tokens if plan.forms[name] is None)
        assert module_bytes(packed) == study.bytes(plan) - tokens
        assert study.bytes(study.plan(total_bytes=study.bytes(plan))) <= study.bytes(plan)


def test_the_account(study):
    plan = study.plan(average_bits=6)
    lines = study.text(plan, worst=4).splitlines()
    assert lines[0].startswith("9 layers studied on 3 evaluations")
    assert "bits a weight" in lines[1]
    table = lines[lines.index("") + 1 :]
    assert table[0].split()[:2] == ["layer", "kurtosis"]
    assert len(table) == 5
    worst = table[1].split()
    assert worst[0] == max(study.layers, key=lambda layer: layer.measure(W4).damage).name
    assert worst[-1] == str(plan.forms[worst[0]] or "float")
    assert "Not reached, so not in the plan: 1, for example blocks.3." in lines
    for form in ("w4a8/g32", "w8a8/channel"):
        assert any(line.startswith(f"{form} everywhere: ") for line in lines)


def test_wrong_requests_are_refused(net, study, refused):
    with refused(QuantizationError, "4 bits a weight are too few", least=study.bits(study.uniform(W4))):
        study.plan(average_bits=4)
    with refused(QuantizationError, "bytes too small"):
        study.plan(total_bytes=study.other_bytes)
    for budget in ({}, {"average_bits": 5, "total_bytes": 10**6}):
        with refused(QuantizationError, "one budget"):
            study.plan(**budget)
    with refused(QuantizationError, "'deep' is unknown", depth="deep"):
        measure_sensitivity(net, driving(net), depth="deep")
    with refused(QuantizationError, "no format"):
        measure_sensitivity(net, driving(net), [])
    with refused(QuantizationError, "reached no layer"):
        measure_sensitivity(net, lambda: None)
    with refused(QuantizationError, "no layer to study", "Fix: plug in the FP16 model (in Python: set include)"):
        measure_sensitivity(net, driving(net), include=["nothing"])
    assert hooks(net) == 0


def test_damage_is_the_squared_error_of_the_network_where_it_was_measured():
    assert Measure(None, 1, 0.5).damage == 0.25
    assert Measure(None, 1, 0.5, 0.3, 0.4).damage == pytest.approx(0.25)
    assert Measure(None, 1, 0.5, 0.3, 0.1).damage == pytest.approx(0.10)
