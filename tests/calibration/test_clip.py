"""CLIPScore and CLIP-IQA on a random open_clip model in a local folder: the arithmetic, the files and the errors."""

from __future__ import annotations

import json
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from exactness import near, same_bits
from PIL import Image
from tiny_clip import CONFIG, DEVIATION, MEAN, write_folder

from calibration.core import CalibrationError, DependencyError
from calibration.metrics.base import too_long
from calibration.metrics.clip import QUALITY_PAIR, ClipIQA, ClipScore, ClipScorer
from calibration.metrics.open_clip_network import LONGEST, SHORTEST, SQUASH, OpenClip, open_folder

pytestmark = pytest.mark.usefixtures("one_vocabulary")
PROMPTS = ["a dog", "two cats on a sofa", "rain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(1))


def test_scores_are_the_published_formulas(folder, pictures):
    scores = ClipScorer(folder).score(pictures, PROMPTS)

    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    normal = (pictures.movedim(-1, 1) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    with torch.no_grad():
        image = model.encode_image(normal, normalize=True)
        text, pair = (model.encode_text(tokenize(t), normalize=True) for t in (PROMPTS, list(QUALITY_PAIR)))
    cosine = (image * text).sum(-1).clamp(min=1e-4)
    # The picture is already 32 px: resizing changes nothing, so only float32 rounding is left.
    torch.testing.assert_close(scores["tc"], (100 * cosine).log(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores["iq"], (100 * image @ pair.T).softmax(-1)[:, 0], rtol=1e-4, atol=1e-4)


def test_a_picture_between_the_good_and_the_bad_photo_has_a_share_of_quality(folder, monkeypatch):
    """A random model's pictures are all as far from one half as they can be: here are some that are not."""
    metric = ClipIQA.open(folder)
    monkeypatch.setattr(metric.network, "encode_text", lambda texts: torch.eye(2, 3))
    nearer = torch.tensor([-0.02, 0.0, 0.005, 0.02])  # to the good photo than to the bad one
    image = torch.stack([0.5 + nearer / 2, 0.5 - nearer / 2, torch.full((4,), 0.7)], -1)
    torch.testing.assert_close(metric.judge(image, []), 1 / (1 + torch.exp(-100 * nearer)))


def test_pictures_embed_as_the_networks_own_features_of_length_one(folder, pictures):
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval()
    normal = (pictures.movedim(-1, 1) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    metric = ClipIQA.open(folder)
    with torch.no_grad():
        expected = model.encode_image(normal)
        expected = expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(metric.embed(pictures.double()), expected, rtol=1e-4, atol=1e-5)
    assert metric.embeds


def test_prompts_that_are_cut_are_counted(folder):
    """75 words of one token each fit beside the begin and the end. CLIP-IQA reads no prompts."""
    fits, cut = " ".join(["dog"] * 75), " ".join(["dog"] * 76)
    assert too_long(ClipScorer(folder), [fits, cut, "a dog", cut]) == 2
    assert too_long(ClipIQA(open_folder(folder)), [cut]) == 0
    pictures = torch.rand(2, 32, 32, 3)
    score = ClipScore(open_folder(folder))
    assert same_bits(score.score(pictures, [fits + " cat"] * 2), score.score(pictures, [fits + " dog"] * 2))


def test_words_are_counted_by_the_tokenizer_that_is_there(folder):
    """That of the transformers package counts the begin and the end itself; of any other nothing is known."""
    clip = open_folder(folder).clip
    words = SimpleNamespace(context_length=5, tokenizer=lambda text: {"input_ids": [0, *text.split(), 1]})
    lengths = [OpenClip(clip, words).exceeds_context(text) for text in ("a b c", "a b c d")]
    assert lengths == [False, True]
    for unknown in (SimpleNamespace(), SimpleNamespace(context_length=5), SimpleNamespace(encode=str.split)):
        assert not ClipScore(OpenClip(clip, unknown)).is_too_long("a dog " * 100)


def test_texts_are_encoded_256_at_once(folder):
    network, texts, counts = open_folder(folder), [f"{number} cats" for number in range(513)], []
    counting = OpenClip(network.clip, lambda part: counts.append(len(part)) or network._tokenize(part))
    features = counting.encode_text(texts)
    assert counts == [256, 256, 1]
    assert near(features[[0, 255, 256, 512]], network.encode_text([texts[i] for i in (0, 255, 256, 512)]))


def test_any_size_is_brought_to_the_models(folder):
    scores = ClipScorer(folder).score(torch.rand(2, 48, 80, 3), ["a", "b"])
    assert scores["tc"].shape == scores["iq"].shape == (2,)
    assert torch.isfinite(scores["tc"]).all()
    assert ((scores["iq"] >= 0) & (scores["iq"] <= 1)).all()


def test_a_folder_is_loaded_once_and_freed_with_its_last_metric(folder):
    one, other = ClipScore.open(folder), ClipIQA.open(folder)
    both = ClipScorer(folder)
    assert one.network is other.network is both.tc.network is both.iq.network
    # float32 parameters, and the causal mask
    assert one.bytes == 4 * (sum(p.numel() for p in one.parameters()) + 77 * 77)
    network = weakref.ref(one.network)
    del one, other, both
    assert network() is None


def test_a_pair_sees_each_picture_once_and_gives_what_its_metrics_give(folder, pictures, monkeypatch):
    pair = ClipScorer(folder)
    alone = {"tc": pair.tc.score(pictures, PROMPTS), "iq": pair.iq.score(pictures, PROMPTS)}
    calls = []
    encode = pair.tc.network.encode_image
    monkeypatch.setattr(pair.tc.network, "encode_image", lambda *args: calls.append(args) or encode(*args))
    together = pair.score(pictures, PROMPTS)
    assert len(calls) == 1
    assert all(same_bits(together[role], alone[role]) for role in ("tc", "iq"))


def test_pickled_weights_give_the_same_scores(folder, pictures, tmp_path):
    pickled = write_folder(tmp_path / "pickled", "open_clip_pytorch_model.bin")
    ours, theirs = (ClipScore.open(place).score(pictures, PROMPTS) for place in (pickled, folder))
    assert near(ours, theirs)  # weights mapped from a file lie at other addresses


@pytest.mark.parametrize("fit", [SHORTEST, LONGEST, SQUASH])
@pytest.mark.parametrize("shape", [(64, 96), (90, 60), (20, 30)])
def test_preparation_is_open_clips(folder, fit, shape):
    # Smooth pictures: open_clip rounds to bytes, and what bicubic interpolation overshoots is cut there.
    x, y = torch.linspace(0, 3, shape[1])[None], torch.linspace(0, 2, shape[0])[:, None]
    picture = torch.stack([(x + y).sin(), (x * y).cos(), (2 * x - y).sin()], -1) * 0.4 + 0.5
    theirs = open_clip.image_transform(32, is_train=False, mean=MEAN, std=DEVIATION, resize_mode=fit)
    expected = theirs(Image.fromarray((picture * 255).round().to(torch.uint8).numpy()))
    ours = open_folder(folder).prepared(picture[None], fit)[0]
    # Two roundings to 1/255, over the smallest deviation.
    assert (ours - expected).abs().max() < 2 / 255 / min(DEVIATION)


def test_half_precision_scores_nearly_the_same(folder, pictures):
    full = ClipScorer(folder).score(pictures, PROMPTS)["iq"]
    network = ClipScorer(folder).to(torch.bfloat16)
    half = network.score(pictures, PROMPTS)["iq"]
    assert half.dtype == torch.float32
    # 100 times a cosine with 8 bits of mantissa
    np.testing.assert_allclose(half, full, atol=0.3)


def test_missing_and_broken_files_are_named(tmp_path, refused):
    with refused(CalibrationError, "open_clip_config.json"):
        ClipScorer(tmp_path)
    place = write_folder(tmp_path / "tiny")
    weights = place / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with refused(CalibrationError, "tiny", "open_clip_model.safetensors"):
        ClipScorer(place)
    weights.write_bytes(whole)
    (place / "open_clip_config.json").write_text("{}")
    with refused(CalibrationError, "tiny", "open_clip_config.json"):
        ClipScorer(place)


def test_a_text_tower_that_would_be_downloaded_is_refused(tmp_path, refused):
    place = write_folder(tmp_path / "tiny")
    config = {"model_cfg": {**CONFIG, "text_cfg": {"hf_model_name": "roberta-base"}}}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    with refused(CalibrationError, "tiny", "text tower"):
        ClipScorer(place)


def test_without_open_clip_the_package_is_named(folder, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with refused(DependencyError, "this metric needs open_clip.", "pip install open_clip_torch"):
        ClipScorer(folder)


@pytest.mark.parametrize(
    ("shape", "prompts", "part"),
    [
        ((3, 32, 32), ["a"], "(3, 32, 32)"),
        ((1, 32, 32, 4), ["a"], "(1, 32, 32, 4)"),
        ((0, 32, 32, 3), [], "(0, 32, 32, 3)"),
        ((2, 32, 32, 3), ["a"], "2 pictures came with 1"),
        ((2, 32, 32, 3), "ab", "2 pictures came with 1"),
    ],
)
def test_pictures_and_prompts_must_fit(folder, refused, shape, prompts, part):
    for metric in (ClipScorer(folder), ClipScore.open(folder)):
        with refused(CalibrationError, part):
            metric.score(torch.zeros(shape), prompts)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32, 4), (0, 32, 32, 3)])
def test_only_pictures_are_embedded(folder, refused, shape):
    with refused(CalibrationError, f"pictures of shape {shape} cannot be scored.", "give (B, H, W, 3)"):
        ClipScore.open(folder).embed(torch.zeros(shape))
