"""The benchmarks' toys paint what they should, and a picture depends on nothing but its index."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from torch import Tensor

import qsched_core as qs
from demo.scenes import is_held_out
from demo.vocabulary import compact_ids

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from benchmarks import toys  # noqa: E402
from benchmarks.toys.unet import predict_noise  # noqa: E402

IDENTITY = qs.Coefficients.identity(4)


@pytest.fixture(scope="module")
def loaded() -> dict[str, toys.Toy]:
    return {kind: toys.load(kind) for kind in toys.KINDS}


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return toys.captions(8, 5)


@pytest.fixture(scope="module")
def gallery(loaded, captions) -> dict[str, Tensor]:
    """Ten pictures of each toy: a picture of every caption, and a second one of the first two."""
    return {kind: toy.generator(captions)(IDENTITY, range(10)) for kind, toy in loaded.items()}


def test_captions_are_distinct_and_held_out():
    texts = toys.captions(32, 3)
    assert len(set(texts)) == 32
    assert all(is_held_out(text) for text in texts)


@torch.no_grad()
def test_the_flow_toy_walks_as_its_training_did(loaded, captions, gallery):
    pytest.importorskip("open_clip")
    from demo.training.flow import Painter

    toy, painter = loaded["flow"], Painter()
    painter.flux, painter.text = toy.network, toy.text
    noise = toy.noises(0, range(4))[0]
    walked = painter.walk(noise, painter.read(compact_ids(captions[:4])), 1.0, 0.0, 4)
    # 1e-4: four evaluations in float32, in another order of operations.
    assert (gallery["flow"][:4] - toys.decode(toy.decoder, walked)).abs().max() < 1e-4


@torch.no_grad()
def test_the_noise_toy_is_a_multistep_consistency_model(loaded, captions, gallery):
    toy = loaded["noise"]
    states = toy.text(input_ids=compact_ids(captions[:4])).last_hidden_state
    fresh = toy.noises(0, range(4))
    x = fresh[0] * (1 + toy.sigmas[0] ** 2) ** 0.5
    for i, timestep in enumerate((999, 749, 499, 249)):
        sigma = torch.full((4, 1, 1, 1), toy.sigmas[i])
        clean = x - sigma * predict_noise(toy.network, x, torch.full((4,), timestep), sigma, states)
        x = clean + toy.sigmas[i + 1] * fresh[i + 1] if i < 3 else clean
    assert (gallery["noise"][:4] - toys.decode(toy.decoder, x)).abs().max() < 1e-4  # as above


@pytest.mark.parametrize("kind", toys.KINDS)
def test_a_picture_is_the_same_in_any_batch_and_another_for_another_seed_or_noise(loaded, captions, gallery, kind):
    whole, some = gallery[kind], [9, 3, 7]
    part = loaded[kind].generator(captions, batch=2)(IDENTITY, some)
    # 1e-4: matrix products of another height round otherwise.
    assert (part - whole[some]).abs().max() < 1e-4
    assert (whole[:2] - whole[8:]).abs().amax(dim=(1, 2, 3)).min() > 0.02
    other = loaded[kind].generator(captions, seed=1)(IDENTITY, [3])
    assert (other - whole[[3]]).abs().max() > 0.02


@pytest.mark.parametrize("kind", toys.KINDS)
def test_quantising_leaves_the_toy_itself_alone_and_shows_in_pictures(loaded, captions, kind):
    toy = loaded[kind]
    before = toy.generator(captions)(IDENTITY, [0])
    coarse = toy.quantized("w3a8").generator(captions)(IDENTITY, [0])
    assert (coarse - before).abs().mean() > 1e-3
    assert same_bits(toy.generator(captions)(IDENTITY, [0]), before)


@pytest.mark.parametrize("kind", toys.KINDS)
def test_both_toys_paint_what_their_captions_say(captions, gallery, kind):
    pytest.importorskip("open_clip")
    _, judge = toys.scored(captions)
    # Nothing is wrong in any of them; 0.9 is four or five of their fifty attributes.
    assert judge(gallery[kind], range(10))["attribute accuracy"].mean() > 0.9
