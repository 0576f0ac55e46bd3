"""The three doors: on a MODEL, on a SAMPLER, in one node. All must do what the core's samplers do, and no more."""

from __future__ import annotations

import pytest
import torch
from exactness import differ, same_bits
from pairs import pairs

pytestmark = pytest.mark.usefixtures("one_thread")

COEFFICIENTS = ((0.93, 0.97, 1.02, 1.05), (0.88, 0.95, 1.04, 1.08))
KINDS = ("EPS", "V_PREDICTION", "FLOW")


@pytest.fixture(params=KINDS)
def model(request, models):
    return models[request.param]


@pytest.fixture
def flow(models):
    return models["FLOW"]


@pytest.fixture
def preset(pack, tiny, model):
    core = pack("qsched_core")
    return core.Preset(core.Coefficients(*COEFFICIENTS), tuple(tiny.schedule(model).tolist()))


def stock(name: str):
    import comfy.samplers

    return comfy.samplers.sampler_object(name)


@pytest.mark.parametrize(
    ("name", "kind", "cfg"),
    pairs(("euler", "euler_ancestral", "lcm", "tcd", "res_multistep", "dpmpp_2m", "er_sde"), KINDS, (1.0, 3.0)),
)
def test_a_driven_sampler_equals_the_core(pack, tiny, models, name, kind, cfg):
    model = models[kind]
    patch, coefficients = pack("nodes.sampling.patch"), pack("qsched_core").Coefficients(*COEFFICIENTS)
    sigmas, sampler = tiny.schedule(model), pack("nodes.sampling.sampler_menu").sampler_object(name)
    ours = tiny.run(patch.apply_coefficients(model, coefficients, sigmas.tolist()), sampler, sigmas, cfg)
    reference = tiny.run(model, tiny.core_sampler(pack, name, coefficients, model), sigmas, cfg)
    plain = tiny.run(model, sampler, sigmas, cfg)
    # float32, four steps: the two differ only in the order of a few roundings.
    assert torch.linalg.norm(ours - reference) <= 2e-6 * torch.linalg.norm(reference)
    assert torch.linalg.norm(ours - plain) > 1e-2 * torch.linalg.norm(plain), "the coefficients did nothing"


def test_three_doors_give_the_same_picture(pack, tiny, model, preset):
    import comfy.sample

    nodes, sampling, patch = pack("nodes.apply"), pack("nodes.sampling.ksampler"), pack("nodes.sampling.patch")
    data, sigmas = tiny.inputs(), tiny.schedule(model)
    noise = comfy.sample.prepare_noise(data["latent_image"], 5)
    (on_model,) = nodes.QSchedApply.execute(model, preset, 1.0, "refuse").args
    (on_sampler,) = nodes.QSchedSamplerSelect.execute(stock("euler_ancestral"), preset, 1.0, "refuse").args
    through_model = tiny.run(on_model, stock("euler_ancestral"), sigmas, noise=noise)
    through_sampler = tiny.run(model, on_sampler, sigmas, noise=noise)
    in_one = sampling.sample_latent(
        patch.model_with(model, patch.PresetUse(preset)),
        sampling.Recipe(tiny.STEPS, 1.0, "euler_ancestral", "simple"),
        5, data["positive"], data["negative"], {"samples": data["latent_image"]},
    )["samples"]  # fmt: skip
    assert same_bits(through_model, through_sampler)
    assert same_bits(through_model, in_one)
    plain = tiny.run(model, stock("euler_ancestral"), sigmas, noise=noise)
    assert not torch.allclose(through_model, plain, rtol=1e-2)


def test_the_node_samples_tcd_and_stock_samplers(pack, tiny, model, preset):
    """QSchedSampler: KSampler for the host's samplers, the same noise and schedule for TCD."""
    node, data = pack("nodes.sampler").QSchedSampler, tiny.inputs()
    latent = {"samples": data["latent_image"][:1]}

    def sample(name: str, strength: float):
        (out,) = node.execute(
            model, data["positive"], data["negative"], latent, 5, 4, 1.0, name, "simple", 1.0, strength, "resample",
            preset,
        ).args  # fmt: skip
        return out["samples"]

    import comfy.sample

    noise, sigmas = comfy.sample.prepare_noise(latent["samples"], 5), tiny.schedule(model)
    for name in ("euler", "tcd"):
        sampler = pack("nodes.sampling.sampler_menu").sampler_object(name)
        direct = tiny.run(model, sampler, sigmas, noise=noise, latent_image=latent["samples"])
        assert same_bits(sample(name, 0.0), direct)
        assert not torch.allclose(sample(name, 1.0), direct, rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "kind"), list(zip(("euler", "euler_ancestral", "lcm", "tcd", "heun", "uni_pc"), KINDS * 2, strict=True))
)
def test_identity_is_the_stock_sampler_bit_for_bit(pack, tiny, models, name, kind):
    """At every door, and for samplers that could not be driven otherwise."""
    model, patch, core = models[kind], pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas, sampler = tiny.schedule(model), pack("nodes.sampling.sampler_menu").sampler_object(name)
    plain = tiny.run(model, sampler, sigmas)
    identity = core.Preset(core.Coefficients.identity(4), tuple(sigmas.tolist()))
    for use in (patch.PresetUse(identity), patch.PresetUse(identity, 0.0)):
        preset_model = patch.model_with(model, use)
        assert "qsched" not in preset_model.wrappers.get("outer_sample", {})
        assert patch.sampler_with(sampler, use) is sampler
        assert same_bits(tiny.run(preset_model, sampler, sigmas), plain)


def test_steps_of_ones_are_left_alone(pack, tiny, flow):
    """Only the third step has coefficients: until then the driven run is the stock one, bit for bit."""
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    coefficients = core.Coefficients((1, 1, 0.95, 1), (1, 1, 1.05, 1))
    sigmas = tiny.schedule(flow)
    preset_model = patch.apply_coefficients(flow, coefficients, sigmas.tolist())
    calls = []
    for model in (flow, preset_model):
        states = []
        watched = model.clone()
        watched.set_model_sampler_post_cfg_function(
            lambda a, states=states: (states.append(a["input"].clone()), a["denoised"])[1]
        )
        tiny.run(watched, stock("euler"), sigmas)
        calls.append(states)
    assert [same_bits(a, b) for a, b in zip(*calls, strict=True)] == [True, True, True, False]


def test_a_part_of_the_schedule_uses_its_own_coefficients(pack, tiny, model, preset):
    """Start and end steps hide the global step: the part is found in the preset's schedule, and is no difference."""
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas = tiny.schedule(model)
    whole = patch.model_with(model, patch.PresetUse(preset, if_differs="refuse"))
    first, last = sigmas[:3], sigmas[2:]
    c_x, c_eps = COEFFICIENTS
    for part, own in ((first, slice(0, 2)), (last, slice(2, 4))):
        direct = patch.apply_coefficients(model, core.Coefficients(c_x[own], c_eps[own]), part.tolist())
        assert same_bits(tiny.run(whole, stock("euler"), part), tiny.run(direct, stock("euler"), part))


def test_split_sampling_equals_sampling_at_once(pack, tiny, flow):
    """KSamplerAdvanced's way: the first two steps, then the rest from the latent they left."""
    import comfy.sample

    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas, data = tiny.schedule(flow), tiny.inputs()
    preset_model = patch.apply_coefficients(flow, core.Coefficients(*COEFFICIENTS), sigmas.tolist())

    def steps(noise, latent, start, end):
        return comfy.sample.sample(
            preset_model, noise, 4, 1.0, "euler", "simple", data["positive"], data["negative"], latent,
            disable_pbar=True, start_step=start, last_step=end, force_full_denoise=end == 4, seed=5,
            disable_noise=start > 0,
        )  # fmt: skip

    begun = steps(data["noise"], data["latent_image"], 0, 2)
    done = steps(torch.zeros_like(begun), begun, 2, 4)
    at_once = tiny.run(preset_model, stock("euler"), sigmas)
    assert torch.allclose(done, at_once, rtol=1e-4, atol=1e-5)


def test_the_last_patch_counts_and_shared_samplers_stay_clean(pack, tiny, model, preset):
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas, sampler = tiny.schedule(model), stock("euler")
    before = dict(vars(sampler))
    plain = tiny.run(model, sampler, sigmas)
    use = patch.PresetUse(preset)
    changed = tiny.run(patch.model_with(model, use), sampler, sigmas)
    other = patch.apply_coefficients(model, core.Coefficients.ramp(4, c_eps=(0.5, 1.0)), sigmas.tolist())
    assert same_bits(tiny.run(patch.model_with(other, use), sampler, sigmas), changed)
    back = patch.apply_coefficients(other, core.Coefficients.identity(4), sigmas.tolist())
    assert same_bits(tiny.run(back, sampler, sigmas), plain)
    twice = patch.sampler_with(patch.sampler_with(sampler, patch.PresetUse(preset, 0.3)), use)
    assert same_bits(tiny.run(model, twice, sigmas), changed)
    assert same_bits(tiny.run(other, twice, sigmas), changed), "the SAMPLER's preset must win over the MODEL's"
    assert vars(sampler) == before
    assert same_bits(tiny.run(model, sampler, sigmas), plain)


def test_what_differs_is_said_and_the_choice_is_followed(pack, tiny, flow, caplog):
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    made_for = core.Binding(prediction="EPS", sampler="lcm", cfg=4.0, scheduler="karras", quantization="w4a8/g32")
    own = (1.0, 0.5, 0.0)
    preset = core.Preset(core.Coefficients((0.9, 1.1), (0.95, 1.05)), own, made_for)
    sigmas = tiny.schedule(flow)

    def with_choice(choice):
        return tiny.run(patch.model_with(flow, patch.PresetUse(preset, 1.0, choice)), stock("euler"), sigmas, cfg=2.0)

    with pytest.raises(core.PresetError, match="does not fit") as caught:
        with_choice("refuse")
    assert {item.what for item in caught.value.fields["found"]} == {
        "prediction", "quantization", "sampler", "cfg", "steps",
    }  # fmt: skip
    caplog.clear()
    resampled = with_choice("resample")
    for words in ("prediction: preset 'EPS', here 'CONST'", "sampler: preset 'lcm', here 'euler'", "steps: preset 2"):
        assert words in caplog.text
    as_is = with_choice("use as is")
    unchanged = core.Coefficients((0.9, 1.1, 1.1, 1.1), (0.95, 1.05, 1.05, 1.05))
    by_sigma = preset.coefficients.for_sigmas(own, sigmas.tolist())
    for result, expected in ((as_is, unchanged), (resampled, by_sigma)):
        direct = patch.apply_coefficients(flow, expected, sigmas.tolist())
        assert same_bits(result, tiny.run(direct, stock("euler"), sigmas, cfg=2.0))
    assert differ(as_is, resampled)


def test_a_preset_for_ddim_fits_ddim(pack, tiny, flow, caplog):
    """The host's ddim is euler under another name."""
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas = tiny.schedule(flow)
    for name in ("ddim", "euler"):
        preset = core.Preset(core.Coefficients(*COEFFICIENTS), tuple(sigmas.tolist()), core.Binding(sampler=name))
        use = patch.PresetUse(preset, if_differs="refuse")
        tiny.run(patch.model_with(flow, use), stock(name), sigmas)
    assert "differs" not in caplog.text


@pytest.mark.parametrize(
    ("scheduler", "steps", "kind"),
    pairs(("simple", "sgm_uniform", "karras", "beta", "ddim_uniform"), (1, 2, 8), KINDS),
)
def test_any_schedule(pack, tiny, models, scheduler, steps, kind):
    model, patch, core = models[kind], pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas = tiny.schedule(model, scheduler, steps)
    coefficients = core.Coefficients.ramp(len(sigmas) - 1, c_x=(0.95, 1.02), c_eps=(0.9, 1.1))
    ours = tiny.run(patch.apply_coefficients(model, coefficients, sigmas.tolist()), stock("euler"), sigmas)
    reference = tiny.run(model, tiny.core_sampler(pack, "euler", coefficients, model), sigmas)
    assert torch.linalg.norm(ours - reference) <= 2e-6 * torch.linalg.norm(reference)


def test_no_steps_at_all(pack, tiny, flow):
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    preset_model = patch.apply_coefficients(
        flow, core.Coefficients.ramp(4, c_eps=(0.9, 1.1)), (1.0, 0.75, 0.5, 0.25, 0.0)
    )
    for sigmas in (torch.tensor([]), torch.tensor([1.0])):
        assert same_bits(tiny.run(preset_model, stock("euler"), sigmas), tiny.run(flow, stock("euler"), sigmas))


def test_a_prediction_that_is_not_finite_names_its_step(pack, tiny, model, preset):
    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas = tiny.schedule(model)
    third = float(sigmas[2])

    def poison(arguments):
        hit = abs(float(arguments["sigma"][0]) - third) < 1e-6 * third
        return arguments["denoised"] * (float("nan") if hit else 1.0)

    poisoned = model.clone()
    poisoned.set_model_sampler_post_cfg_function(poison)
    on_sampler = patch.sampler_with(stock("euler"), patch.PresetUse(preset))
    for nan_model, sampler in (
        (patch.model_with(poisoned, patch.PresetUse(preset)), stock("euler")),
        (poisoned, on_sampler),
        (patch.model_with(poisoned, patch.PresetUse(preset)), stock("euler_cfg_pp")),
    ):
        with pytest.raises(core.SamplingError, match=r"step 3 \(sigma .* c_x 1\.02, c_eps 1\.04\) is not") as caught:
            tiny.run(nan_model, sampler, sigmas)
        assert caught.value.fields["step"] == 2


def test_what_cannot_be_driven_is_refused(pack, tiny, flow):
    import comfy.samplers

    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    sigmas = tiny.schedule(flow)
    preset = core.Preset(core.Coefficients(*COEFFICIENTS), tuple(sigmas.tolist()))
    use = patch.PresetUse(preset)

    class Other(comfy.samplers.Sampler):
        pass

    with pytest.raises(core.SamplingError, match="Other cannot be driven"):
        patch.sampler_with(Other(), use)
    with pytest.raises(core.SamplingError, match="Other cannot be driven"):
        tiny.run(patch.model_with(flow, use), Other(), sigmas)
    for wrong in ("a text", None, 3):
        with pytest.raises(core.PresetError, match="is not a Q-Sched preset"):
            patch.PresetUse(wrong)


def odd_samplers():
    """Samplers as other packs might write them, and what a rehearsal says of them."""

    def euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **extra_args)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    def twice_as_fine(model, x, sigmas, extra_args=None, callback=None, disable=None):
        between = (sigmas[:-1] + sigmas[1:]) / 2
        fine = torch.stack([sigmas[:-1], between], 1).flatten().tolist() + [0.0]
        return euler(model, x, torch.tensor(fine), extra_args)

    def scales_first(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            inputs = x * 1.0
            denoised = model(inputs, sigmas[i] * x.new_ones([x.shape[0]]), **extra_args)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    def keeps_the_sign(model, x, sigmas, extra_args=None, callback=None, disable=None):
        sign = x.sign()
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **extra_args)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i]) + 0.01 * sign
        return x

    def wants_four_channels(model, x, sigmas, extra_args=None, callback=None, disable=None):
        if x.shape[1] != 4:
            raise ValueError("four channels, please")
        return euler(model, x, sigmas, extra_args)

    def never_stops(model, x, sigmas, extra_args=None, callback=None, disable=None):
        while True:
            x = model(x, sigmas[:1] * x.new_ones([x.shape[0]]), **extra_args)

    return {
        "euler": (euler, None),
        "twice_as_fine": (twice_as_fine, "one by one"),
        "scales_first": (scales_first, "keeps a copy"),
        "keeps_the_sign": (keeps_the_sign, "keeps a copy"),
        "wants_four_channels": (wants_four_channels, "failed in rehearsal"),
        "never_stops": (never_stops, "of its own choice"),
    }


@pytest.mark.parametrize("name", list(odd_samplers()))
def test_samplers_of_other_packs_are_tried_not_trusted(pack, tiny, flow, name):
    import comfy.samplers

    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    function, reason = odd_samplers()[name]
    sigmas, coefficients = tiny.schedule(flow), core.Coefficients(*COEFFICIENTS)
    preset_model = patch.apply_coefficients(flow, coefficients, sigmas.tolist())
    state = torch.random.get_rng_state()
    if reason is None:
        ours = tiny.run(preset_model, comfy.samplers.KSAMPLER(function), sigmas)
        reference = tiny.run(flow, tiny.core_sampler(pack, "euler", coefficients, flow), sigmas)
        assert torch.linalg.norm(ours - reference) <= 2e-6 * torch.linalg.norm(reference)
    else:
        with pytest.raises(core.SamplingError, match=reason):
            tiny.run(preset_model, comfy.samplers.KSAMPLER(function), sigmas)
    assert same_bits(torch.random.get_rng_state(), state), "a rehearsal must leave the random state alone"


def shifting(inner: str):
    """A SAMPLER as detail daemons write them: another one, whose model is shown a lower sigma than the schedule's."""
    import comfy.samplers

    wrapped = comfy.samplers.sampler_object(inner)

    def detail_sampler(model, x, sigmas, *, amount, **more):
        last = float(sigmas[0])

        class Shifted:
            def __getattr__(self, name):
                return getattr(model, name)

            def __call__(self, x, sigma, **extra):
                middle = 4 * float(sigma[0]) / last * (1 - float(sigma[0]) / last)
                return model(x, sigma * (1 - amount * middle), **extra)

        return wrapped.sampler_function(Shifted(), x, sigmas, **more)

    return comfy.samplers.KSAMPLER(detail_sampler, {"amount": 0.15})


def test_a_sampler_that_shows_the_model_other_sigmas_is_driven(pack, tiny, model):
    """Detail daemon and its kin. Regression: refused, as if it took other steps."""
    patch, coefficients = pack("nodes.sampling.patch"), pack("qsched_core").Coefficients(*COEFFICIENTS)
    sigmas, sampling = tiny.schedule(model), model.get_model_object("model_sampling")

    def reference(model_k, x, sigmas, extra_args=None, callback=None, disable=None):
        """Euler by hand, the two lines at the sigma that the model sees."""
        for i in range(len(sigmas) - 1):
            middle = 4 * sigmas[i] / sigmas[0] * (1 - sigmas[i] / sigmas[0])
            sigma = (sigmas[i] * (1 - 0.15 * middle)).expand(len(x))
            denoised = model_k(x, sigma, **extra_args)
            c_x, c_eps = coefficients.at(i)
            zero = sampling.calculate_denoised(sigma, torch.zeros_like(x), x)
            denoised, x = (c_x - c_eps) * zero + c_eps * denoised, c_x * x
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    import comfy.samplers

    ours = tiny.run(patch.apply_coefficients(model, coefficients, sigmas.tolist()), shifting("euler"), sigmas)
    expected = tiny.run(model, comfy.samplers.KSAMPLER(reference), sigmas)
    # float32, four steps: the two differ only in the order of a few roundings.
    assert torch.linalg.norm(ours - expected) <= 5e-6 * torch.linalg.norm(expected)
    assert differ(ours, tiny.run(model, shifting("euler"), sigmas), 1e-2)


def test_shifted_sigmas_of_several_evaluations_a_step_are_refused_by_name_and_reason(pack, tiny, flow, refused):
    core = pack("qsched_core")
    sigmas = tiny.schedule(flow)
    preset_model = pack("nodes.sampling.patch").apply_coefficients(
        flow, core.Coefficients(*COEFFICIENTS), sigmas.tolist()
    )
    with refused(core.SamplingError, "sampler detail_sampler shows the model other sigmas than the schedule's"):
        tiny.run(preset_model, shifting("heun"), sigmas)


def test_a_sampler_is_called_what_its_pack_calls_it(pack):
    from functools import partial

    import comfy.samplers

    name_of = pack("nodes.sampling.dry_run").name_of

    def sample_sharp(model, x):
        pass

    def soft_focus():
        def sampler(model, x):
            pass

        return sampler, lambda model, x: None

    assert [name_of(sample_sharp), name_of(partial(partial(sample_sharp, 1), 2))] == ["sharp", "sharp"]
    assert [name_of(function) for function in soft_focus()] == ["soft_focus", "soft_focus"]
    names = [name for name in comfy.samplers.SAMPLER_NAMES if name != "ddim"]
    assert [name_of(comfy.samplers.sampler_object(name).sampler_function) for name in names] == names


@pytest.mark.parametrize("model", ["FLOW"], indirect=True)  # for the preset: the kind plays no part
@pytest.mark.parametrize(
    ("sigmas", "text"),
    [
        ([1.0, float("nan"), 0.0], "sigma 2 of 3 is nan"),
        ([1.0, 0.5, 0.7, 0.0], "rises at step 2, from sigma 0.5 to 0.7"),
        ([1.0, 0.5, -0.1], "sigma 3 of 3 is -0.1"),
    ],
)
def test_what_is_no_schedule_is_named_as_that(pack, tiny, flow, preset, refused, sigmas, text):
    core, patch = pack("qsched_core"), pack("nodes.sampling.patch")
    for model, sampler in (
        (patch.model_with(flow, patch.PresetUse(preset)), stock("euler")),
        (flow, patch.sampler_with(stock("euler"), patch.PresetUse(preset))),
    ):
        with refused(core.SamplingError, text):
            tiny.run(model, sampler, torch.tensor(sigmas))


@pytest.mark.parametrize("model", ["FLOW"], indirect=True)  # for the preset: the kind plays no part
def test_two_equal_sigmas_are_a_schedule(pack, tiny, flow, preset):
    """Long schedules repeat some: stock samplers pass over them."""
    patch = pack("nodes.sampling.patch")
    preset_model = patch.model_with(flow, patch.PresetUse(preset))
    assert tiny.run(preset_model, stock("euler"), torch.tensor([1.0, 0.5, 0.5, 0.0])).isfinite().all()


@pytest.mark.parametrize("base", [BaseException, Exception])
def test_a_cancel_in_rehearsal_is_a_cancel(pack, tiny, flow, monkeypatch, base):
    """Regression: the host's interrupt was an Exception until 0.18, and the rehearsal took it for a sampler's fault."""
    import comfy.samplers

    interrupt = type("Interrupt", (base,), {})
    monkeypatch.setattr(pack("nodes.sampling.dry_run"), "InterruptProcessingException", interrupt)

    def cancelled(model, x, sigmas, extra_args=None, callback=None, disable=None):
        raise interrupt

    sigmas = tiny.schedule(flow)
    coefficients = pack("qsched_core").Coefficients(*COEFFICIENTS)
    preset_model = pack("nodes.sampling.patch").apply_coefficients(flow, coefficients, sigmas.tolist())
    with pytest.raises(interrupt):
        tiny.run(preset_model, comfy.samplers.KSAMPLER(cancelled), sigmas)


def test_parts_without_their_conditions_are_no_correction(pack):
    """A host that hands over fewer of them than predictions: none may stay as it was unnoticed."""
    run = pack("nodes.sampling.driver")._DrivenRun(pack("qsched_core").Coefficients(*COEFFICIENTS), None)
    part = torch.zeros(1, 4, 2, 2)
    call = {"input": part, "sigma": torch.ones(1), "conds_out": [part, part]}
    assert run.correct_parts({**call, "conds": [None, None]}) == [part, part]
    with pytest.raises(ValueError, match="shorter"):
        run.correct_parts({**call, "conds": [None]})


def test_a_sampler_that_changes_its_mind_is_stopped(pack, tiny, flow):
    """Other evaluations than in rehearsal would get the wrong coefficients."""
    import comfy.samplers

    patch, core = pack("nodes.sampling.patch"), pack("qsched_core")
    euler = odd_samplers()["euler"][0]

    def moody(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return euler(model, x, sigmas if x.shape[-1] == 1 else sigmas[[0, 2, 4]], extra_args)

    sigmas = tiny.schedule(flow)
    preset_model = patch.apply_coefficients(flow, core.Coefficients(*COEFFICIENTS), sigmas.tolist())
    with pytest.raises(core.SamplingError, match="other steps than in rehearsal"):
        tiny.run(preset_model, comfy.samplers.KSAMPLER(moody), sigmas)
