"""Without prompts: words at random from a text encoder's own vocabulary, and how near what is fitted to them comes."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from demo_model import OBSERVED, UNSEEN, picture

pytestmark = pytest.mark.usefixtures("one_thread", "empty_store")

AS_FAR = 1.4
"""How much farther from the full model's latents what is fitted to words at random may come than what is fitted to
prompts. 1.11 to 1.33 on the flow toy (``benchmarks.no_data``), over many more captions."""

PERCEPTRONS = "*_mlp*"
"""A part of the layers, in every block with two streams."""


@pytest.fixture(scope="module")
def rooms(pack):
    return pack("nodes.host.random_prompts")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("comfy.sd1_clip", "SD1Tokenizer"),
        ("comfy.sdxl_clip", "SDXLTokenizer"),
        ("comfy.text_encoders.flux", "FluxTokenizer"),
        ("comfy.text_encoders.pixart_t5", "PixArtTokenizer"),
        ("comfy.text_encoders.z_image", "ZImageTokenizer"),
    ],
)
def test_words_are_read_off_the_hosts_own_tokenizers(rooms, module, name):
    tokenizer = getattr(import_module(module), name)()
    words = rooms.known_words(SimpleNamespace(tokenizer=tokenizer, cond_stage_model=None))
    assert len(words) > 5000
    assert {"house", "water", "light"} < set(words)
    assert all(word.isascii() and word.islower() and len(word) >= 3 for word in words)


def test_the_demo_draws_words_that_its_encoder_knows(demo, rooms):
    words = rooms.known_words(demo[1])
    assert {"apple", "whale", "left", "background"} < set(words)
    assert "house" in words
    assert "water" not in words  # one of the thousands that are all the same to it
    first, again, other = (rooms.random_texts(demo[1], 8, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 8
    assert all(len(set(text.split())) == 8 for text in first)


def test_a_vocabulary_that_cannot_be_read_is_said(pack, rooms, refused):
    clip = SimpleNamespace(tokenizer=SimpleNamespace(own=object()), cond_stage_model=None)
    with refused(pack("qsched_core").QuantizationError, "vocabulary of this text encoder", "plug in prompts"):
        rooms.random_texts(clip, 8, 0)


def test_neither_prompts_nor_a_text_encoder_is_refused(demo_sampling, pack, refused):
    with refused(pack("qsched_core").QuantizationError, "nothing to sample with", "clip alone, for words at random"):
        pack("nodes.observe_layers").QSchedObserve.execute(**demo_sampling)


@pytest.fixture(scope="module")
def observations(pack, tmp_path_factory):
    """A folder of observations for the tests that follow: each is sampled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["folder_paths"], "user_directory", str(tmp_path_factory.mktemp("user")))
        yield sys.modules["folder_paths"].user_directory


@pytest.fixture
def sampling(demo_sampling, observations, monkeypatch) -> dict:
    """Of pictures as large as those that the model was trained on: on others a fit to its prompts shows less."""
    monkeypatch.setattr(sys.modules["folder_paths"], "user_directory", observations)
    return {**demo_sampling, "latent_image": {"samples": torch.zeros(1, 16, 16, 16)}}


@pytest.fixture
def positive(demo, pack) -> list:
    return [entry for text in OBSERVED for entry in pack("nodes.host.conditioning").encode(demo[1], text)]


@pytest.mark.usefixtures("one_damping")
def test_what_is_fitted_to_random_words_is_nearly_as_near(demo, sampling, positive, pack):
    model, clip, _ = demo
    encode = pack("nodes.host.conditioning").encode
    observe = pack("nodes.observe_layers").QSchedObserve.execute
    quantize = pack("nodes.quantize_model").QSchedQuantizeModel.execute
    prompted, _ = observe(**sampling, positive=positive).args
    random, report = observe(**sampling, clip=clip).args
    assert "No prompts: words at random from the text encoder's vocabulary were sampled." in report

    def latents_of(of) -> list[torch.Tensor]:
        texts = (*UNSEEN, "a rocket left of a moon")
        return [picture(of, encode(clip, text), seed=seed, side=16) for seed, text in enumerate(texts, 100)]

    exact = latents_of(model)

    def distance(observation) -> float:
        options = {"format": "w4a4", "group_size": "per channel", "include": PERCEPTRONS, "exclude": ""}
        packed = quantize(model=model, **options, backend="torch", observation=observation).args[0]
        return sum((a - b).square().sum().item() for a, b in zip(latents_of(packed), exact, strict=True)) ** 0.5

    near, nearest = distance(prompted), distance(None)
    assert distance(random) < min(AS_FAR * near, 0.8 * nearest)


@pytest.mark.usefixtures("one_damping")
def test_bits_of_layers_are_planned_without_prompts(demo, sampling, positive, pack, monkeypatch):
    node, observe = pack("nodes.sensitivity").QSchedSensitivity, pack("nodes.observe_layers").QSchedObserve.execute
    more = {"average_bits": 5.0, "depth": "layers", "formats": "w4a8, w8a8"}
    prompted, _, _ = node.execute(**sampling, **more, positive=positive).args
    plan, report, _ = node.execute(**sampling, **more, clip=demo[1]).args
    assert report.startswith("No prompts: words at random")
    same = sum(plan.forms[layer] == form for layer, form in prompted.forms.items())
    assert same >= 0.8 * len(prompted.forms)
    # What was observed without prompts serves here too, and nothing need be plugged in but it.
    observation, _ = observe(**sampling, clip=demo[1]).args
    study = pack("nodes.quantization.study")
    monkeypatch.setattr(study, "measure_sensitivity", partial(study.measure_sensitivity, include=[PERCEPTRONS]))
    again, text, _ = node.execute(**sampling, **more, observation=observation).args
    assert set(again.forms) == {layer for layer in prompted.forms if "_mlp" in layer}
    assert "No prompts" not in text
