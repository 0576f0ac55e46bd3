"""What a prompt says, without the host's syntax: a scorer's text encoder reads words, no weights, files or tags."""

from __future__ import annotations

import re

# Patterns are compiled when they are first used, not at ComfyUI's start.
_EMBEDDING = r"(?:(?<=\s)|(?<=^)|(?<=,))embedding:[^\s,)]+"
_TAG = r"(?i)<\s*(?:lora|lyco|locon|hypernet)\s*:[^<>]*>"
_WEIGHT = r"(?s)(.+):\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_ESCAPED = {"\\(": "\0", "\\)": "\1"}


def plain_text(prompt: str) -> str:
    """The words of a prompt: parentheses and weights of the host, "embedding:…" and "<lora:…>" are taken out, as is
    what has a weight of 0 or less. A prompt that is nothing else stays as it is.

    "(a red fox:1.2) in snow, embedding:detail, <lora:oil:0.8>" is "a red fox in snow".
    """
    text = re.sub(_TAG, "", prompt)
    for sequence, mark in _ESCAPED.items():
        text = text.replace(sequence, mark)
    text = re.sub(_EMBEDDING, "", _without_weights(text))
    for sequence, mark in _ESCAPED.items():
        text = text.replace(mark, sequence[1])
    if text == prompt:
        return prompt
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s*,(?:\s*,)+", ",", text)
    return re.sub(r"\s+,", ",", text).strip(" ,") or prompt


def _without_weights(text: str) -> str:
    """As the host reads them: the innermost weight of a word counts, an unmatched parenthesis is a character."""
    words: list[str] = []
    starts: list[int] = []  # where, in ``words``, each open parenthesis stands
    for character in text:
        if character == "(":
            starts.append(len(words))
        elif character == ")" and starts:
            start = starts.pop()
            inside = "".join(words[start + 1 :])
            match = re.fullmatch(_WEIGHT, inside)
            if match:
                inside = match[1] if float(match[2]) > 0 else ""
            words[start:] = [inside]
            continue
        words.append(character)
    return "".join(words)
