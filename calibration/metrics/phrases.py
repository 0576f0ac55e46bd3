"""The things a prompt names: nouns by spaCy where it is installed, else what stands between commas and prepositions."""

from __future__ import annotations

import re
from typing import Protocol

SPACY_MODEL = "en_core_web_sm"

_BREAKS = """
    about above across after against along amid among around as at before behind below beneath beside besides between
    beyond by down during for from in inside into like near of off on onto out outside over past through to toward
    towards under underneath until up upon via with within without
    and but nor or so while where when which who whose that because than then
""".split()
_FILLERS = """
    a an the this these those some any each every all both its his her their our my your it he she they we i you him
    them is are was were be been being has have had do does did can will would very more most much many quite
    just also not no there
""".split()
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_EDGE = re.compile(r"[^\w\s'’-]|\n")


class Parser(Protocol):
    """``name`` says how it reads; a call gives a prompt's nouns or phrases, none if it cannot be read."""

    name: str

    def __call__(self, prompt: str) -> list[str]: ...


class SpacyNouns:
    """The last noun of each noun chunk, as the paper's code reads prompts.

    Raises:
        ImportError: spaCy is not installed.
        OSError: its English model is not.
    """

    name = f"spaCy {SPACY_MODEL}"

    def __init__(self) -> None:
        import spacy

        self._read = spacy.load(SPACY_MODEL)

    def __call__(self, prompt: str) -> list[str]:
        if not _english(prompt):
            return []
        nouns = (
            [word.text for word in chunk if word.pos_ in ("NOUN", "PROPN")] for chunk in self._read(prompt).noun_chunks
        )
        return [parts[-1] for parts in nouns if parts]


class Splitter:
    """No grammar: a phrase is what stands between punctuation, prepositions and conjunctions, without articles,
    pronouns and auxiliary verbs. Adjectives and other verbs stay in it."""

    name = "split at commas and prepositions"

    def __call__(self, prompt: str) -> list[str]:
        if not _english(prompt):
            return []
        phrases: list[list[str]] = [[]]
        for piece in _EDGE.split(prompt):
            for word in _WORD.findall(piece):
                if word.lower() in _BREAKS:
                    phrases.append([])
                elif word.lower() not in _FILLERS:
                    phrases[-1].append(word)
            phrases.append([])
        return [" ".join(words) for words in phrases if words]


def best_parser() -> Parser:
    """spaCy with its English model if both are installed, else the splitter. Nothing is downloaded."""
    try:
        return SpacyNouns()
    except (ImportError, OSError, ValueError):  # ValueError: built for another NumPy
        return Splitter()


def _english(prompt: str) -> bool:
    """Whether most letters are Latin ones without marks; both parsers know English alone."""
    letters = [letter for letter in prompt if letter.isalpha()]
    return 2 * sum(letter.isascii() for letter in letters) > len(letters)
