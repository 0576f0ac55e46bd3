"""HPSv2.1 and PickScore from files laid out as the published ones, with a tiny network in place of ViT-H/14."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from calibration.core import CalibrationError
from calibration.metrics.preference import HPSv21, PickScore, from_transformers

pytestmark = pytest.mark.usefixtures("one_vocabulary")
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
OTHER = {**TINY, "embed_dim": 8}
PROMPTS = ["a dog", "two cats on a sofa"]
PICTURES = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))


def transformers_model() -> CLIPModel:
    """The same architecture as TINY."""
    torch.manual_seed(0)
    text = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 64, "eos_token_id": 49407}
    vision = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 128, "image_size": 32, "patch_size": 16}
    both = {"num_hidden_layers": 2, "hidden_act": "gelu"}
    model = CLIPModel(CLIPConfig(text_config={**text, **both}, vision_config={**vision, **both}, projection_dim=24))
    for weight in model.parameters():  # biases and norms are made as 0 and 1: a mix-up of them must show
        weight.data += 0.05 * torch.randn_like(weight)
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> CLIPModel:
    return transformers_model()


@pytest.fixture
def hps_file(tmp_path) -> Path:
    torch.manual_seed(0)
    (tmp_path / "HPSv2.1").mkdir()
    state = {name: value.half() for name, value in open_clip.CLIP(**TINY).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "HPSv2.1" / "HPS_v2.1_compressed.pt")
    return tmp_path / "HPSv2.1" / "HPS_v2.1_compressed.pt"


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    mean, deviation = (
        torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (pictures.movedim(-1, 1) - mean) / deviation


def test_renamed_weights_give_the_features_of_transformers(theirs, tmp_path):
    model = open_clip.CLIP(**TINY).eval()
    model.load_state_dict(from_transformers(theirs.state_dict()))
    inputs, tokens = normalised(PICTURES), open_clip.get_tokenizer("ViT-H-14")(PROMPTS)
    with torch.no_grad():
        expected = theirs(input_ids=tokens, pixel_values=inputs)
        torch.testing.assert_close(model.encode_image(inputs, normalize=True), expected.image_embeds)
        torch.testing.assert_close(model.encode_text(tokens, normalize=True), expected.text_embeds)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pick_score_is_the_published_logit(theirs, tmp_path, name):
    # Files of 2023 hold position ids as well, which transformers dropped later.
    state = {**theirs.state_dict(), "text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
    metric = PickScore(tmp_path / name, TINY)
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("ViT-H-14")(PROMPTS)
        expected = theirs(input_ids=tokens, pixel_values=normalised(PICTURES)).logits_per_image.diagonal()
    torch.testing.assert_close(metric.score(PICTURES, PROMPTS), expected, rtol=1e-5, atol=1e-5)
    assert (metric.name, metric.role, metric.license) == ("PickScore", "iq", "unstated")


def test_hps_is_the_cosine_of_the_padded_picture(hps_file):
    metric = HPSv21(hps_file, TINY)
    wide = torch.rand(2, 16, 32, 3, generator=torch.Generator().manual_seed(2))
    model = open_clip.CLIP(**TINY).eval()
    model.load_state_dict({k: v.float() for k, v in torch.load(hps_file, weights_only=True)["state_dict"].items()})
    padded = F.pad(wide, (0, 0, 0, 0, 8, 8))
    with torch.no_grad():
        image = model.encode_image(normalised(padded), normalize=True)
        text = model.encode_text(open_clip.get_tokenizer("ViT-H-14")(PROMPTS), normalize=True)
    torch.testing.assert_close(metric.score(wide, PROMPTS), (image * text).sum(-1), rtol=1e-5, atol=1e-6)
    assert (metric.name, metric.role, metric.license) == ("HPSv2.1", "iq", "Apache-2.0")


def test_a_picture_that_says_what_the_text_says_scores_one(hps_file):
    metric = HPSv21(hps_file, TINY)
    metric.network.encode_image = lambda pictures, fit: metric.network.encode_text(PROMPTS)
    torch.testing.assert_close(metric.score(PICTURES, PROMPTS), torch.ones(2))


def test_a_second_metric_of_the_file_takes_no_memory(hps_file):
    one, two = HPSv21(hps_file, TINY), HPSv21(hps_file, TINY)
    assert one.network is two.network
    # half precision on disk, float32 here, and the causal mask
    assert one.bytes == 4 * sum(p.numel() for p in open_clip.CLIP(**TINY).parameters()) + 4 * 77 * 77


def test_a_missing_file_is_named_with_its_page(tmp_path, refused):
    (tmp_path / "HPSv2.1").mkdir()
    with refused(CalibrationError, "HPSv2.1 lacks HPS_v2.1_compressed.pt", "xswu/HPSv2", file="HPS_v2.1_compressed.pt"):
        HPSv21(tmp_path / "HPSv2.1" / "HPS_v2.1_compressed.pt")
    with refused(CalibrationError, "lacks model.safetensors", "yuvalkirstain/PickScore_v1", f"into {tmp_path}"):
        PickScore(tmp_path / "PickScore_v1" / "model.safetensors")


def test_weights_of_another_model_are_refused(hps_file, theirs, refused):
    with refused(CalibrationError, "HPS_v2.1_compressed.pt holds the weights of another model", "xswu/HPSv2"):
        HPSv21(hps_file, OTHER)
    save_file(theirs.state_dict(), hps_file.with_name("model.safetensors"))
    with refused(CalibrationError, "model.safetensors holds the weights of another model"):
        HPSv21(hps_file.with_name("model.safetensors"), TINY)
    with refused(CalibrationError, "HPS_v2.1_compressed.pt holds the weights of another model", "PickScore_v1"):
        PickScore(hps_file, OTHER)


class Runs:
    """Its pickle makes a file when it is read."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("content", ["half", "text", "pickle", "list"])
def test_a_file_that_is_no_checkpoint_is_refused(hps_file, refused, content):
    whole = hps_file.read_bytes()
    trace = hps_file.with_name("executed")
    if content == "pickle":
        torch.save({"state_dict": {"weight": Runs(trace)}}, hps_file)
    elif content == "list":
        torch.save([1, 2], hps_file)
    else:
        hps_file.write_bytes(whole[: len(whole) // 2] if content == "half" else b"<html>not found</html>")
    with refused(CalibrationError, "is no readable checkpoint", "xswu/HPSv2"):
        HPSv21(hps_file, TINY)
    assert not trace.exists()
