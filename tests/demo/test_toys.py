"""The benchmarks' toys paint what they should, and a picture depends on nothing but its index."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits

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
    return toys.captions(6, 3)


def test_captions_are_distinct_and_held_out(captions):
    assert len(set(captions)) == 6
    assert all(is_held_out(caption) for caption in captions)


@torch.no_grad()
def test_the_flow_toy_walks_as_its_training_did(loaded, captions):
    pytest.importorskip("open_clip")
    from demo.training.flow import Painter

    toy, painter = loaded["flow"], Painter()
    painter.flux, painter.text = toy.network, toy.text
    noise = toy.noises(0, range(6))[0]
    walked = painter.walk(noise, painter.read(compact_ids(captions)), 1.0, 0.0, 4)
    pictures = toy.generator(captions)(IDENTITY, range(6))
    # 1e-4: four evaluations in float32, in another order of operations.
    assert (pictures - toys.decode(toy.decoder, walked)).abs().max() < 1e-4


@torch.no_grad()
def test_the_noise_toy_is_a_multistep_consistency_model(loaded, captions):
    toy = loaded["noise"]
    states = toy.text(input_ids=compact_ids(captions)).last_hidden_state
    fresh = toy.noises(5, range(6))
    x = fresh[0] * (1 + toy.sigmas[0] ** 2) ** 0.5
    for i, timestep in enumerate((999, 749, 499, 249)):
        sigma = torch.full((6, 1, 1, 1), toy.sigmas[i])
        clean = x - sigma * predict_noise(toy.network, x, torch.full((6,), timestep), sigma, states)
        x = clean + toy.sigmas[i + 1] * fresh[i + 1] if i < 3 else clean
    pictures = toy.generator(captions, seed=5)(IDENTITY, range(6))
    assert (pictures - toys.decode(toy.decoder, x)).abs().max() < 1e-4  # as above


@pytest.mark.parametrize("kind", toys.KINDS)
def test_a_picture_is_the_same_in_any_batch_and_another_for_another_seed_or_noise(loaded, captions, kind):
    whole = loaded[kind].generator(captions)(IDENTITY, range(12))
    part = loaded[kind].generator(captions, batch=2)(IDENTITY, [11, 3, 7])
    # 1e-4: matrix products of another height round otherwise.
    assert (part - whole[[11, 3, 7]]).abs().max() < 1e-4
    assert (whole[:6] - whole[6:]).abs().amax(dim=(1, 2, 3)).min() > 0.02
    other = loaded[kind].generator(captions, seed=1)(IDENTITY, [3])
    assert (other - whole[[3]]).abs().max() > 0.02


@pytest.mark.parametrize("kind", toys.KINDS)
def test_quantising_leaves_the_toy_itself_alone_and_shows_in_pictures(loaded, captions, kind):
    toy = loaded[kind]
    before = toy.generator(captions)(IDENTITY, range(6))
    coarse = toy.quantized("w3a8").generator(captions)(IDENTITY, range(6))
    assert (coarse - before).abs().mean() > 1e-3
    assert same_bits(toy.generator(captions)(IDENTITY, range(6)), before)


def test_both_toys_paint_what_their_captions_say(loaded):
    pytest.importorskip("open_clip")
    captions = toys.captions(32, 5)
    _, judge = toys.scored(captions)
    for toy in loaded.values():
        read = judge(toy.generator(captions)(IDENTITY, range(32)), range(32))
        assert read["attribute accuracy"].mean() > 0.8, toy.kind
