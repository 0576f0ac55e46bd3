"""Observe Layers on the real host: one observation, made on prompts, rounded by and studied by."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from exactness import same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = tuple(
    f"a {size} {colour} {shape} on a {ground} background"
    for size, ground in (("large", "white"), ("small", "sand"))
    for colour, shape in (("red", "circle"), ("green", "star"), ("blue", "square"), ("yellow", "ring"))
)
UNSEEN = ("a small red square on a sand background", "a large blue circle on a white background")


@pytest.fixture(scope="module")
def source(demo):
    return demo[0]


@pytest.fixture(scope="module")
def encoded(demo, pack):
    encode = pack("nodes.host.conditioning").encode
    return {text: encode(demo[1], text) for text in TEXTS + UNSEEN}


@pytest.fixture(scope="module")
def inputs(source, encoded) -> dict:
    return {
        "model": source,
        "positive": [entry for text in TEXTS for entry in encoded[text]],
        "latent_image": {"samples": torch.zeros(1, 16, 8, 8)},
        "steps": 4,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "study_seed": 0,
    }


@pytest.fixture(scope="module")
def node(pack):
    return pack("nodes.observe_layers").QSchedObserve


@pytest.fixture(scope="module")
def observation(node, inputs):
    return node.execute(**inputs).args


@pytest.fixture(scope="module")
def quantise(pack, source):
    execute = pack("nodes.quantize_model").QSchedQuantizeModel.execute

    def quantised(format: str = "w4a8", group: str = "per channel", **changes) -> tuple:
        options = {"group_size": group, "include": "", "exclude": "", "backend": "torch", **changes}
        return execute(model=source, format=format, **options).args[:2]

    return quantised


def drawn(model, conditioning, seed: int) -> torch.Tensor:
    import comfy.sample

    empty = torch.zeros(1, 16, 8, 8)
    noise = comfy.sample.prepare_noise(empty, seed)
    return comfy.sample.sample(
        model, noise, 4, 1.0, "euler", "simple", conditioning, conditioning, empty, disable_pbar=True, seed=seed
    )


def error_of(model, source, encoded) -> float:
    """Of latents of prompts and noises that nothing was fitted to."""
    far, size = 0.0, 0.0
    for seed, text in enumerate(UNSEEN * 2, 100):
        exact = drawn(source, encoded[text], seed)
        far += (drawn(model, encoded[text], seed) - exact).square().sum().item()
        size += exact.square().sum().item()
    return (far / size) ** 0.5


def test_what_was_observed_is_said(observation, source):
    seen, text = observation
    assert text.startswith(f"{len(seen.layers)} layers observed on 32 evaluations.")
    assert "At the network's input and output, not packed into 4 bits: img_in, final_layer.linear." in text
    assert "see one row per picture" in text
    assert seen.one_row("double_blocks.0.img_mod.lin")
    assert not seen.one_row("double_blocks.0.img_mlp.0")
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in source.model.modules())
    assert hooks == 0


@pytest.mark.parametrize("format", ["w4a8", "w3a8", "w4a4"])
def test_pictures_of_a_fitted_model_are_nearer(quantise, observation, source, encoded, format):
    nearest, _ = quantise(format)
    fitted, report = quantise(format, observation=observation[0])
    assert error_of(fitted, source, encoded) < 0.95 * error_of(nearest, source, encoded)
    assert "Rounding fitted to what the layers see in" in report
    assert "sees one row per picture: float activations" in report


def test_the_best_is_kept_in_a_file(pack, quantise, observation, source, encoded, tmp_path):
    files = pack("nodes.quantization.files")
    best, report = quantise("w4a4", observation=observation[0], quality="best")
    fitted, _ = quantise("w4a4", observation=observation[0])
    assert error_of(best, source, encoded) < error_of(fitted, source, encoded)
    ranked, _ = quantise("w4a4", observation=observation[0], rank=24)
    layer = "double_blocks.0.img_mlp.0"
    ranks = [model.model.diffusion_model.get_submodule(layer).low_rank.up.shape[1] for model in (best, ranked)]
    assert ranks == [16, 24]
    files.save_model(best, tmp_path / "best.safetensors")
    loaded = files.load_model(tmp_path / "best.safetensors")
    one, other = (drawn(model, encoded[UNSEEN[0]], 1) for model in (best, loaded))
    assert same_bits(one, other)


def test_means_are_corrected_on_the_loaded_model_under_its_patches(pack, quantise, observation, source, monkeypatch):
    """What a patch put in place of a bias is taken back when the model is unloaded: the correction has to stay."""
    import comfy.model_management

    module = pack("nodes.quantization.mean_correction")
    layer = "double_blocks.0.img_mlp.0"
    plain, report = quantise("w4a8", observation=observation[0])
    assert "Means of outputs" in report
    before = plain.model.diffusion_model.get_submodule(layer).bias.clone()
    patched = plain.clone()
    patched.add_patches({f"diffusion_model.{layer}.bias": (torch.ones_like(before),)})
    real = module.mean_correction

    def found(root, names, calls, on_call):
        real(root, names, calls, on_call)  # the network can be called where it lies
        assert torch.allclose(root.get_submodule(layer).bias, before + 1)
        return pack("qsched_core.quant").Correction({layer: torch.full_like(before, 0.25)}, 0.2, 0.1)

    monkeypatch.setattr(module, "mean_correction", found)
    module.correct_means(patched, [layer], observation[0])
    assert torch.allclose(patched.model.diffusion_model.get_submodule(layer).bias, before + 1.25)
    comfy.model_management.unload_all_models()
    assert torch.allclose(patched.model.diffusion_model.get_submodule(layer).bias, before + 0.25)


def test_the_observation_is_used_but_for_the_rounding(quantise, observation):
    _, fast = quantise(observation=observation[0], quality="fast")
    assert "sees one row per picture" in fast
    assert "Rounding fitted" not in fast


def test_native_layers_are_fitted_in_the_hosts_own_formats(quantise, observation, source, encoded):
    nearest, _ = quantise("w8a8", recipe="stock", backend="kitchen")
    fitted, report = quantise("w8a8", recipe="stock", backend="kitchen", observation=observation[0])
    assert "Rounding fitted" in report
    before, after = (model.model.diffusion_model.state_dict() for model in (nearest, fitted))
    assert {k: (v.shape, v.dtype) for k, v in before.items()} == {k: (v.shape, v.dtype) for k, v in after.items()}
    assert error_of(fitted, source, encoded) < error_of(nearest, source, encoded)


def test_the_plan_is_studied_on_the_same_observation(pack, inputs, observation, monkeypatch):
    node, study = pack("nodes.sensitivity").QSchedSensitivity, pack("nodes.quantization.study")

    def refuse(self, seed):
        def drive():
            raise AssertionError("sampled again")

        return drive

    monkeypatch.setattr(study.StudyPrompts, "sampled", refuse)
    common = {**inputs, "average_bits": 5.0, "formats": "w4a8, w8a8"}
    for depth in ("layers", "network"):
        plan, text, _ = node.execute(**common, depth=depth, observation=observation[0]).args
        assert text.startswith("32 layers studied on 32 evaluations")
        assert len(plan.forms) == 32


def test_a_small_memory_samples_again_and_is_as_near(node, inputs, quantise, source, encoded):
    seen, text = node.execute(**inputs, memory_gb=0.001).args
    assert "do not fit the memory" in text
    fitted, _ = quantise(observation=seen)
    nearest, _ = quantise()
    assert error_of(fitted, source, encoded) < 0.95 * error_of(nearest, source, encoded)


def test_the_model_is_left_as_it_is(quantise, observation, source, encoded):
    before = drawn(source, encoded[UNSEEN[0]], 1)
    quantise(observation=observation[0])
    assert same_bits(drawn(source, encoded[UNSEEN[0]], 1), before)


def test_a_twin_does_not_keep_what_was_observed(node, inputs, quantise):
    seen, _ = node.execute(**inputs).args
    reference = weakref.ref(seen)
    model, _ = quantise(observation=seen)
    del seen
    gc.collect()
    assert reference() is None
    assert model is not None


def test_an_observation_of_another_model_is_refused(pack, quantise, observation, refused):
    from dataclasses import replace

    other = replace(observation[0], fingerprint="0")
    with refused(pack("qsched_core").QuantizationError, "observation is of another model"):
        quantise(observation=other)


def test_fitted_needs_an_observation(pack, quantise, refused):
    with refused(pack("qsched_core").QuantizationError, "fitted needs an observation"):
        quantise(quality="fitted")


def test_a_quantised_model_is_not_observed(pack, node, inputs, quantise, refused):
    with refused(pack("qsched_core").QuantizationError, "quantised already"):
        node.execute(**{**inputs, "model": quantise()[0]})
