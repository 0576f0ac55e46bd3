"""Words to ids inside the demo's nets, and their way to the ids of CLIP's tokenizer."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits

from demo.scenes import caption_of, sample_scenes
from demo.vocabulary import (
    BEGIN,
    CLIP_BEGIN,
    CLIP_END,
    CLIP_VOCABULARY_SIZE,
    CONTEXT_LENGTH,
    END,
    UNKNOWN,
    VOCABULARY_SIZE,
    WORDS,
    compact_ids,
    expand_embedding,
)


def test_ids_are_distinct_and_end_is_the_highest():
    """open_clip pools at the argmax of the ids."""
    assert len(set(WORDS)) == len(WORDS)
    assert [UNKNOWN, BEGIN, END, VOCABULARY_SIZE] == [len(WORDS), len(WORDS) + 1, len(WORDS) + 2, len(WORDS) + 3]


def test_clips_own_ids():
    assert (CLIP_BEGIN, CLIP_END, CLIP_VOCABULARY_SIZE) == (49406, 49407, 49408)


def test_known_ids():
    a, large, apple = (WORDS.index(word) for word in ("a", "large", "apple"))
    assert compact_ids(["A large, apple."]).tolist() == [[BEGIN, a, large, apple, *[END] * 12]]
    assert compact_ids(["", "a zebra"]).tolist() == [
        [BEGIN, *[END] * 15],
        [BEGIN, a, UNKNOWN, *[END] * 13],
    ]


def test_every_caption_fits_and_is_known():
    rows = sample_scenes(500, torch.Generator().manual_seed(0))
    captions = [caption_of(row) for row in rows]
    ids = compact_ids(captions)
    assert ids.shape == (500, CONTEXT_LENGTH)
    assert not (ids == UNKNOWN).any()
    assert (ids[:, 0] == BEGIN).all()
    words = [len(caption.split()) for caption in captions]
    assert (ids == END).sum(1).tolist() == [CONTEXT_LENGTH - 1 - count for count in words]
    assert max(words) == 12 <= CONTEXT_LENGTH - 2


def test_different_captions_have_different_ids():
    captions = list({caption_of(row) for row in sample_scenes(500, torch.Generator().manual_seed(1))})
    assert len({tuple(row) for row in compact_ids(captions).tolist()}) == len(captions)


def test_a_longer_prompt_is_cut_and_still_ends():
    ids = compact_ids(["apple " * 40])[0]
    assert ids.tolist() == [BEGIN, *[WORDS.index("apple")] * 14, END]


def test_the_expanded_table_has_each_row_at_its_clip_id():
    table = torch.randn(VOCABULARY_SIZE, 4, generator=torch.Generator().manual_seed(0))
    clip_ids = torch.arange(len(WORDS)) * 100 + 7
    full = expand_embedding(table, clip_ids)
    assert full.shape == (CLIP_VOCABULARY_SIZE, 4)
    assert same_bits(full[clip_ids], table[: len(WORDS)])
    assert same_bits(full[CLIP_BEGIN], table[BEGIN])
    assert same_bits(full[CLIP_END], table[END])
    others = torch.ones(CLIP_VOCABULARY_SIZE, dtype=torch.bool)
    others[clip_ids] = others[CLIP_BEGIN] = others[CLIP_END] = False
    assert (full[others] == table[UNKNOWN]).all()


def test_the_table_itself_is_left_alone():
    table = torch.randn(VOCABULARY_SIZE, 4, generator=torch.Generator().manual_seed(0))
    before = table.clone()
    expand_embedding(table, torch.arange(len(WORDS)))
    assert same_bits(table, before)


def test_clips_tokenizer_knows_every_word_whole():
    open_clip = pytest.importorskip("open_clip")
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    assert [word for word in WORDS if len(tokenizer.encode(word)) != 1] == []
