"""CLIPScore and CLIP-IQA on a random open_clip model in a local folder: the arithmetic and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from calibration.core import CalibrationError
from calibration.metrics.clip import QUALITY_PAIR, ClipScorer

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("clip") / "tiny"
    place.mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**CONFIG).state_dict(), place / "open_clip_model.safetensors")
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": MEAN, "std": DEVIATION}}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    return place


def test_scores_are_the_published_formulas(folder):
    scorer = ClipScorer(folder)
    pictures = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    prompts = ["a dog", "two cats on a sofa", "rain"]
    scores = scorer.score(pictures, prompts)

    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    seen = (pictures.movedim(-1, 1) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    with torch.no_grad():
        image = model.encode_image(seen, normalize=True)
        text, pair = (model.encode_text(tokenize(t), normalize=True) for t in (prompts, list(QUALITY_PAIR)))
    cosine = (image * text).sum(-1).clamp(min=1e-4)
    # The picture is already 32 px: resizing changes nothing, so only float32 rounding is left.
    torch.testing.assert_close(scores["tc"], (100 * cosine).log(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores["iq"], (100 * image @ pair.T).softmax(-1)[:, 0], rtol=1e-4, atol=1e-4)


def test_any_size_is_brought_to_the_models(folder):
    scores = ClipScorer(folder).score(torch.rand(2, 48, 80, 3), ["a", "b"])
    assert scores["tc"].shape == scores["iq"].shape == (2,)
    assert torch.isfinite(scores["tc"]).all()
    assert ((scores["iq"] >= 0) & (scores["iq"] <= 1)).all()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CalibrationError, match=r"open_clip_config\.json"):
        ClipScorer(tmp_path)
