"""The shipped scorers on drawn pictures, where the truth is known."""

from __future__ import annotations

import json

import pytest
import torch
from exactness import same_bits
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from calibration.metrics.picture_set import set_row
from demo import files
from demo.judges import DemoJudge, DemoScorer, DrawnSet
from demo.scenes import caption_of, draw, sample_scenes
from demo.vocabulary import WORDS

COUNT = 64


@pytest.fixture(scope="module", autouse=True)
def weights() -> None:
    """`demo.train` writes the figures last: without them the weights are those of an unfinished training."""
    if not files.FIGURES.exists() or not json.loads(files.FIGURES.read_text("utf-8")):
        pytest.skip("demo/weights holds no finished training")


@pytest.fixture(scope="module")
def scene() -> tuple[Tensor, list[str]]:
    """(pictures (B, 128, 128, 3), captions) that no net was trained on."""
    generator = torch.Generator().manual_seed(11)
    rows = sample_scenes(COUNT, generator, held_out=True)
    return draw(rows, generator).movedim(1, -1), [caption_of(row) for row in rows]


@pytest.fixture(scope="module")
def scorer() -> DemoScorer:
    pytest.importorskip("open_clip")
    return DemoScorer()


@pytest.fixture(scope="module")
def judge() -> DemoJudge:
    return DemoJudge()


@pytest.fixture(scope="module")
def drawn_set(judge) -> DrawnSet:
    return DrawnSet(judge)


@pytest.fixture(scope="module")
def own(scorer, scene) -> dict[str, Tensor]:
    """Scores of each picture beside its own caption."""
    return scorer.score(*scene)


@pytest.fixture(scope="module")
def another(scorer, scene) -> dict[str, Tensor]:
    """Scores of each picture beside the caption of the next one."""
    pictures, captions = scene
    return scorer.score(pictures, captions[1:] + captions[:1])


def share(values: Tensor) -> float:
    return values.float().mean().item()


def damages(pictures: Tensor) -> dict[str, Tensor]:
    noise = 0.15 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(12))
    blurred = F.avg_pool2d(pictures.movedim(-1, 1), 9, stride=1, padding=4, count_include_pad=False)
    return {"noise": (pictures + noise).clamp(0, 1), "blur": blurred.movedim(1, -1)}


# Shares of 64 pictures: a net worth using as a judge errs on a few of them at most.


def test_tc_prefers_the_own_caption_to_anothers(own, another):
    assert own["tc"].shape == (COUNT,)
    assert (own["tc"].abs() <= 1 + 1e-6).all()  # a cosine, in float32
    assert share(own["tc"] > another["tc"]) >= 0.95


def test_iq_falls_with_damage(scorer, scene, own):
    pictures, captions = scene
    for name, worse in damages(pictures).items():
        iq = scorer.score(worse, captions)["iq"]
        assert share(iq < own["iq"]) >= 0.95, name
        assert iq.mean() < own["iq"].mean() - 0.1, name


def test_iq_does_not_read_the_prompt(own, another):
    assert same_bits(own["iq"], another["iq"])


def test_a_picture_scores_the_same_alone_and_in_a_batch(scorer, scene):
    """Common random numbers need it: a score must not depend on the neighbours."""
    pictures, captions = scene
    together, alone = scorer.score(pictures[:4], captions[:4]), scorer.score(pictures[2:3], captions[2:3])
    for metric in ("tc", "iq"):
        # 1e-5: float32 sums in another order.
        torch.testing.assert_close(together[metric][2:3], alone[metric], rtol=0, atol=1e-5)


def test_the_judge_reads_drawn_pictures(judge, scene):
    pictures, captions = scene
    scores = judge.score(pictures, captions)
    assert share(scores["all right"]) >= 0.95
    assert scores["attribute accuracy"].mean() >= 0.98


def test_the_judge_sees_a_wrong_picture(judge, scene):
    pictures, captions = scene
    scores = judge.score(pictures, captions[1:] + captions[:1])
    assert share(scores["all right"]) <= 0.1
    assert scores["attribute accuracy"].mean() <= 0.6


def test_the_judge_has_no_opinion_on_other_prompts(judge, scene):
    pictures, captions = scene
    scores = judge.score(pictures[:2], ["a castle at dawn", captions[1]])
    for metric in ("attribute accuracy", "all right"):
        assert torch.isnan(scores[metric]).tolist() == [True, False]


def test_pictures_of_another_size_are_read_too(judge, scene):
    pictures, captions = scene
    large = F.interpolate(pictures.movedim(-1, 1), scale_factor=2, mode="nearest").movedim(1, -1)
    small = judge.score(pictures, captions)
    # Area averaging undoes the doubling exactly.
    assert same_bits(judge.score(large, captions)["all right"], small["all right"])


def test_the_nets_are_frozen_and_make_no_graph(scorer, judge, scene):
    pictures, captions = scene
    assert not any(parameter.requires_grad for net in (scorer, judge) for parameter in net.parameters())
    assert not any(net.training for net in (scorer.dual, scorer.quality, judge.net))
    assert not scorer.score(pictures[:1].clone().requires_grad_(), captions[:1])["tc"].requires_grad


@pytest.mark.parametrize(
    "path",
    [files.MODEL, files.VAE, files.TEXT, files.QUALITY, files.ATTRIBUTES],
    ids=lambda path: path.stem.removeprefix("qsched_demo_"),
)
def test_weights_are_finite_half_precision_and_say_what_they_are(path):
    with safe_open(path, framework="pt") as file:
        assert "Q-Sched demo" in file.metadata()["description"]
        assert file.metadata()["license"] == "Apache-2.0"
        names = list(file.keys())
        tensors = [file.get_tensor(name) for name in names]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    assert floats
    assert all(torch.isfinite(tensor).all() for tensor in floats)
    assert {tensor.dtype for tensor in floats if tensor.ndim} == {torch.float16}
    assert path.stat().st_size < 12e6


def test_all_files_together_are_small():
    """They are downloaded with the pack."""
    sizes = [path.stat().st_size for path in files.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(sizes) < 20e6


def test_the_words_clip_ids_are_distinct():
    ids = files.read(files.TEXT)["clip_ids"]
    assert ids.shape == (len(WORDS),)
    assert len(set(ids.tolist())) == len(WORDS)


# --- sets of pictures


def drawn(seed: int, count: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return draw(sample_scenes(count, generator), generator).movedim(1, -1)


def test_drawn_pictures_are_no_distance_away_and_damage_is(drawn_set):
    pictures = drawn(3)
    clean = set_row(drawn_set, pictures)["distance to drawn set"]
    assert abs(clean.mean()) < 2.5 * clean.std() / len(clean) ** 0.5
    for name, damaged in damages(pictures).items():
        change = set_row(drawn_set, damaged)["distance to drawn set"] - clean
        assert change.mean() > 3 * change.std() / len(change) ** 0.5, name


def test_a_broken_picture_leaves_the_others_their_distance(drawn_set):
    pictures = drawn(4, 8)
    with_nan = torch.cat([pictures, torch.full((1, *pictures.shape[1:]), torch.nan)])
    values = set_row(drawn_set, with_nan)["distance to drawn set"]
    assert values.isnan().tolist() == [False] * 8 + [True]
    torch.testing.assert_close(values[:8], set_row(drawn_set, pictures)["distance to drawn set"], rtol=0, atol=1e-5)
    assert set_row(drawn_set, pictures[:2])["distance to drawn set"].isnan().all()
