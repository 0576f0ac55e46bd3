"""The precision of each step: a value that is checked, found again by sigma, and reaches the layers through the run."""

from __future__ import annotations

import json
import threading

import pytest
import torch
from torch import nn

import qsched_core as qs
from qsched_core.precision import LastSteps, in_run, read_steps
from qsched_core.quant import bit_cost, step_bits

SIGMAS = (10.0, 5.0, 2.0, 1.0, 0.0)


@pytest.mark.parametrize(("bits", "sigmas", "text"), [
    ((4, 4, 4, 5), SIGMAS, "5 activation bits"), ((4, 4, 4, True), SIGMAS, "True activation bits"),
    ((4, 8), SIGMAS, "activation bits and steps differ in number: 2 and 4"),
])  # fmt: skip
def test_bits_that_no_layer_has_are_refused(refused, bits, sigmas, text):
    with refused(qs.QuantizationError, text):
        qs.Precision(bits, sigmas)


def test_sigmas_must_fall(refused):
    with refused(qs.SamplingError, "rises"):
        qs.Precision((4, 4), (1.0, 2.0, 0.0))


def test_the_last_steps_are_those_of_a_picture(refused):
    assert qs.Precision.last_steps(SIGMAS, 1).activation_bits == (4, 4, 4, 8)
    assert qs.Precision.last_steps(SIGMAS, 9).activation_bits == (8, 8, 8, 8)
    assert qs.Precision.last_steps(SIGMAS, 0).activation_bits == (4, 4, 4, 4)
    assert qs.Precision.last_steps(SIGMAS[2:], 1).activation_bits == (4, 8)  # the second half of a split run
    assert qs.Precision.last_steps(SIGMAS[:3], 1).activation_bits == (4, 4)  # the first half ends above 0
    with refused(qs.QuantizationError, "-1 last steps"):
        qs.Precision.last_steps(SIGMAS, -1)


def test_a_sigma_finds_its_step():
    precision = qs.Precision((4, 8, 4, 16), SIGMAS)
    bits = [precision.bits_at(sigma) for sigma in (80.0, 10.0, 9.999, 5.001, 5.0, 3.0, 2.0, 1.0, 0.4, 0.0)]
    assert bits == [4, 4, 4, 8, 8, 8, 4, 16, 16, 16]


def test_other_schedules_get_the_bits_of_the_same_sigmas():
    precision = qs.Precision((4, 8, 4, 16), SIGMAS)
    assert precision.for_sigmas(SIGMAS) == precision
    assert precision.for_sigmas((5.0, 2.0)).activation_bits == (8,)
    assert precision.for_sigmas((2.0, 0.0)).activation_bits == (16,)  # fewer steps never lose a wide one
    assert precision.for_sigmas((1.0, 0.5, 0.0)).activation_bits == (16, 16)
    assert precision.for_sigmas((20.0, 15.0)).activation_bits == (4,)


@pytest.mark.parametrize(("end", "bits"), [(3.6, 4), (3.5, 8), (3.4, 8), (2.0, 8)])
def test_a_long_step_gets_the_bits_of_a_short_one_that_it_covers_by_half(end, bits):
    """The plan's second step, with more bits, goes from 5 to 2."""
    assert qs.Precision((4, 8, 4, 4), SIGMAS).for_sigmas((10.0, end)).activation_bits == (bits,)


@pytest.mark.parametrize(("start", "bits"), [(5.5, 4), (5.4, 8), (5.3, 8)])
def test_a_short_step_gets_the_bits_of_a_long_one_that_covers_half_of_it(start, bits):
    assert qs.Precision((4, 8, 4, 4), SIGMAS).for_sigmas((start, 4.6)).activation_bits == (bits,)


def test_a_plan_is_plain_where_every_layer_keeps_its_own_bits_in_one_model():
    assert qs.Precision((4, 4, 4, 4), SIGMAS).is_plain and qs.Precision((4, 4, 4, 4), SIGMAS, (0,) * 4).is_plain
    assert not qs.Precision((4, 4, 4, 8), SIGMAS).is_plain and not qs.Precision((8,) * 4, SIGMAS).is_plain
    assert not qs.Precision((4, 4, 4, 4), SIGMAS, (0, 0, 0, 1)).is_plain


@pytest.mark.parametrize("run", [(0.0, 1.0, 2.0), (1.0, 1.0, 0.0), (float("nan"), 0.0), (1.0,), ()], ids=str)
def test_what_is_no_schedule_has_no_last_steps_and_keeps_a_plan_of_own_sigmas(run):
    assert in_run(LastSteps(1), run) is None
    plan = qs.Precision((4, 8), (1.0, 0.5, 0.0))
    assert in_run(plan, run) is plan


def test_the_last_steps_are_a_plan_like_others():
    assert in_run(LastSteps(1), SIGMAS) == qs.Precision.last_steps(SIGMAS, 1)
    assert in_run(qs.Precision((4, 8), (10.0, 2.0, 0.0)), SIGMAS).activation_bits == (4, 4, 8, 8)


@pytest.mark.parametrize(("models", "text"), [
    ((0, 0, 0, 8), "step 4 has model 8"), ((0, 0, -1, 0), "step 3 has model -1"), ((0, 1.0, 0, 0), "model 1.0"),
    ((0, 1), "models and steps differ in number: 2 and 4"),
])  # fmt: skip
def test_models_that_no_library_has_are_refused(refused, models, text):
    with refused(qs.QuantizationError, text):
        qs.Precision((4, 4, 4, 4), SIGMAS, models)


def test_a_step_gets_the_model_that_covers_most_of_it():
    plan = qs.Precision((4, 4, 4, 4), (1.0, 0.75, 0.5, 0.25, 0.0), (0, 0, 1, 2))
    assert plan.model_count == 3
    assert [plan.model_at(sigma) for sigma in (2.0, 1.0, 0.5, 0.3, 0.25, 0.0)] == [0, 0, 1, 1, 2, 2]
    assert plan.for_sigmas((1.0, 0.5, 0.0)).models == (0, 2)  # of two alike the later: it makes what remains
    assert plan.for_sigmas((1.0, 0.0)).models == (2,)
    assert plan.for_sigmas((1.0, 0.9, 0.6, 0.4, 0.1, 0.0)).models == (0, 0, 1, 2, 2)
    assert plan.for_sigmas((3.0, 2.0)).models == ()  # above the plan's range: its first model, which is the first
    assert qs.Precision((4, 4), (1.0, 0.5, 0.0), (0, 0)).models == ()


def test_a_step_gets_the_model_that_covers_most_of_it_and_not_the_last_that_covers_some():
    plan = qs.Precision((4, 4, 4, 4), (1.0, 0.75, 0.5, 0.25, 0.0), (0, 1, 2, 3))
    assert plan.for_sigmas((1.0, 0.7, 0.4, 0.0)).models == (0, 1, 3)
    assert plan.for_sigmas((1.0, 0.75, 0.5)).models == (0, 1)


def test_a_plan_without_models_is_one_of_the_first():
    plan = qs.Precision((4, 8, 16, 4), SIGMAS)
    assert plan.text() == "1, 1a8, 1a16, 1" and plan.model_count == 1
    assert {plan.model_at(sigma) for sigma in (20.0, 10.0, 3.0, 0.0)} == {0}
    assert plan.for_sigmas(SIGMAS[:3]) == qs.Precision((4, 8), SIGMAS[:3])


def test_a_plan_as_a_person_writes_it(refused):
    steps = read_steps("1, 1 1a8;2a16", 2)
    assert steps == ((0, 4), (0, 4), (0, 8), (1, 16))
    models, bits = zip(*steps, strict=True)
    assert qs.Precision(bits, SIGMAS, models).text() == "1, 1, 1a8, 2a16"
    for text, message in (
        ("", "the plan has 0 steps"), ("1, 3", "names model 3, and 2 models are plugged in"),
        ("1, two", "'two' of the plan"),
        ("1a5", "'1a5' of the plan"), ("0", "'0' of the plan"), ("1 " * 1001, "1001 steps"), ("\u0661", "of the plan"),
    ):  # fmt: skip
        with refused(qs.QuantizationError, message):
            read_steps(text, 2)
    with refused(qs.QuantizationError, "the plan names model 2, and one model is plugged in.", "plug it in"):
        read_steps("1, 2", 1)
    assert read_steps("1 " * 1000, 1) == ((0, 4),) * 1000


def test_a_plan_in_a_file_has_1000_steps_at_most(refused):
    def text(steps: int) -> str:
        sigmas = [100 - i / 11 for i in range(steps + 1)]
        return json.dumps({"bits": [16] * steps, "models": [7] * steps, "sigmas": sigmas})

    assert len(qs.Precision.read_json(text(1000))) == 1000
    with refused(qs.QuantizationError, "this file's plan of the steps is damaged.", "download or save it again"):
        qs.Precision.read_json(text(1001))
    short = text(1)
    assert len(qs.Precision.read_json(short + " " * (64_000 - len(short)))) == 1
    with refused(qs.QuantizationError, "this file's plan of the steps is damaged."):
        qs.Precision.read_json(short + " " * (64_001 - len(short)))


def test_a_plan_in_a_file_is_checked(refused):
    plan = qs.Precision((4, 8, 4, 16), SIGMAS, (0, 1, 0, 1))
    assert qs.Precision.read_json(plan.as_json()) == plan
    for text in (
        "", "[]", "{}", '{"bits": [4], "models": [], "sigmas": "ab"}',
        '{"bits": [4], "models": [], "sigmas": [1, null]}',
        '{"bits": [4], "models": [], "sigmas": [true, 0]}', '{"bits": 4, "models": [], "sigmas": [1, 0]}', "[" * 70000,
        '{"bits": [4], "models": [], "sigmas": [NaN, 0]}',
    ):  # fmt: skip
        with refused((qs.QuantizationError, qs.SamplingError), ""):
            qs.Precision.read_json(text)


def test_the_cost_of_a_step_is_bits_times_bits():
    for form, cost in (("w4a4", 16), ("w4a8", 32), ("w8a8", 64), ("w4a16", 64)):
        net = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(128, 128)])}).requires_grad_(False)
        assert bit_cost(net) == 1
        qs.quantize(net, form, backend="torch")
        assert bit_cost(net) == cost / 256
    half = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(128, 128), nn.Linear(128, 128)])}).requires_grad_(False)
    qs.quantize(half, "w4a4", backend="torch", exclude=["*.1"])
    assert bit_cost(half) == (16 + 256) / 2 / 256
    assert bit_cost(half, 8) == (32 + 256) / 2 / 256


@pytest.mark.parametrize(("form", "layout", "cost"), [("w4a4", "convrot_w4a4", 16), ("w8a8", "int8_tensorwise", 64)])
def test_the_hosts_own_layouts_cost_what_the_same_format_of_ours_does(form, layout, cost):
    net = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(256, 128)])}).requires_grad_(False)
    qs.quantize(net, form, backend="kitchen", recipe="stock")
    net["blocks"][0].quant_format = layout  # as ComfyUI's layers have it
    assert bit_cost(net) == cost / 256
    assert bit_cost(net, 8) == max(cost, 32) / 256


def packed(form: str = "w4a4") -> nn.Module:
    torch.manual_seed(0)
    net = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(128, 128)])}).requires_grad_(False)
    qs.quantize(net, form, backend="torch")
    return net["blocks"][0]


def rounding_error(layer: nn.Module, x: torch.Tensor) -> float:
    """Of the activations alone."""
    exact = torch.nn.functional.linear(x, layer.dequantized(), layer.bias)
    return ((layer(x) - exact).norm() / exact.norm()).item()


def test_a_run_widens_activations_and_leaves_nothing_on_the_layer(refused):
    layer, x = packed(), torch.randn(2, 9, 128, generator=torch.Generator().manual_seed(1))
    before, plain = dict(vars(layer)), layer(x)
    errors = {}
    for bits in (4, 8, 16):
        with qs.least_activation_bits(bits):
            errors[bits] = rounding_error(layer, x)
            assert dict(vars(layer)) == before
    assert errors[16] < 1e-6 < errors[8] < 0.02 < errors[4]
    assert torch.equal(layer(x), plain)
    with refused(qs.QuantizationError, "5 activation bits"), qs.least_activation_bits(5):
        pass
    with qs.least_activation_bits(4):
        assert step_bits(16) == 16  # never fewer than the format's own


def test_two_threads_have_two_precisions():
    layer, x = packed(), torch.randn(1, 9, 128, generator=torch.Generator().manual_seed(1))
    bits = []
    with qs.least_activation_bits(8):
        thread = threading.Thread(target=lambda: bits.append(layer(x)))
        thread.start()
        thread.join()
        wide = layer(x)
    # Not to the bit: a thread has its own number of threads to multiply with, and so another order of sums.
    assert torch.allclose(bits[0], layer(x), atol=1e-5)
    assert not torch.allclose(bits[0], wide, atol=1e-3)


def test_compiled_layers_follow_the_step_without_a_break():
    layer, x = packed(), torch.randn(1, 9, 128, generator=torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    plain = compiled(x)
    with qs.least_activation_bits(8):
        wide = compiled(x)
        assert torch.allclose(wide, layer(x), atol=1e-5)
    assert not torch.allclose(wide, plain, atol=1e-3)
    assert torch.equal(compiled(x), plain)


def test_sampling_takes_the_report_s_last_steps():
    torch.manual_seed(0)
    net = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(128, 128)])}).requires_grad_(False)
    report = qs.quantize(net, "w4a4", backend="torch", last_steps=1)
    assert report.last_steps == 1
    assert "The last step: 8-bit activations in 1 layers" in report.text()
    bits = []

    def model(x, sigma):
        bits.append(step_bits(4))
        return net["blocks"][0](x)

    sigmas, identity = torch.tensor(SIGMAS), qs.Coefficients.identity(4)
    qs.sample("euler", model, torch.randn(2, 128), sigmas, identity, precision=report.precision(SIGMAS))
    qs.sample("euler", model, torch.randn(2, 128), sigmas, identity)
    assert bits == [4, 4, 4, 8, 4, 4, 4, 4]


@pytest.mark.parametrize(("form", "count"), [("w4a4", 1), ("w4a8", 0), ("w4a16", 0)])
def test_by_default_one_step_where_activations_have_four_bits(form, count, refused):
    torch.manual_seed(0)
    net = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(128, 128)])}).requires_grad_(False)
    report = qs.quantize(net, form, backend="torch")
    assert report.last_steps == count
    assert (report.precision(SIGMAS) is not None) == bool(count)
    with refused(qs.QuantizationError, "last_steps -1"):
        qs.quantize(net, form, backend="torch", last_steps=-1)
