"""Observe Layers on the real host: one observation, made on prompts, rounded by and studied by."""

from __future__ import annotations

import gc
import os
import weakref
from functools import partial

import pytest
import torch
from demo_model import OBSERVED, UNSEEN, picture
from exactness import same_bits

pytestmark = pytest.mark.usefixtures("one_thread", "empty_store")

FEW_LAYERS = "double_blocks.0.img_m*"
"""The two of a perceptron, and one that sees one row per picture: what is asked of a fitted layer is asked of these,
and of the whole network once."""


@pytest.fixture(scope="module")
def source(demo):
    return demo[0]


@pytest.fixture(scope="module")
def encoded(demo, pack):
    encode = pack("nodes.host.conditioning").encode
    return {text: encode(demo[1], text) for text in OBSERVED + UNSEEN}


@pytest.fixture(scope="module")
def inputs(demo_sampling, encoded) -> dict:
    return {**demo_sampling, "positive": [entry for text in OBSERVED for entry in encoded[text]]}


@pytest.fixture(scope="module")
def node(pack):
    return pack("nodes.observe_layers").QSchedObserve


@pytest.fixture(scope="module")
def observation(node, inputs):
    return node.execute(**inputs).args


@pytest.fixture(scope="module")
def small_observation(node, inputs):
    """For what does not depend on how much was observed: its layers' means are corrected in less time."""
    return node.execute(**{**inputs, "positive": inputs["positive"][:2], "steps": 2}).args[0]


@pytest.fixture(scope="module")
def quantize(pack, source):
    execute = pack("nodes.quantize_model").QSchedQuantizeModel.execute

    def quantized(format: str = "w4a8", group: str = "per channel", **changes) -> tuple:
        options = {"group_size": group, "include": "", "exclude": "", "backend": "torch", **changes}
        return execute(model=source, format=format, **options).args[:2]

    return quantized


@pytest.mark.parametrize("work", ["packing", "studying"])
def test_a_cancel_takes_effect_while_a_layer_is_fitted(pack, source, observation, monkeypatch, work):
    """A wide convolution takes minutes on a CPU; the flag is up before the first is fitted."""
    import comfy.model_management as management

    twin_model = pack("nodes.quantization.twin_model")
    monkeypatch.setattr(observation[0], "unfinished", type(observation[0].unfinished)())
    monkeypatch.setattr(twin_model, "correct_means", lambda *args: pytest.fail("all layers were fitted"))
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        if work == "packing":
            job = pack("nodes.quantization.backends").job_for(
                source, "w4a8", backend="torch", include=[FEW_LAYERS], observation=observation[0]
            )
            twin_model.quantized_twin(source, job)
        else:
            form = pack("qsched_core.quant").resolve_format("w4a8")
            study = pack("nodes.quantization.study").study
            study(source, lambda: None, [form], "layers", lambda *args: None, observation[0])
    assert not observation[0].unfinished.layers


def drawn(model, conditioning, seed: int) -> torch.Tensor:
    return picture(model, conditioning, seed=seed)


@pytest.fixture(scope="module")
def exact(source, encoded) -> list:
    """(conditioning, seed, latent) of prompts and noises that nothing is fitted to."""
    return [(encoded[text], seed, drawn(source, encoded[text], seed)) for seed, text in enumerate(UNSEEN * 2, 100)]


def error_of(model, exact) -> float:
    far = sum((drawn(model, prompt, seed) - latent).square().sum().item() for prompt, seed, latent in exact)
    return (far / sum(latent.square().sum().item() for *_, latent in exact)) ** 0.5


def test_what_was_observed_is_said(observation, source):
    layer_inputs, text = observation
    assert text.startswith(f"Layers observed: {len(layer_inputs.layers)}, evaluations: 32.")
    assert "Few prompts" not in text
    assert "At the network's input and output, not packed into 4 bits: img_in, final_layer.linear." in text
    assert "see one row per picture" in text
    assert layer_inputs.one_row("double_blocks.0.img_mod.lin")
    assert not layer_inputs.one_row("double_blocks.0.img_mlp.0")
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in source.model.modules())
    assert hooks == 0


@pytest.mark.parametrize(("format", "include"), [("w4a4", ""), ("w4a8", FEW_LAYERS), ("w3a8", FEW_LAYERS)])
def test_pictures_of_a_fitted_model_are_nearer(request, quantize, observation, exact, format, include):
    if not include:  # nineteen layers: fitted once each, the few of the others in every way
        request.getfixturevalue("one_damping")
    nearest, _ = quantize(format, include=include)
    fitted, report = quantize(format, include=include, observation=observation[0])
    assert error_of(fitted, exact) < 0.95 * error_of(nearest, exact)
    assert "Rounding fitted to what the layers see in" in report
    assert "sees one row per picture: float activations" in report


@pytest.mark.usefixtures("one_damping")
def test_the_best_is_kept_in_a_file(pack, quantize, observation, exact, encoded, tmp_path):
    files = pack("nodes.quantization.files")
    fitting = {"observation": observation[0], "include": FEW_LAYERS}
    best, _ = quantize("w4a4", **fitting, quality="best")
    fitted, _ = quantize("w4a4", **fitting)
    assert error_of(best, exact) < error_of(fitted, exact)
    ranked, _ = quantize("w4a4", **fitting, rank=24)
    layer = "double_blocks.0.img_mlp.0"
    ranks = [model.model.diffusion_model.get_submodule(layer).low_rank.up.shape[1] for model in (best, ranked)]
    assert ranks == [16, 24]
    files.save_model(best, tmp_path / "best.safetensors")
    loaded = files.load_model(tmp_path / "best.safetensors")
    one, other = (drawn(model, encoded[UNSEEN[0]], 1) for model in (best, loaded))
    assert same_bits(one, other)


@pytest.mark.usefixtures("one_damping")
def test_means_are_corrected_on_the_loaded_model_under_its_patches(
    pack, quantize, small_observation, source, monkeypatch
):
    """What a patch put in place of a bias is taken back when the model is unloaded: the correction has to stay."""
    import comfy.model_management

    module = pack("nodes.quantization.mean_correction")
    layer = "double_blocks.0.img_mlp.0"
    plain, report = quantize("w4a8", include=FEW_LAYERS, observation=small_observation)
    assert "Means of outputs" in report
    before = plain.model.diffusion_model.get_submodule(layer).bias.clone()
    clone = plain.clone()
    clone.add_patches({f"diffusion_model.{layer}.bias": (torch.ones_like(before),)})
    real = module.mean_correction

    def found(root, names, calls, on_call):
        real(root, names, calls, on_call)  # the network can be called where it lies
        assert torch.allclose(root.get_submodule(layer).bias, before + 1)
        return pack("qsched_core.quant").Correction({layer: torch.full_like(before, 0.25)}, 0.2, 0.1)

    monkeypatch.setattr(module, "mean_correction", found)
    module.correct_means(clone, [layer], small_observation)
    assert torch.allclose(clone.model.diffusion_model.get_submodule(layer).bias, before + 1.25)
    comfy.model_management.unload_all_models()
    assert torch.allclose(clone.model.diffusion_model.get_submodule(layer).bias, before + 0.25)


def test_the_observation_is_used_but_for_the_rounding(quantize, small_observation):
    _, fast = quantize(observation=small_observation, quality="fast")
    assert "sees one row per picture" in fast
    assert "Rounding fitted" not in fast


def test_native_layers_are_fitted_in_the_hosts_own_formats(quantize, observation, exact):
    native = {"recipe": "stock", "backend": "kitchen", "include": FEW_LAYERS}
    nearest, _ = quantize("w8a8", **native)
    fitted, report = quantize("w8a8", **native, observation=observation[0])
    assert "Rounding fitted" in report
    before, after = (model.model.diffusion_model.state_dict() for model in (nearest, fitted))
    assert {k: (v.shape, v.dtype) for k, v in before.items()} == {k: (v.shape, v.dtype) for k, v in after.items()}
    assert error_of(fitted, exact) < error_of(nearest, exact)


@pytest.mark.usefixtures("one_damping")
def test_the_plan_is_studied_on_the_same_observation(pack, inputs, observation, monkeypatch):
    node, study = pack("nodes.sensitivity").QSchedSensitivity, pack("nodes.quantization.study")

    def refuse(self, seed):
        def drive():
            raise AssertionError("sampled again")

        return drive

    monkeypatch.setattr(study.StudyPrompts, "sampled", refuse)
    measure = partial(study.measure_sensitivity, include=[FEW_LAYERS])  # a layer is fitted once a format and depth
    monkeypatch.setattr(study, "measure_sensitivity", measure)
    common = {**inputs, "average_bits": 5.0, "formats": "w4a8"}
    for depth in ("layers", "network"):
        plan, text, _ = node.execute(**common, depth=depth, observation=observation[0]).args
        assert text.startswith("3 layers studied on 32 evaluations")
        assert len(plan.forms) == 3


@pytest.mark.usefixtures("one_damping")
def test_a_small_memory_samples_again_and_is_as_near(node, inputs, quantize, exact, evaluations):
    three = {**inputs, "positive": inputs["positive"][:3]}
    layer_inputs, text = node.execute(**three, memory_gb=0.001).args
    assert "do not fit the memory" in text
    evaluations[0] = 0
    fitted, _ = quantize(observation=layer_inputs, include=FEW_LAYERS)
    assert evaluations[0] > 2 * 12, "more than one pass over the observation"
    nearest, _ = quantize(include=FEW_LAYERS)
    assert error_of(fitted, exact) < 0.95 * error_of(nearest, exact)


@pytest.mark.usefixtures("one_damping")
def test_the_model_is_left_as_it_is(quantize, small_observation, source, encoded):
    before = drawn(source, encoded[UNSEEN[0]], 1)
    quantize(observation=small_observation, include=FEW_LAYERS)
    assert same_bits(drawn(source, encoded[UNSEEN[0]], 1), before)


@pytest.mark.usefixtures("one_damping")
def test_a_twin_does_not_keep_what_was_observed(node, few, quantize):
    layer_inputs, _ = node.execute(**few).args
    reference = weakref.ref(layer_inputs)
    model, _ = quantize(observation=layer_inputs, include=FEW_LAYERS)
    del layer_inputs
    gc.collect()
    assert reference() is None
    assert model is not None


def test_an_observation_of_another_model_is_refused(pack, quantize, observation, refused):
    from dataclasses import replace

    other = replace(observation[0], fingerprint="0")
    with refused(pack("qsched_core").QuantizationError, "observation is of another model"):
        quantize(observation=other)


def test_fitted_needs_an_observation(pack, quantize, refused):
    with refused(pack("qsched_core").QuantizationError, "fitted needs an observation"):
        quantize(quality="fitted")


def test_a_quantized_model_is_not_observed(pack, node, inputs, quantize, refused):
    with refused(pack("qsched_core").QuantizationError, "quantised already"):
        node.execute(**{**inputs, "model": quantize()[0]})


# --- kept on disk


@pytest.fixture
def few(inputs) -> dict:
    """Two prompts and two steps, where it is not looked at how near a model comes: four evaluations."""
    return {**inputs, "positive": inputs["positive"][:2], "steps": 2}


@pytest.fixture
def evaluations(pack, monkeypatch):
    """How often a network was called while it is asked."""
    from comfy.ldm.flux.model import Flux

    count, real = [0], Flux.forward

    def forward(self, *args, **kwargs):
        count[0] += 1
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Flux, "forward", forward)
    return count


@pytest.mark.usefixtures("one_damping")
def test_the_next_server_reads_it_and_samples_nothing(pack, node, few, quantize, evaluations):
    """The host's own cache ends with the server: two hours of observing FLUX were made again after each restart."""
    first, text = node.execute(**few).args
    assert evaluations[0] == 4
    assert "disk" not in text
    assert text.startswith("Few prompts: combine four or more")
    fresh = pack("nodes.demo_model").QSchedDemoModel.execute().args[0]
    evaluations[0] = 0
    second, text = node.execute(**{**few, "model": fresh}).args
    assert evaluations[0] == 0
    assert "Read from disk" in text
    assert second is not first
    one, other = (
        quantize(observation=layer_inputs, include=FEW_LAYERS)[0].model.diffusion_model.state_dict()
        for layer_inputs in (first, second)
    )
    assert one.keys() == other.keys()
    assert all(same_bits(one[name], other[name]) for name in one)


def test_a_study_alone_is_sampled_once_too(pack, few, evaluations):
    execute = pack("nodes.sensitivity").QSchedSensitivity.execute
    common = {**few, "average_bits": 5.0, "formats": "w4a8, w8a8", "depth": "layers"}
    plans = []
    for expected in (4, 0):
        evaluations[0] = 0
        plans.append(execute(**common).args[:2])
        assert evaluations[0] == expected
    assert plans[0] == plans[1]


def test_whatever_decides_it_makes_another_key(pack, inputs, source, encoded):
    store, study = pack("nodes.quantization.observation_store"), pack("nodes.quantization.study")
    recipe = pack("nodes.sampling.ksampler").Recipe

    def key(model=source, positive=inputs["positive"], size=8, seed=0, steps=4, cfg=1.0, budget=1, sampler="euler"):
        latent = {"samples": torch.zeros(1, 16, size, size)}
        prompts = study.StudyPrompts(model, positive, positive[:1], latent, recipe(steps, cfg, sampler, "simple"))
        return store.observation_key(prompts, seed, budget=budget)

    clone, other = source.clone(), source.clone()
    weight = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    clone.add_patches({weight: ("diff", (torch.ones_like(source.model.state_dict()[weight]),))}, 0.5)
    other.add_patches({weight: ("diff", (torch.ones_like(source.model.state_dict()[weight]),))}, 0.6)
    keys = [
        key(), key(model=clone), key(model=other), key(positive=encoded[UNSEEN[0]]), key(size=10), key(seed=1),
        key(steps=3), key(cfg=2.0), key(budget=2), key(sampler="heun"),
    ]  # fmt: skip
    assert all(keys)
    assert len(set(keys)) == len(keys)
    assert key() == keys[0] == key(model=pack("nodes.demo_model").QSchedDemoModel.execute().args[0])
    foreign = source.clone()
    foreign.set_model_attn1_patch(lambda q, k, v, **more: {"q": q, "k": k, "v": v})
    assert key(model=foreign) == ""
    wrapped = source.clone()
    wrapped.add_wrapper("diffusion_model", lambda executor, *args, **kwargs: executor(*args, **kwargs))
    assert key(model=wrapped) == ""


def test_what_no_key_tells_is_not_kept(node, few, source):
    foreign = source.clone()
    foreign.set_model_attn1_patch(lambda q, k, v, **more: {"q": q, "k": k, "v": v})
    _, text = node.execute(**{**few, "model": foreign}).args
    assert "Not kept on disk" in text


def test_a_damaged_file_is_made_anew(pack, node, few, evaluations):
    node.execute(**few)
    (path,) = pack("nodes.host.folders").observations_folder().iterdir()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    evaluations[0] = 0
    _, text = node.execute(**few).args
    assert evaluations[0] == 4
    assert "Read from disk" not in text
    _, text = node.execute(**few).args
    assert "Read from disk" in text


def test_the_folder_is_bounded(pack, node, few, monkeypatch):
    store, folder = pack("nodes.quantization.observation_store"), pack("nodes.host.folders").observations_folder()
    for number, seed in enumerate((1, 2)):
        node.execute(**{**few, "study_seed": seed})
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    monkeypatch.setattr(store, "MOST_BYTES", int(2.5 * newest.stat().st_size))
    _, text = node.execute(**{**few, "study_seed": 1}).args  # used just now: it is the other that goes
    assert "Read from disk" in text
    node.execute(**{**few, "study_seed": 3})
    assert len(list(folder.iterdir())) == 2
    assert not newest.exists()
    monkeypatch.setattr(store, "MOST_BYTES", 1000)
    _, text = node.execute(**{**few, "study_seed": 4}).args
    assert "Not kept on disk" in text


def test_a_file_that_is_in_use_stays_and_the_next_one_goes(pack, empty_store, monkeypatch):
    """As on Windows, where another server reads it."""
    store, folder = pack("nodes.quantization.observation_store"), pack("nodes.host.folders").observations_folder()
    folder.mkdir(parents=True)
    files = [folder / f"{age}.safetensors" for age in range(4)]
    for age, file in enumerate(files):
        file.write_bytes(b"1234567890")
        os.utime(file, (age, age))
    real = type(files[0]).unlink

    def unlink(file, *arguments, **more):
        if file == files[0]:
            raise PermissionError("in use")
        real(file, *arguments, **more)

    monkeypatch.setattr(type(files[0]), "unlink", unlink)
    monkeypatch.setattr(store, "MOST_BYTES", 35)
    store._make_room(5)
    assert [file.exists() for file in files] == [True, False, True, True]
    store._make_room(6)
    assert [file.exists() for file in files] == [True, False, False, True]
