"""Several models as one MODEL: what a graph of two samplers makes, every sampler makes of it."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from twin_layers import LINEAR, activation_bits, lora_values, with_lora


@pytest.fixture(scope="module")
def conditioning(demo, pack):
    encode = pack("nodes.host.conditioning").encode
    return encode(demo[1], "a large apple on a white background"), encode(demo[1], "")


@pytest.fixture(scope="module")
def packed(demo, pack):
    """Without rounded activations a picture is a smooth function of the noise: two ways to it agree to the last
    digits, not to a flipped code."""

    @cache
    def packed(form: str = "w4a16", **more):
        job = pack("nodes.quantization.backends").job_for(demo[0], form, backend="torch", **more)
        return pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0]

    return packed


@pytest.fixture
def schedule(pack, monkeypatch):
    node = pack("nodes.precision_schedule").QSchedPrecisionSchedule
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id=None), raising=False)
    return lambda model, plan, scheduler="simple", **more: node.execute(model, plan, scheduler, **more).args


@pytest.fixture
def bits_seen(pack, conditioning):
    """Of each evaluation of a MODEL's network."""

    def calls(model, sample=None) -> list[int]:
        return activation_bits(pack, model, lambda: (sample or picture)(model, conditioning))

    return calls


def picture(model, conditioning, cfg: float = 1.0, sampler: str = "euler", callback=None, steps: int = 4, **part):
    import comfy.sample

    latent = torch.zeros(1, model.get_model_object("latent_format").latent_channels, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "simple", *conditioning, latent, disable_pbar=True, seed=1,
        callback=callback, **part,
    )  # fmt: skip


def two_samplers(first, second, conditioning, cfg: float = 1.0) -> torch.Tensor:
    """KSamplerAdvanced twice, as the host's own two-model graphs have it."""
    import nodes

    latent = {"samples": torch.zeros(1, first.get_model_object("latent_format").latent_channels, 8, 8)}
    for model, noise, start, end, rest in ((first, "enable", 0, 2, "enable"), (second, "disable", 2, 10000, "disable")):
        (latent,) = nodes.KSamplerAdvanced().sample(
            model, noise, 1, 4, cfg, "euler", "simple", *conditioning, latent, start, end, rest
        )  # fmt: skip
    return latent["samples"]


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_one_sampler_makes_the_picture_of_two(pack, demo, packed, schedule, conditioning, cfg):
    model, _, report = schedule(demo[0], "1, 1, 2, 2", model_2=packed())
    two = two_samplers(demo[0], packed(), conditioning, cfg)
    assert torch.allclose(picture(model, conditioning, cfg), two, atol=1e-4)
    assert not torch.allclose(picture(demo[0], conditioning, cfg), two, atol=1e-2)
    assert "Step 3, sigma 0.5 to 0.25: model 2, w4a16/g32." in report
    loads = pack("nodes.sampling.model_library").library_on(model).loads
    assert [load.model for load in loads] == [0, 1]  # at most once each
    assert loads[1].held_bytes == demo[0].loaded_size() + packed().model_size()


def test_between_the_halves_nothing_but_the_latent_s_last_digits_differs(demo, packed, schedule, conditioning):
    """Rounded activations magnify those: 0.12 of 17.7 were found at cfg 2, where the host hands a latent from sampler
    to sampler. Run in the same two halves, the models in one MODEL make the same bits as apart."""
    narrow, wide = packed("w4a4", last_steps=0), packed("w8a8")
    model = schedule(narrow, "1, 1, 2, 2", model_2=wide)[0]
    apart = two_samplers(narrow, wide, conditioning, 2.0)
    assert torch.equal(two_samplers(model, model, conditioning, 2.0), apart)


def test_what_follows_on_the_model_holds_for_all(pack, demo, packed, schedule, conditioning):
    """LoRAs, another schedule of noise, and nodes' wrappers: as if each model had them."""
    import comfy.sd
    from comfy.patcher_extension import WrappersMP
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    def changed(model, calls):
        def spy(executor, x, t, *args, **kwargs):
            calls.append(executor.class_obj)
            return executor(x, t, *args, **kwargs)

        model = comfy.sd.load_lora_for_models(model, None, lora_values(LINEAR), 1.0, 0.0)[0]
        again = lora_values(LINEAR, 0.05)  # a second of the same weight
        model = comfy.sd.load_lora_for_models(model, None, again, 0.5, 0.0)[0]
        (model,) = ModelSamplingFlux().patch(model, 1.15, 0.5, 64, 64)
        model.add_wrapper(WrappersMP.APPLY_MODEL, spy)
        return model

    one, other, calls = demo[0], packed(), []
    model = changed(schedule(one, "1, 1, 2, 2", model_2=other)[0], calls)
    both = picture(model, conditioning)
    assert calls == [one.model, one.model, other.model, other.model]
    assert torch.allclose(both, two_samplers(changed(one, []), changed(other, []), conditioning), atol=1e-4)
    # The same weights' patches are the same clone: the host loads nothing anew.
    library = pack("nodes.sampling.model_library").library_on(model)
    assert library.patched(1, model) is library.patched(1, model)
    assert torch.equal(picture(model, conditioning), both)
    # The models that were plugged in have nothing of it.
    assert torch.allclose(
        picture(schedule(one, "1, 1, 2, 2", model_2=other)[0], conditioning),
        two_samplers(one, other, conditioning), atol=1e-4,
    )  # fmt: skip


def test_what_a_model_had_before_stays_its_own(demo, packed, schedule, conditioning):
    from comfy.patcher_extension import WrappersMP

    def spy(executor, x, *args, **kwargs):
        evaluated.append(executor.class_obj)
        return executor(x, *args, **kwargs)

    evaluated, other = [], packed()
    marked = other.clone()
    marked.add_wrapper(WrappersMP.APPLY_MODEL, spy)
    picture(schedule(demo[0], "2, 1, 1, 2", model_2=marked)[0], conditioning)
    assert evaluated == [other.model, other.model]
    # One network with and without a LoRA are two models as well.
    lora_model = with_lora(demo[0], LINEAR)
    both = picture(schedule(demo[0], "1, 1, 2, 2", model_2=lora_model)[0], conditioning)
    assert torch.allclose(both, two_samplers(demo[0], lora_model, conditioning), atol=1e-4)
    assert not torch.allclose(both, picture(demo[0], conditioning), atol=1e-2), "the LoRA did nothing"


def test_only_what_a_step_needs_is_loaded(pack, demo, packed, schedule, conditioning):
    model, _, report = schedule(demo[0], "2, 2, 2, 2", model_2=packed())
    assert "No step uses model 1." in report
    assert torch.allclose(picture(model, conditioning), picture(packed(), conditioning), atol=1e-5)
    assert [load.model for load in pack("nodes.sampling.model_library").library_on(model).loads] == [1]


def test_what_is_equal_to_an_option_from_before_is_no_change(pack):
    added = pack("nodes.sampling.later_changes")._added
    item = object()
    before = {
        "number": 1000.5, "words": {"a": "b c"}, "list": [item], "own": {"kept": 1, "other": 2}, "function": item,
        "registered_hooks": object(),
    }  # fmt: skip
    now = {
        "number": float("1000.5"), "words": {"a": " ".join("bc")}, "list": [item], "own": {"kept": 1, "other": 3},
        "new": 4, "function": item, "registered_hooks": object(), "to_load_options": object(),
    }  # fmt: skip
    # The last two are made for each model anew.
    assert added(now, before) == {"own": {"other": 3}, "new": 4}


def test_the_log_tells_of_models_that_came_in_one_after_the_other(pack, caplog):
    library = pack("nodes.sampling.model_library")
    loads = [library.Load(model, 0.5, 2_000_000 * (model + 1)) for model in (0, 1)]
    with caplog.at_level("INFO"):
        library.ModelLibrary._tell(SimpleNamespace(loads=loads[:1], unique_id=None))
        assert "Models loaded" not in caplog.text
        library.ModelLibrary._tell(SimpleNamespace(loads=loads, unique_id=None))
    assert "Models loaded in this run: 1, 2. 1.0 s in all, at most 4 MB of weights at once." in caplog.text


def test_a_model_that_was_moved_out_in_mid_run_comes_back(pack, demo, packed, schedule, conditioning):
    import comfy.model_management

    model = schedule(demo[0], "1, 1, 2, 2", model_2=packed())[0]
    whole = picture(model, conditioning)
    evicted = picture(model, conditioning, callback=lambda *_: comfy.model_management.unload_all_models())
    assert torch.allclose(evicted, whole, atol=1e-5)
    assert [load.model for load in pack("nodes.sampling.model_library").library_on(model).loads] == [0, 0, 1, 1]


def test_what_hooks_bring_goes_to_the_device_with_each_model_and_back(
    demo, packed, schedule, conditioning, monkeypatch
):
    """The host moves that of the model it samples, once at a run's start: of the first alone."""
    import comfy.samplers

    there, back, real = [], [], comfy.samplers.cast_to_load_options

    def cast(options, device=None, dtype=None):
        (back if dtype is None else there).append(options)
        real(options, device=device, dtype=dtype)

    monkeypatch.setattr(comfy.samplers, "cast_to_load_options", cast)
    picture(schedule(demo[0], "1, 2", model_2=packed())[0], conditioning, steps=2)
    assert len({id(options) for options in there}) == len(there) == 2
    assert {id(options) for options in back} == {id(options) for options in there}


def test_a_plan_of_models_that_are_not_there_stops_the_run(pack, demo, packed, schedule, conditioning, refused):
    """A plan that another node has put on the MODEL since."""
    core, model = pack("qsched_core"), schedule(demo[0], "1, 2", model_2=packed())[0]
    plan = core.Precision((4, 4), (1.0, 0.5, 0.0), (2, 0))
    pack("nodes.sampling.step_precision").put_precision(model, plan)
    with refused(core.SamplingError, "the plan of the steps needs more models", "Fix: put Precision Schedule before"):
        picture(model, conditioning, steps=2)


def test_other_samplers_steps_and_parts_of_a_run_follow_the_plan(pack, demo, packed, schedule, conditioning, bits_seen):
    narrow = packed("w4a4", last_steps=1)
    model = schedule(narrow, "1, 1a8, 2, 1a16", model_2=packed("w8a8"))[0]
    assert bits_seen(model) == [4, 8, 16]  # the models' own last steps do not count
    assert bits_seen(model, lambda m, c: picture(m, c, sampler="dpmpp_2m")) == [4, 8, 16]
    assert bits_seen(model, lambda m, c: picture(m, c, start_step=2, last_step=4)) == [16]
    assert bits_seen(model, lambda m, c: picture(m, c, steps=1)) == [16]
    assert bits_seen(narrow) == [4, 4, 4, 8]  # and are still theirs


def test_one_model_alone_gets_finer_steps(schedule, packed, bits_seen):
    model, precision, report = schedule(packed("w4a4"), "1a8 1 1 1a16")
    assert bits_seen(model) == [8, 4, 4, 16]
    assert precision.activation_bits == (8, 4, 4, 16)
    assert "activations of 16 bits or more" in report
    wide = schedule(packed("w4a16"), "1, 1, 1, 1a8")[2]
    assert "Model 1 has no activations that finer steps could change." in wide


def test_a_preset_brings_its_plan(pack, packed, schedule, bits_seen, tmp_path, refused, conditioning):
    import comfy.samplers

    core, apply = pack("qsched_core"), pack("nodes.apply")
    model = packed("w4a4", last_steps=0)
    precision = schedule(model, "1, 1, 1a8, 1a8")[1]
    node = pack("nodes.coefficients").QSchedCoefficients
    result = node.execute({"form": "identity"}, 1.0, torch.tensor(precision.sigmas), precision=precision).args
    core.save_preset(result[0], tmp_path / "plan.safetensors")
    preset = core.load_preset(tmp_path / "plan.safetensors")
    assert "precision of the steps: 1, 1, 1a8, 1a8" in pack("nodes.library.card").describe_preset(preset)
    assert pack("nodes.library.curve").curve(preset)["qsched_curve"][0]["bits"] == [4, 4, 8, 8]
    planned = apply.QSchedApply.execute(model, preset, 1.0, "resample").args[0]
    assert bits_seen(planned) == [4, 4, 8, 8]
    assert bits_seen(apply.QSchedApply.execute(model, preset, 0.0, "resample").args[0]) == [4, 4, 4, 4]
    assert bits_seen(model) == [4, 4, 4, 4]
    # On a SAMPLER, over a MODEL with a plan of its own.
    euler = comfy.samplers.sampler_object("euler")
    sampler = apply.QSchedSamplerSelect.execute(euler, preset, 1.0, "resample").args[0]
    assert bits_seen(schedule(model, "1a16")[0], lambda m, c: custom(m, c, sampler, precision.sigmas)) == [4, 4, 8, 8]
    # Of two models: it needs both, and takes the place of the schedule's own plan.
    plan = core.Precision((4,) * 4, preset.sigmas, (0, 1, 1, 1))
    two = core.Preset(preset.coefficients, preset.sigmas, precision=plan)
    with refused(core.SamplingError, "needs 2 models, the MODEL has 1"):
        apply.QSchedApply.execute(model, two, 1.0, "resample")
    with refused(core.SamplingError, "needs 2 models, the MODEL has 1"):
        custom(model, conditioning, apply.QSchedSamplerSelect.execute(euler, two, 1.0, "resample").args[0], two.sigmas)
    library = schedule(model, "1, 1, 1, 1", model_2=packed("w8a8"))[0]
    assert len(bits_seen(apply.QSchedApply.execute(library, two, 1.0, "resample").args[0])) == 1


def custom(model, conditioning, sampler, sigmas):
    import comfy.sample

    latent = torch.zeros(1, model.get_model_object("latent_format").latent_channels, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample_custom(
        model, noise, 1.0, sampler, torch.tensor(sigmas), *conditioning, latent, disable_pbar=True, seed=1
    )  # fmt: skip


def test_a_plan_is_in_the_model_s_file(pack, packed, schedule, bits_seen, tmp_path):
    files = pack("nodes.quantization.files")
    files.save_model(schedule(packed("w4a4"), "1a8, 1, 1, 1")[0], tmp_path / "plan.safetensors")
    assert bits_seen(files.load_model(tmp_path / "plan.safetensors")) == [8, 4, 4, 4]


def test_a_calibration_of_another_plan_is_another_study(pack, packed, schedule):
    key = pack("nodes.calibrating.run")._plan
    sigmas = (1.0, 0.75, 0.5, 0.25, 0.0)
    wide, narrow = (SimpleNamespace(model=packed("w4a4", last_steps=n), sigmas=sigmas) for n in (1, 0))
    assert key(narrow) == []  # studies of before there were plans go on
    assert key(wide)[0] == "1, 1, 1, 1a8"
    library = SimpleNamespace(model=schedule(packed("w4a4"), "1, 1, 1, 2", model_2=packed("w8a8"))[0], sigmas=sigmas)
    assert key(library)[0] == "1, 1, 1, 2" and key(library)[1]


def test_models_that_cannot_go_on_from_each_other_are_refused(pack, demo, tiny, schedule, refused):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingFlux

    core, model = pack("qsched_core"), tiny.model("EPS")
    with refused(core.SamplingError, "model 2 is a ", "model 1 a SD15"):
        schedule(model, "1, 2", model_2=demo[0])
    with refused(core.SamplingError, "model 2 makes latents of 16 channels (Flux), model 1 of 4 channels (SD15)"):
        other = model.clone()
        other.add_object_patch("latent_format", demo[0].get_model_object("latent_format"))
        schedule(model, "1, 2", model_2=other)
    (lcm,) = ModelSamplingDiscrete().patch(model, "lcm", False)
    with refused(core.SamplingError, "samples in another way than model 1: prediction"):
        schedule(model, "1, 2", model_2=lcm)
    (shifted,) = ModelSamplingFlux().patch(demo[0], 1.15, 0.5, 1024, 1024)
    with refused(core.SamplingError, "samples in another way than model 1: schedule"):
        schedule(demo[0], "1, 2", model_2=shifted)
    with refused(core.QuantizationError, "the plan names model 2, and one model is plugged in"):
        schedule(demo[0], "1, 2")
    with refused(core.SamplingError, "plan and schedule differ in steps: 2 and 3"):
        schedule(demo[0], "1, 1", sigmas=torch.tensor([1.0, 0.5, 0.2, 0.0]))
