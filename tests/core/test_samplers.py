"""Samplers against float64 references of the published updates, and what every one of them promises."""

from __future__ import annotations

import math

import pytest
import torch
from exactness import same_bits
from in_turn import in_turn
from module_files import beside
from torch import Tensor

import qsched_core as qs
from qsched_core import CoefficientError, Coefficients, SamplingError
from qsched_core.precondition import precondition_denoised
from qsched_core.samplers import OPTIONS

published = beside(__file__, "published")
NOISE, FLOW, STEPS, TOLERANCE = published.NOISE, published.FLOW, published.STEPS, published.TOLERANCE
falling_sigmas, random_coefficients, noises = published.falling_sigmas, published.random_coefficients, published.noises
start, relative, Replay = published.start, published.relative, published.Replay

BOTH = pytest.mark.parametrize("dtype", list(published.DTYPES.values()), ids=list(published.DTYPES))
TABLE = torch.logspace(-1.5, 1.2, 60, dtype=torch.float64)
"""Sigmas of 60 training timesteps, 0.03 … 16."""

# Every sampler as a noise and as a flow model runs it: name, first sigma, keyword arguments.
RUNS = {
    "euler": ("euler", 14.6, {}),
    "euler-flow": ("euler", 1.0, {"flow": True}),
    "euler_ancestral": ("euler_ancestral", 14.6, {}),
    "euler_ancestral-flow": ("euler_ancestral", 1.0, {"flow": True}),
    "lcm": ("lcm", 14.6, {}),
    "lcm-flow": ("lcm", 1.0, {"flow": True}),
    "tcd": ("tcd", 14.6, {"table": TABLE}),
    "tcd-flow": ("tcd", 1.0, {"flow": True}),
    "res_multistep": ("res_multistep", 14.6, {}),
    "res_multistep-eta": ("res_multistep", 14.6, {"eta": 1.0}),
    "res_multistep-flow": ("res_multistep", 1.0, {"flow": True}),
    "dpmpp_2m": ("dpmpp_2m", 14.6, {}),
    "dpmpp_2m-flow": ("dpmpp_2m", 1.0, {"flow": True}),
    "er_sde": ("er_sde", 14.6, {}),
    "er_sde-flow": ("er_sde", 1.0, {"flow": True, "first_sigma": 0.999}),
}
EVERY = pytest.mark.parametrize("run", RUNS)


def sample_run(run: str, coefficients: Coefficients, *, model=NOISE.model, **more) -> Tensor:
    name, first, options = RUNS[run]
    steps = len(coefficients)
    return qs.sample(
        name,
        model,
        start(first),
        falling_sigmas(first, steps, 0),
        coefficients,
        **{"noise_sampler": Replay(noises(steps)), **options, **more},
    )


def test_every_sampler_is_run_here():
    assert {name for name, _, _ in RUNS.values()} == set(qs.SAMPLERS)


# --- the published updates


@BOTH
@in_turn("steps", STEPS)
@pytest.mark.parametrize("first", [14.6, 1.0], ids=["noise", "flow"])
def test_euler_is_the_published_update(dtype, steps, first):
    sigmas, coefficients = falling_sigmas(first, steps, steps), random_coefficients(steps, steps)
    reference = published.euler(start(first), sigmas, coefficients)
    result = qs.sample("euler", NOISE.model, start(first).to(dtype), sigmas.to(dtype), coefficients, flow=first == 1.0)
    assert result.dtype == dtype
    assert relative(result, reference) <= TOLERANCE[dtype]


@BOTH
@in_turn("steps", STEPS)
def test_euler_ancestral_is_the_published_update(dtype, steps):
    sigmas, coefficients, z = falling_sigmas(14.6, steps, steps), random_coefficients(steps, steps), noises(steps)
    reference = published.euler_ancestral(start(14.6), sigmas, coefficients, z)
    fresh, x = Replay(z, dtype), start(14.6).to(dtype)
    result = qs.sample("euler_ancestral", NOISE.model, x, sigmas.to(dtype), coefficients, noise_sampler=fresh)
    assert relative(result, reference) <= TOLERANCE[dtype]
    assert len(fresh.requests) == steps - 1  # no noise after the last step


@BOTH
@in_turn("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["euler_ancestral", "tcd"])
@in_turn("steps", STEPS)
def test_renoising_flow_samplers_are_flow_euler_renoised(dtype, name, steps, eta):
    sigmas, coefficients, z = falling_sigmas(1.0, steps, steps), random_coefficients(steps, steps), noises(steps)
    update = published.euler_ancestral_flow if name == "euler_ancestral" else published.tcd_flow
    reference = update(start(1.0), sigmas, coefficients, z, eta)
    fresh, x = Replay(z, dtype), start(1.0).to(dtype)
    result = qs.sample(
        name, FLOW.model, x, sigmas.to(dtype), coefficients, flow=True, noise_sampler=fresh, eta=eta
    )  # fmt: skip
    assert relative(result, reference) <= TOLERANCE[dtype]
    assert len(fresh.requests) == (steps - 1 if eta else 0)


@BOTH
@pytest.mark.parametrize("kind", published.OTHERS)
@pytest.mark.parametrize("ancestral", [False, True], ids=["euler", "euler_ancestral"])
@in_turn("steps", STEPS)
def test_other_parameterisations_scale_the_raw_output_before_it_is_converted(dtype, kind, ancestral, steps):
    sigmas, coefficients, z = falling_sigmas(14.6, steps, steps), random_coefficients(steps, steps), noises(steps)
    kind, x = published.OTHERS[kind], start(14.6)
    for i in range(steps):
        x, denoised = kind.scaled(x, sigmas[i], *coefficients.at(i))
        down = sigmas[i + 1] ** 2 / sigmas[i] if ancestral else sigmas[i + 1]
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        x = x + (sigmas[i + 1] ** 2 - down**2) ** 0.5 * z[i]
    result = qs.sample(
        "euler_ancestral" if ancestral else "euler",
        kind.model,
        start(14.6).to(dtype),
        sigmas.to(dtype),
        coefficients,
        noise_sampler=Replay(z, dtype),
        zero_denoised=kind.zero_denoised,
    )
    assert relative(result, x) <= TOLERANCE[dtype]


# How each is called, and its reference(kind, x, sigmas, coefficients, z, flow).
REFERENCES = {
    "lcm": ("lcm", {}, published.lcm),
    "dpmpp_2m": ("dpmpp_2m", {}, lambda kind, x, sigmas, c, z, flow: published.dpmpp_2m(kind, x, sigmas, c, flow)),
    "res_multistep": ("res_multistep", {}, lambda *a: published.res_multistep(*a[:5], 0.0)),
    "res_multistep-0.6": ("res_multistep", {"eta": 0.6}, lambda *a: published.res_multistep(*a[:5], 0.6)),
    "er_sde-1": ("er_sde", {"max_stage": 1}, lambda *a: published.er_sde(*a, 1)),
    "er_sde-2": ("er_sde", {"max_stage": 2}, lambda *a: published.er_sde(*a, 2)),
    "er_sde-3": ("er_sde", {}, lambda *a: published.er_sde(*a, 3)),
}
KINDS = {"noise": NOISE, "flow": FLOW, **published.OTHERS}


@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", REFERENCES)
@in_turn("steps", STEPS)
def test_samplers_of_denoised_predictions_are_the_published_updates(dtype, kind, case, steps):
    name, options, reference = REFERENCES[case]
    flow, first = kind == "flow", 1.0 if kind == "flow" else 14.6
    x, coefficients, z = start(first), random_coefficients(steps, steps), noises(steps)
    sigmas = falling_sigmas(first, steps, steps)
    exact = sigmas.clone()
    if name == "er_sde" and flow:
        # A float32 of 0.999 would be another sigma, whose odds 999:1 differ by more than the tolerance.
        exact[0] = 1 - 2**-10
        options = {**options, "first_sigma": 1 - 2**-10}
    result = qs.sample(
        name,
        KINDS[kind].model,
        x.to(dtype),
        sigmas.to(dtype),
        coefficients,
        flow=flow,
        noise_sampler=Replay(z, dtype),
        zero_denoised=KINDS[kind].zero_denoised,
        **options,
    )
    assert relative(result, reference(KINDS[kind], x, exact, coefficients, z, flow)) <= TOLERANCE[dtype]


def test_one_step_is_a_gain_on_the_output():
    """Without a trajectory the coefficients reduce to D' = (s - m)·x + m·D."""
    x, sigmas = start(14.6), falling_sigmas(14.6, 1, 0)
    expected = (1.1 - 0.9) * x + 0.9 * NOISE.model(x, sigmas[0].expand(2))
    for name in qs.SAMPLERS:
        more = {"table": TABLE} if name == "tcd" else {}
        result = qs.sample(name, NOISE.model, x, sigmas, Coefficients((1.1,), (0.9,)), **more)
        assert relative(result, expected) <= 1e-12, name  # as above


@pytest.mark.parametrize("run", ["euler_ancestral", "euler_ancestral-flow", "tcd", "tcd-flow"])
def test_without_noise_they_are_euler(run):
    first, flow = RUNS[run][1], "flow" in run
    coefficients = random_coefficients(4, 0)
    euler = qs.sample("euler", NOISE.model, start(first), falling_sigmas(first, 4, 0), coefficients, flow=flow)
    # 1e-12: the last step is x - sigma·d here and D there.
    assert relative(sample_run(run, coefficients, eta=0.0), euler) <= 1e-12


@pytest.mark.parametrize("run", [run for run in RUNS if "s_noise" in OPTIONS[RUNS[run][0]]])
def test_s_noise_scales_the_fresh_noise(run):
    double = [2 * noise for noise in noises(3)]
    more = {} if RUNS[run][0] != "res_multistep" else {"eta": 0.5}
    a = sample_run(run, Coefficients.identity(3), s_noise=2.0, **more)
    b = sample_run(run, Coefficients.identity(3), noise_sampler=Replay(double), **more)
    assert same_bits(a, b)  # times 2 is exact in binary


# --- what every sampler promises


@EVERY
def test_the_identity_goes_on_with_the_very_tensors_of_the_model(run):
    """So it can be the stock sampler bit for bit; that it is, the host's tests show."""
    calls, events = [], []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append((x, NOISE.model(x, sigma)))
        return calls[-1][1]

    def never(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("the identity needs no D0")

    sample_run(run, Coefficients.identity(4), model=model, zero_denoised=never, callback=events.append)
    assert len(events) == 4
    for (x, denoised), item in zip(calls, events, strict=True):
        assert item["x"] is x
        assert item["denoised"] is denoised


@EVERY
def test_a_host_may_scale_x_in_place_once_the_model_has_seen_it(run):
    """Q-Sched's patch drives stock loops so, and ours are such loops to it."""
    coefficients = random_coefficients(4, 0)
    step = iter(range(4))

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        c_x, c_eps = coefficients.at(next(step))
        denoised = precondition_denoised(NOISE.model(x, sigma), x, c_x, c_eps)
        x.mul_(c_x)
        return denoised

    assert same_bits(sample_run(run, Coefficients.identity(4), model=model), sample_run(run, coefficients))


@EVERY
def test_coefficients_of_one_step_change_nothing_before_it(run):
    def trajectory(coefficients: Coefficients) -> list[Tensor]:
        states = []
        sample_run(run, coefficients, callback=lambda event: states.append(event["x"]))
        return states

    stock, changed = trajectory(Coefficients.identity(4)), trajectory(Coefficients((1, 1, 1.1, 1), (1, 1, 0.9, 1)))
    assert [same_bits(a, b) for a, b in zip(stock, changed, strict=True)] == [True, True, False, False]


@EVERY
def test_inputs_are_left_alone(run):
    name, first, options = RUNS[run]
    x, sigmas = start(first), falling_sigmas(first, 3, 0)
    before = x.clone(), sigmas.clone()
    for coefficients in (Coefficients.identity(3), random_coefficients(3, 0)):
        qs.sample(name, NOISE.model, x, sigmas, coefficients, **options)
    assert same_bits(x, before[0])
    assert same_bits(sigmas, before[1])


@EVERY
def test_noise_comes_from_torchs_seed_unless_a_sampler_is_given(run):
    def seeded(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return sample_run(run, Coefficients.identity(3), noise_sampler=None)

    noiseless = run in ("euler", "euler-flow", "res_multistep", "res_multistep-flow", "dpmpp_2m", "dpmpp_2m-flow")
    assert same_bits(seeded(1), seeded(1))
    assert same_bits(seeded(1), seeded(2)) == noiseless


@EVERY
@in_turn("steps", STEPS)
def test_a_run_in_two_parts_is_the_whole_run(run, steps):
    """Split sampling before the last step, which uses no memory in any of them."""
    name, first, options = RUNS[run]
    x, sigmas, coefficients = start(first), falling_sigmas(first, steps, 0), random_coefficients(steps, 0)
    fresh = Replay(noises(steps))
    parts = x
    for begin, end in ((0, steps - 1), (steps - 1, steps)):
        if begin < end:
            part = Coefficients(coefficients.c_x[begin:end], coefficients.c_eps[begin:end])
            cut = sigmas[begin : end + 1]
            parts = qs.sample(name, NOISE.model, parts, cut, part, noise_sampler=fresh, **options)
    # 1e-12: logarithms of a whole schedule and of its part, which kernels may take in other groups.
    assert relative(parts, sample_run(run, coefficients)) <= 1e-12


# --- what the caller is told


def test_the_callback_sees_x_and_denoised_as_the_update_uses_them():
    x, sigmas, coefficients = start(14.6), falling_sigmas(14.6, 3, 0), random_coefficients(3, 0)
    events = []
    final = qs.sample("euler", NOISE.model, x, sigmas, coefficients, callback=events.append)
    assert [item["i"] for item in events] == [0, 1, 2]
    assert [float(item["sigma"]) for item in events] == sigmas[:-1].tolist()
    s, m = coefficients.at(0)
    assert same_bits(events[0]["x"], s * x)
    # 1e-12 as above, for both.
    denoised = s * x - sigmas[0] * m * published.network(x, sigmas[0])
    assert relative(events[0]["denoised"], denoised) <= 1e-12
    assert relative(events[-1]["denoised"], final) <= 1e-12


def test_the_model_and_the_callback_see_the_first_sigma_that_stands_in():
    calls, events = [], []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(float(sigma[0]))
        return NOISE.model(x, sigma)

    sample_run("er_sde-flow", Coefficients.identity(3), model=model, callback=events.append)
    expected = [0.999, *falling_sigmas(1.0, 3, 0)[1:-1].tolist()]
    assert calls == expected
    assert [float(item["sigma"]) for item in events] == expected


def test_a_first_sigma_with_a_ratio_is_not_replaced():
    x, sigmas, identity = start(0.9), falling_sigmas(0.9, 3, 0), Coefficients.identity(3)

    def run(**more) -> Tensor:
        return qs.sample("er_sde", FLOW.model, x, sigmas, identity, noise_sampler=Replay(noises(3)), **more)

    assert same_bits(run(flow=True, first_sigma=0.5), run(flow=True))
    assert same_bits(run(first_sigma=0.5), run())  # a noise model's


@EVERY
@in_turn("bad", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_names_the_step(refused, run, bad):
    sigma = float(falling_sigmas(RUNS[run][1], 4, 0)[2])

    def model(x: Tensor, sigmas: Tensor) -> Tensor:
        denoised = NOISE.model(x, sigmas)
        if sigmas[0] == sigma:
            denoised[1, 0, 0, 0] = bad
        return denoised

    coefficients = Coefficients((1.0, 1.0, 1.25, 1.0), (1.0, 1.0, 0.75, 1.0))
    text = f"step 3 (sigma {sigma:.4g}, c_x 1.25, c_eps 0.75) is not finite."
    with refused(SamplingError, text, step=2, sigma=sigma, c_x=1.25, c_eps=0.75):
        sample_run(run, coefficients, model=model)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_another_number_of_coefficients_than_steps_is_refused(refused, count):
    """Regression: it was a SamplingError, against the docstring of ``sample`` and of CoefficientError."""
    with refused(CoefficientError, f"coefficients and steps differ in number: {count} and 4.", "for_sigmas", steps=4):
        qs.sample("euler", NOISE.model, start(14.6), falling_sigmas(14.6, 4, 0), Coefficients.identity(count))


def test_an_unknown_sampler_is_refused_with_the_known_ones(refused):
    with refused(SamplingError, "'eular'", *qs.SAMPLERS, name="eular"):
        qs.sample("eular", NOISE.model, start(14.6), falling_sigmas(14.6, 4, 0), Coefficients.identity(4))


def test_each_sampler_has_the_options_it_should():
    assert OPTIONS == {
        "euler": (),
        "euler_ancestral": ("eta", "s_noise"),
        "lcm": ("s_noise",),
        "tcd": ("eta", "table"),
        "res_multistep": ("eta", "s_noise"),
        "dpmpp_2m": (),
        "er_sde": ("s_noise", "max_stage", "first_sigma"),
    }


@pytest.mark.parametrize("name", qs.SAMPLERS)
def test_an_unknown_option_is_refused_with_the_known_ones(refused, name):
    """Regression: it was a bare TypeError naming a private function."""
    names = OPTIONS[name] or ("there are none",)
    with refused(SamplingError, f"{name} has no option 'gamma'.", *names, name=name, option="gamma"):
        qs.sample(name, NOISE.model, start(1.0), falling_sigmas(1.0, 2, 0), Coefficients.identity(2), gamma=0.3)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_tcd_refuses_an_eta_out_of_range(refused, eta):
    with refused(SamplingError, f"tcd's eta is {eta}", "0", "1", name="tcd"):
        sample_run("tcd", Coefficients.identity(2), eta=eta)


def test_tcd_of_a_noise_model_says_which_table_it_needs(refused):
    with refused(SamplingError, "sigmas of the training timesteps", "table=", name="tcd"):
        sample_run("tcd", Coefficients.identity(2), table=None)


@pytest.mark.parametrize(
    "table",
    [
        TABLE.flip(0),
        TABLE[None],
        TABLE[:0],
        torch.tensor([0.0, 1.0]),
        torch.tensor([1.0, math.nan]),
        torch.tensor([1.0, 2.0, 2.0]),
    ],
    ids=["descending", "two axes", "empty", "zero", "nan", "one sigma twice"],
)
def test_tcd_refuses_what_is_no_table(refused, table):
    with refused(SamplingError, "tcd's table is not an ascending list.", "(T,)", name="tcd"):
        sample_run("tcd", Coefficients.identity(2), table=table)


@pytest.mark.parametrize("stage", [0, 4, 1.5])
def test_er_sde_refuses_a_stage_it_does_not_have(refused, stage):
    with refused(SamplingError, f"max_stage is {stage}.", "1, 2 or 3", name="er_sde", max_stage=stage):
        sample_run("er_sde", Coefficients.identity(2), max_stage=stage)


@pytest.mark.parametrize("first_sigma", [None, 0.0, 1.0, math.nan])
def test_er_sde_says_what_a_flow_that_starts_at_one_needs(refused, first_sigma):
    with refused(SamplingError, "cannot start a flow at sigma 1.", "first_sigma", name="er_sde"):
        sample_run("er_sde-flow", Coefficients.identity(2), first_sigma=first_sigma)
