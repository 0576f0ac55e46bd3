"""Prompts for who has none: words at random from the text encoder's own vocabulary.

An empty prompt shows the layers too little: rounding fitted to it can be worse than rounding to nearest. Words that
make no sentence are nearly as good as captions (``benchmarks.no_data``).
"""

from __future__ import annotations

import numpy as np
import torch

from ...qsched_core import QuantizationError
from .conditioning import Conditioning, encode

PROMPTS, WORDS_EACH = 8, 8
AT_RANDOM = "No prompts: words at random from the text encoder's vocabulary were sampled."

ENOUGH_WORDS = 32
"""Fewer are no vocabulary: the tokenizer writes its words in another way than those that are known here."""

LETTERS = 3
"""Shorter tokens are parts of words, or say nothing."""

MARKS = (("</w>", str.removesuffix), ("\u2581", str.removeprefix), ("\u0120", str.removeprefix))
"""How tokenizers write that a word ends or begins there: CLIP's, SentencePiece (T5, Gemma), byte-level BPE (Qwen)."""

DISTINCT_COLUMNS = 8
"""Columns of the embedding table that tell two tokens apart."""


def prompts_or_random(positive: Conditioning | None, clip, seed: int) -> tuple[Conditioning, bool]:
    """(the user's prompts, or some of words at random; whether they are those)

    Raises:
        QuantizationError: neither prompts nor a text encoder, or one whose vocabulary cannot be read.
    """
    if positive is not None:
        return positive, False
    if clip is None:
        raise QuantizationError(
            "There is nothing to sample with.", "plug in your prompts; or clip alone, for words at random"
        )
    return [entry for text in random_texts(clip, PROMPTS, seed) for entry in encode(clip, text)], True


def random_texts(clip, count: int, seed: int) -> list[str]:
    """``count`` texts of WORDS_EACH words that the text encoder knows, the same for the same ``seed``.

    Raises:
        QuantizationError: a text encoder whose vocabulary cannot be read.
    """
    words = known_words(clip)
    if len(words) < ENOUGH_WORDS:
        raise QuantizationError("The vocabulary of this text encoder cannot be read.", "plug in prompts of your own")
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(words, WORDS_EACH, replace=False)) for _ in range(count)]


def known_words(clip) -> list[str]:
    """Whole lower-case words of the first tokenizer that has some, in alphabetical order."""
    for name, tokenizer in vars(clip.tokenizer).items():
        tokens = getattr(tokenizer, "inv_vocab", None)
        if isinstance(tokens, dict):
            words = {word: number for number, token in tokens.items() if (word := _word(token))}
            if words:
                return sorted(_distinct(words, getattr(clip.cond_stage_model, name, None)))
    return []


def _word(token: object) -> str:
    """The whole word that a token is, "" where it is none."""
    if not isinstance(token, str):
        return ""
    for mark, removed in MARKS:
        word = removed(token, mark)
        if word != token and len(word) >= LETTERS and word.isascii() and word.isalpha() and word.islower():
            return word
    return ""


def _distinct(words: dict[str, int], encoder) -> list[str]:
    """Those with an embedding of their own: unused tokens of a table share one. All, where no table can be read."""
    try:
        table = encoder.transformer.get_input_embeddings().weight
    except AttributeError:
        return list(words)
    if not isinstance(table, torch.Tensor) or table.is_meta or table.ndim != 2 or len(table) <= max(words.values()):
        return list(words)
    rows = table[list(words.values()), :DISTINCT_COLUMNS].float().cpu()
    _, places, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    return [word for word, count in zip(words, counts[places].tolist(), strict=True) if count == 1]
