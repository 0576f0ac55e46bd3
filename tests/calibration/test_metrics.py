"""What stands beside the networks: scores from loaded encoders, the distance to full precision, the catalogue."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from exactness import same_bits
from safetensors.torch import save_file

from calibration.cli.inputs import load_metric
from calibration.core import CalibrationError, DependencyError
from calibration.metrics.base import Metric, Pair
from calibration.metrics.catalog import PAPER_SD15, PAPER_SDXL, catalog
from calibration.metrics.clip import ClipScorer
from calibration.metrics.embeddings import CosineScore
from calibration.metrics.reference import distance

pytestmark = pytest.mark.usefixtures("one_vocabulary")
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": VISION,
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
PICTURES = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(1))
PROMPTS = ["same", "across", "opposite"]


def test_loaded_encoders_give_the_clip_score():
    texts = {"same": [2.0, 0.0], "across": [3.0, 4.0], "opposite": [-1.0, 0.0]}
    score = CosineScore(
        lambda pictures: torch.tensor([[5.0, 0.0]]).expand(len(pictures), 2),
        lambda prompts: torch.tensor([texts[prompt] for prompt in prompts]),
    )
    expected = torch.tensor([math.log(100), math.log(60), math.log(0.01)])
    torch.testing.assert_close(score.score(PICTURES, PROMPTS), expected)
    assert (score.role, score.bytes) == ("tc", 0)


def test_encoders_of_two_models_are_refused(refused):
    score = CosineScore(lambda pictures: torch.zeros(len(pictures), 1024), lambda prompts: torch.zeros(3, 768))
    with refused(CalibrationError, "(3, 1024)", "(3, 768)", "same CLIP model"):
        score.score(PICTURES, PROMPTS)


def test_a_metric_without_a_measure_is_an_error_and_no_score():
    for ask in (lambda: Metric().score(PICTURES, PROMPTS), lambda: Metric().embed(PICTURES)):
        with pytest.raises(NotImplementedError):
            ask()
    assert not Metric().embeds and not Metric().is_too_long("a dog " * 100)


def test_a_pair_takes_any_two_metrics():
    score = CosineScore(lambda pictures: torch.ones(3, 4), lambda prompts: torch.ones(3, 4))
    scores = Pair(score, score).score(PICTURES, PROMPTS)
    assert same_bits(scores["tc"], scores["iq"])


def test_distance_is_the_root_mean_square_of_each_picture():
    reference = torch.zeros(3, 8, 8, 3)
    shifted = reference.clone()
    shifted[1] += 0.5
    shifted[2, :2] += 1  # a quarter of the rows
    torch.testing.assert_close(distance(shifted, reference)["distance to full"], torch.tensor([0.0, 0.5, 0.5]))


def test_distance_needs_the_same_pictures(refused):
    with refused(CalibrationError, "differ in shape"):
        distance(PICTURES, PICTURES[:2])


def write_clip(place: Path, vision: dict) -> None:
    place.mkdir(parents=True)
    model = {**CONFIG, "vision_cfg": vision}
    save_file(open_clip.CLIP(**model).state_dict(), place / "open_clip_model.safetensors")
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))


@pytest.fixture
def roots(tmp_path, monkeypatch) -> list[Path]:
    monkeypatch.setattr("calibration.metrics.catalog.find_spec", lambda name: None)
    first, second = tmp_path / "first", tmp_path / "second"
    write_clip(first / "ViT", VISION)
    write_clip(second / "RN", {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None})
    for folder, file in (("HPSv2.1", "HPS_v2.1_compressed.pt"), ("PickScore_v1", "model.safetensors")):
        (second / folder).mkdir()
        (second / folder / file).write_bytes(b"12345")
    (second / "A text model").mkdir()
    (second / "A text model" / "model.safetensors").write_bytes(b"1")
    return [first, second, tmp_path / "absent"]


def test_the_catalogue_lists_what_is_on_the_disk(roots):
    entries = catalog(roots)
    assert {name: entry.roles for name, entry in entries.items()} == {
        "CLIPScore (ViT)": ("tc", "watch"),
        "CLIP-IQA (ViT)": ("iq", "watch"),
        "AQ-Map (ViT)": ("tc", "watch"),
        "CLIPScore (RN)": ("tc", "watch"),
        "CLIP-IQA (RN)": ("iq", "watch"),
        "HPSv2.1": ("iq", "watch"),
        "PickScore": ("iq", "watch"),
    }
    assert entries["HPSv2.1"].bytes == entries["PickScore"].bytes == 5
    (roots[0] / "HPS").mkdir()
    (roots[0] / "HPS" / "HPS_v2.1_compressed.pt").write_bytes(b"123")
    assert catalog(roots)["HPSv2.1"].bytes == 3  # of the first folder
    assert entries["CLIPScore (ViT)"].bytes == (roots[0] / "ViT" / "open_clip_model.safetensors").stat().st_size
    assert (entries["HPSv2.1"].license, entries["AQ-Map (ViT)"].license) == ("Apache-2.0", "unknown")


def test_entries_of_a_folder_load_one_network(roots):
    entries = catalog(roots)
    pair = Pair(entries["CLIPScore (ViT)"].load(), entries["CLIP-IQA (ViT)"].load())
    both = ClipScorer(roots[0] / "ViT")
    assert entries["AQ-Map (ViT)"].load().network is pair.tc.network is both.iq.network
    assert all(
        same_bits(mine, theirs)
        for mine, theirs in zip(
            pair.score(PICTURES, PROMPTS).values(), both.score(PICTURES, PROMPTS).values(), strict=True
        )
    )


def test_a_command_takes_one_metric_of_each_kind_in_either_order(roots):
    for words in ("CLIPScore (ViT) + CLIP-IQA (ViT)", " CLIP-IQA (ViT)  +  AQ-Map (ViT) "):
        name, pair = load_metric(words, roots[0])
        assert (name, pair.tc.role, pair.iq.role) == (words, "tc", "iq")


@pytest.mark.parametrize(
    "words",
    [
        "CLIPScore (ViT)",
        "CLIPScore (ViT) + AQ-Map (ViT)",
        "CLIP-IQA (ViT) + CLIP-IQA (ViT)",
        "CLIPScore (ViT) + CLIP-IQA (ViT) + AQ-Map (ViT)",
        "CLIPScore (ViT) + CLIP-IQA (ViT) + nothing",
        "CLIPScore (ViT) + nothing",
        "",
        " ",
    ],
)
def test_other_numbers_and_kinds_of_metrics_are_refused(roots, words, refused):
    fix = "two names: one of ['CLIPScore (ViT)', 'AQ-Map (ViT)'], one of ['CLIP-IQA (ViT)']"
    with refused(CalibrationError, f"{words[:40]!r} is no metric.", fix):
        load_metric(words, roots[0])


def test_a_broken_file_is_listed_and_says_so_when_loaded(roots, refused):
    (roots[0] / "ViT" / "open_clip_config.json").write_text("{")
    entries = catalog(roots)
    assert "AQ-Map (ViT)" not in entries
    for name in ("CLIPScore (ViT)", "HPSv2.1", "PickScore"):
        with refused(CalibrationError):
            entries[name].load()


def test_the_papers_pairs_are_made_of_listed_metrics(roots):
    listed = {entry.metric for entry in catalog(roots).values()}
    for tc, iq in (PAPER_SD15, PAPER_SDXL):
        assert {tc, iq} <= listed
        assert (tc.role, iq.role) == ("tc", "iq")


def test_metrics_without_weights_are_listed_with_their_package(monkeypatch, refused):
    monkeypatch.setattr("calibration.metrics.catalog.find_spec", lambda name: object())
    entries = catalog([])
    assert set(entries) == {"pyiqa piqe", "pyiqa entropy"}
    for name, entry in entries.items():
        assert (entry.name, entry.roles, entry.bytes) == (name, ("iq", "watch"), 0)
        assert entry.license == "PolyForm-Noncommercial"
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with refused(DependencyError, "this metric needs pyiqa."):
        entries["pyiqa piqe"].load()
