"""Metrics of JAQ Calibrate on the real host: what they are put together of, read, and watch."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
from demo_model import PROMPTS, encoded
from tiny_clip import write_folder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_metric_is_given_the_words_of_a_prompt(pack, errors, demo):
    """Regression: the same pictures' TC fell from 0.97 to 0.81 with weights and tags around the words."""
    metrics = pack("nodes.calibrating.scorer")
    syntax = [f"({text}:1.2), <lora:oil:0.8>" for text in PROMPTS]
    pictures = torch.rand(8, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    plain, wrapped = (metrics.load_scorer("demo") for _ in range(2))
    one, other = (s.bind(texts)[0](pictures, range(8)) for s, texts in ((plain, PROMPTS), (wrapped, syntax)))
    assert (one["tc"] == other["tc"]).all()
    assert plain.reading(PROMPTS) == []
    assert wrapped.reading(syntax) == ["8 of 8 prompts were scored without their weights, embeddings and tags."]


def test_prompts_that_the_metric_cuts_are_said_once_in_the_report(calibrate):
    long = [f"{text} and {'a large apple ' * 5}" for text in PROMPTS[:2]]
    _, _, outputs = calibrate(prompts="\n".join([*long, *PROMPTS]))
    assert outputs[1].count("2 of 10 prompts are longer than the metric reads: it scored their beginnings.") == 1


def test_names_in_place_of_texts_cannot_be_scored(errors, calibrate, refused, demo):
    conditionings = SimpleNamespace(
        texts=tuple(f"conditioning {i}" for i in range(8)), note="", digest="z", verdict=(), has_texts=False,
        conditionings=[encoded(demo, text) for text in PROMPTS],
    )  # fmt: skip
    with refused(errors.CalibrationError, "a text-image score needs the prompts' texts."):
        calibrate(prompt_set=conditionings)


def test_a_metric_is_put_together_of_any_two(errors, pack, calibrate_node, demo, tmp_path, monkeypatch):
    """The demo's dual encoder is an open_clip model; its words' ids are not CLIP's, so its scores mean little here."""
    metrics, menu = pack("nodes.calibrating.scorer"), pack("nodes.calibrating.metric_menu")
    shutil.copytree(pack("demo.files").DUAL_ENCODER, tmp_path / "metrics" / "dual")
    monkeypatch.setattr(menu, "metric_roots", lambda: [tmp_path / "metrics"])
    names = menu.metric_entries("tc"), menu.metric_entries("iq")
    assert any(name.startswith("CLIPScore") for name in names[0]) and any("IQA" in name for name in names[1])
    with pytest.raises(errors.CalibrationError, match="the demo's TC and IQ belong together"):
        metrics.make_scorer("demo", next(iter(names[1])), "none")
    with pytest.raises(errors.CalibrationError, match="lacks the CLIP_VISION"):
        metrics.make_scorer("demo", "demo", "none", clip=demo[1])
    with pytest.raises(errors.CalibrationError, match="there is no tc metric"):
        metrics.make_scorer("nowhere", next(iter(names[1])), "none")


def test_the_distance_to_a_set_of_the_users_is_in_the_verdict(errors, pack, calibrate, refused, tmp_path, monkeypatch):
    """Watched, not searched; another set is another study."""
    metrics, menu = pack("nodes.calibrating.scorer"), pack("nodes.calibrating.metric_menu")
    (tmp_path / "metrics").mkdir()
    write_folder(tmp_path / "metrics" / "tiny clip")
    monkeypatch.setattr(menu, "metric_roots", lambda: [tmp_path / "metrics"])
    tc, iq = (next(iter(menu.metric_entries(role))) for role in ("tc", "iq"))

    def report_with(seed: int):
        pictures = torch.rand(9, 64, 64, 3, generator=torch.Generator().manual_seed(seed))
        return calibrate(jaq_metric=metrics.make_scorer(tc, iq, "none", picture_set=pictures))[1]

    report, other = report_with(1), report_with(2)
    plain = calibrate(jaq_metric=metrics.make_scorer(tc, iq, "none"))[1]
    assert "distance to set" not in plain["gains"]
    assert report["trace"] == plain["trace"], "no search sees it"
    values = [r["table"]["rows"][0]["distance to set"] for r in (report, other)]
    assert values[0] > 0, "drawings are no noise"
    assert values[0] != values[1]
    assert any("set of 9 pictures, seen by" in line for line in report["verdict"])
    with refused(errors.CalibrationError, "the demo's metric has a set of its own", "unplug picture_set"):
        metrics.make_scorer("demo", "demo", "none", picture_set=torch.rand(9, 64, 64, 3))


def test_the_paper_s_other_pair_is_offered_where_both_files_are(pack, monkeypatch, tmp_path):
    metrics, menu = pack("nodes.calibrating.scorer"), pack("nodes.calibrating.metric_menu")
    monkeypatch.setattr(menu, "metric_roots", lambda: [tmp_path])
    shutil.copytree(pack("demo.files").DUAL_ENCODER, tmp_path / "ViT-B-16")
    assert not [name for name in menu.metric_names() if "HPSv2.1" in name]
    (tmp_path / "HPSv2.1").mkdir()
    (tmp_path / "HPSv2.1" / "HPS_v2.1_compressed.pt").write_bytes(b"torn")
    assert "AQ-Map (ViT-B-16) + HPSv2.1" in menu.metric_names()
    with pytest.raises(pack("qsched_core").CalibrationError, match="HPS_v2.1_compressed.pt"):
        metrics.load_scorer("AQ-Map (ViT-B-16) + HPSv2.1")


def test_another_open_clip_model_watches_the_one_that_is_optimised(pack, monkeypatch, tmp_path):
    """A score that is gamed seldom games a second one: where its weights are there, the verdict asks it too."""
    metrics = pack("nodes.calibrating.scorer")
    folders = {"first": write_folder(tmp_path / "first")}
    monkeypatch.setattr(metrics, "metric_folders", lambda: dict(folders))
    pictures, texts = torch.rand(2, 32, 32, 3), ["a fox", "a cat"]

    def judged() -> set[str]:
        return set(metrics.load_scorer("first").bind(texts)[1](pictures, [0, 1]))

    alone = judged()
    (tmp_path / "broken").mkdir()
    folders["broken"] = tmp_path / "broken"  # nobody asked for it: it stops nothing
    assert judged() == alone
    folders["second"] = write_folder(tmp_path / "second")
    assert judged() == alone | {"tc of second", "iq of second"}


def test_scorers_leave_the_device_when_a_run_ends(calibrate, pack):
    import comfy.model_management

    scorer = pack("nodes.calibrating.scorer").load_scorer("demo")
    calibrate(jaq_metric=scorer)
    loaded = [model.model for model in comfy.model_management.current_loaded_models]
    assert all(patcher not in loaded for patcher in (scorer._scorer, scorer._judge))


def test_loaded_encoders_score_without_a_file(pack):
    """Pictures are their mean colour, texts name one: cosines are known."""
    metrics = pack("nodes.calibrating.scorer")
    colours = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0), "violet": (1.0, 0.0, 1.0)}
    clip = SimpleNamespace(
        tokenize=lambda text: text, encode_from_tokens=lambda text, return_pooled: (None, torch.tensor([colours[text]]))
    )
    vision = SimpleNamespace(encode_image=lambda pictures: {"image_embeds": pictures.mean((1, 2))})
    score = pack("calibration.metrics.embeddings").CosineScore(*metrics.host_encoders(clip, vision))
    pictures = torch.tensor([colours["red"]] * 2).view(2, 1, 1, 3).expand(2, 8, 8, 3)
    scores = score.score(pictures, ["red", "violet"])
    # ln(100·cos): cos is 1 and sqrt(1/2).
    assert scores.tolist() == pytest.approx([4.60517, 4.60517 - 0.34657], abs=1e-4)
