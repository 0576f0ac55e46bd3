"""The demo's words. Compact ids inside the nets; the ids of CLIP's own tokenizer at every door."""

from __future__ import annotations

import torch
from torch import Tensor

from .scenes import BACKGROUNDS, SIZES
from .things import THINGS

CONTEXT_LENGTH = 16
"""The longest caption ("… left of …") is 12 words, begin and end not counted."""

WORDS = (
    "a",
    "an",
    "on",
    "of",
    "left",
    "right",
    "above",
    "below",
    "background",
    *SIZES,
    *THINGS,
    *BACKGROUNDS,
)
"""Each is one token of CLIP's tokenizer; ``demo.training.export`` checks it."""

UNKNOWN = len(WORDS)
BEGIN = UNKNOWN + 1
END = UNKNOWN + 2
"""The highest id: open_clip pools at the argmax."""

VOCABULARY_SIZE = END + 1

CLIP_BEGIN, CLIP_END, CLIP_VOCABULARY_SIZE = 49406, 49407, 49408

_INDEX = {word: index for index, word in enumerate(WORDS)}


def compact_ids(captions: list[str]) -> Tensor:
    """Token ids (B, 16): begin, one id per word, then end up to the full length; longer captions are cut."""
    rows = []
    for caption in captions:
        words = [_INDEX.get(word, UNKNOWN) for word in caption_words(caption)][: CONTEXT_LENGTH - 2]
        rows.append([BEGIN, *words] + [END] * (CONTEXT_LENGTH - 1 - len(words)))
    return torch.tensor(rows)


def caption_words(caption: str) -> list[str]:
    return caption.lower().replace(",", " ").replace(".", " ").split()


def expand_embedding(table: Tensor, clip_ids: Tensor) -> Tensor:
    """The (VOCABULARY_SIZE, width) table as CLIP's (49408, width) one.

    ``clip_ids`` (len(WORDS),) are the words' ids in CLIP's tokenizer. Every other token is "unknown".
    """
    full = table[UNKNOWN].expand(CLIP_VOCABULARY_SIZE, -1).clone()
    full[clip_ids] = table[: len(WORDS)]
    full[CLIP_BEGIN], full[CLIP_END] = table[BEGIN], table[END]
    return full
