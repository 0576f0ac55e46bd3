"""What a scorer is given of a prompt."""

from __future__ import annotations

import pytest

from calibration.prompt_syntax import plain_text


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a red fox in snow", "a red fox in snow"),
        ("  two  blanks, as they were ", "  two  blanks, as they were "),
        ("(a red fox:1.2) in snow, embedding:detail, <lora:oil:0.8>", "a red fox in snow"),
        ("a ((very) red) fox", "a very red fox"),
        ("a (fox and (a hare:1.3):0.9) asleep", "a fox and a hare asleep"),
        ("a fox, (blurry:0), (text:-1), at night", "a fox, at night"),
        ("a fox (12:30) at noon", "a fox 12 at noon"),
        ("a ratio of (16:9:1.1)", "a ratio of 16:9"),
        ("a smiley \\(happy\\) face", "a smiley (happy) face"),
        ("a fox (", "a fox ("),
        ("a fox ) in (snow", "a fox ) in (snow"),
        ("embedding:style.safetensors a fox", "a fox"),
        ("a fox,embedding:style,in snow", "a fox,in snow"),
        ("a fox <LoRA: a b :1:0.5> in snow <lyco:x:1>", "a fox in snow"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("embedding:style", "embedding:style"),
        ("a disembedding: of foxes", "a disembedding: of foxes"),
        ("(a fox:1.)", "a fox"),
        ("(a fox:red)", "a fox:red"),
    ],
)
def test_the_words_are_what_the_prompt_says(prompt, words):
    assert plain_text(prompt) == words
    assert plain_text(plain_text(prompt)) == words or "(" in words


def test_a_hundred_thousand_parentheses_are_no_burden():
    """Regression guard: the host's own reader recurses, and copies its text at every level."""
    deep = 100_000
    assert plain_text("(" * deep + "a fox" + ")" * deep) == "a fox"
