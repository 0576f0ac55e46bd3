"""AQ-Map: the surgery, the arithmetic and the reading of prompts."""

from __future__ import annotations

import sys
from dataclasses import asdict
from types import ModuleType, SimpleNamespace

import open_clip
import pytest
import torch
from exactness import same_bits

from calibration.core import CalibrationError
from calibration.metrics.alignment import SCENES, AQMap
from calibration.metrics.open_clip_network import SHORTEST, SQUASH, OpenClip
from calibration.metrics.phrases import Splitter, best_parser
from calibration.metrics.surgery import surgery_tokens

pytestmark = pytest.mark.usefixtures("one_vocabulary")
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
PICTURES = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))
PROMPTS = ["a dog on a sofa", "two cats"]


def network(**vision: object) -> OpenClip:
    torch.manual_seed(0)
    clip = open_clip.CLIP(**{**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], **vision}})
    open_clip.set_model_preprocess_cfg(clip, asdict(open_clip.transform.PreprocessCfg(size=32)))
    return OpenClip(clip, open_clip.get_tokenizer("ViT-B-16"))


def metric(**options: object) -> AQMap:
    return AQMap(network(**options), Splitter())


@pytest.mark.parametrize("layers", [3, 8])
def test_the_class_token_is_the_networks_own(layers):
    net = network(layers=layers)
    inputs = net.prepared(PICTURES)
    with torch.no_grad():
        torch.testing.assert_close(surgery_tokens(net.clip.visual, inputs)[:, 0], net.clip.visual(inputs))


def test_patch_tokens_add_up_attention_of_values_to_values():
    net = network()
    visual, inputs = net.clip.visual, net.prepared(PICTURES)
    with torch.no_grad():
        tokens = visual._embeds(inputs)
        for block in visual.transformer.resblocks[:2]:  # of 8: CLIP Surgery begins 6 blocks before the end
            tokens = block(tokens)
        patches = tokens
        for block in visual.transformer.resblocks[2:]:
            # torch's own attention, with the weights of the values in all three places
            width, attention = 32, block.attn
            value, bias = attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
            alike = torch.nn.MultiheadAttention(width, 2, batch_first=True)
            alike.in_proj_weight.copy_(value.repeat(3, 1))
            alike.in_proj_bias.copy_(bias.repeat(3))
            alike.out_proj.load_state_dict(attention.out_proj.state_dict())
            normal = block.ln_1(tokens)
            patches = patches + alike(normal, normal, normal, need_weights=False)[0]
            tokens = block(tokens)
        expected = visual.ln_post(patches) @ visual.proj
        torch.testing.assert_close(surgery_tokens(visual, inputs)[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-5)


def test_a_noun_like_any_text_scores_one_half():
    scorer = metric()
    scorer.network.clip.text_projection.data.zero_()
    assert same_bits(scorer.score(PICTURES, PROMPTS), torch.tensor([0.5, 0.5]))


def test_the_score_is_the_papers_formula():
    scorer = metric()
    net = scorer.network
    with torch.no_grad():
        tokens = surgery_tokens(net.clip.visual, net.prepared(PICTURES))

        def text(noun: str) -> torch.Tensor:
            texts = [fill(noun) for fill in open_clip.OPENAI_IMAGENET_TEMPLATES] + [s.format(noun) for s in SCENES]
            mean = net.encode_text(texts).mean(0)
            return mean / mean.norm()

        expected = []
        for picture, nouns in zip(tokens, (["dog", "sofa"], ["two cats"]), strict=True):
            image = picture[0] / picture.square().sum(0).sqrt()  # each channel by its length over the tokens
            over = [1 / (1 + torch.exp(-10 * image @ (text(noun) - text("")))) for noun in nouns]
            expected.append(sum(over) / len(over))
    torch.testing.assert_close(scorer.score(PICTURES, PROMPTS), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pictures_embed_as_the_networks_own_features_of_length_one(dtype):
    """Squashed: nothing is cut off, as in the score."""
    scorer = metric()
    net, wide = scorer.network, torch.rand(2, 32, 64, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = net.clip.visual(net.prepared(wide, SQUASH))
        torch.testing.assert_close(scorer.embed(wide.to(dtype)), expected / expected.norm(dim=1, keepdim=True))
        assert not torch.allclose(scorer.embed(wide), net.encode_image(wide, SHORTEST), atol=1e-3)
    assert scorer.embeds


def test_pictures_are_scored_apart_and_texts_encoded_once(monkeypatch):
    scorer = metric()
    encoded = []
    encode = scorer.network.encode_text
    monkeypatch.setattr(scorer.network, "encode_text", lambda texts: encoded.append(len(texts)) or encode(texts))
    together = scorer.score(PICTURES, PROMPTS)
    apart = torch.cat([scorer.score(PICTURES[i : i + 1], PROMPTS[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, apart)
    assert encoded == [85] * 4  # dog, sofa, two cats and the empty text


def test_a_prompt_without_nouns_is_one_phrase_and_is_counted():
    scorer = metric()
    first = scorer.score(PICTURES, ["\u732b\u304c\u3044\u308b", "a dog"])
    assert (0 < first).all() and (first < 1).all() and first[0] != first[1]
    scorer.score(PICTURES, ["\u732b\u304c\u3044\u308b", "under the"])
    assert scorer.unparsed == 2
    assert "split at commas" in scorer.name


def test_only_plain_vision_transformers_can_be_read(refused):
    for vision in ({"attentional_pool": True}, {"pool_type": "avg"}, {"layers": (1, 1, 1, 1), "width": 8}):
        with refused(CalibrationError, "AQ-Map cannot read", "ViT-B-16"):
            AQMap(network(**vision), Splitter())


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a red cat on a wooden table", ["red cat", "wooden table"]),
        ("Portrait of the old man, his dog; 8k, (masterpiece:1.2)", ["Portrait", "old man", "dog", "k", "masterpiece"]),
        ("a café\nand the sea-side", ["café", "sea-side"]),
        ("\u732b\u304c\u3044\u308b", []),
        ("in the of, 123 !", []),
        ("", []),
    ],
)
def test_the_splitter_keeps_what_stands_between(prompt, phrases):
    assert Splitter()(prompt) == phrases


def word(text: str, pos: str) -> SimpleNamespace:
    return SimpleNamespace(text=text, pos_=pos)


def test_spacy_is_used_where_its_model_is_installed(monkeypatch):
    chunks = [
        [word("a", "DET"), word("blue", "ADJ"), word("doctor", "NOUN"), word("suit", "NOUN")],
        [word("it", "PRON")],
    ]
    spacy = ModuleType("spacy")
    spacy.load = lambda name: lambda prompt: SimpleNamespace(noun_chunks=chunks)
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    parser = best_parser()
    assert parser("a blue doctor suit, it") == ["suit"]
    assert parser("\u732b\u304c\u3044\u308b") == []
    assert parser.name == "spaCy en_core_web_sm"


def test_without_spacy_or_its_model_the_splitter_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    assert isinstance(best_parser(), Splitter)
    spacy = ModuleType("spacy")
    spacy.load = lambda name: (_ for _ in ()).throw(OSError("[E050] Can't find model"))
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    assert isinstance(best_parser(), Splitter)
