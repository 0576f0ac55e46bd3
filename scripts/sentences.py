"""The page's catalogues of sentences, one per language: ``python -m scripts.sentences`` prints what they lack.

A catalogue has "sentences", whole ones, and "phrases", which are put into the holes of sentences. Their keys are what
the sources write, {0}, {1}, … in place of values, in this order.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache

from .layout import ROOT
from .source_texts import PLACE, Said, Sources, page_files, words_of

CATALOGUES = ROOT / "web" / "sentences"
LANGUAGES = ("zh", "ja", "ko", "fr")
_COMMAND = re.compile(r'(?:"? ?-m )?pip install[\w -]*|--[\w -]+')
"""Typed as it stands, in every language."""

STAYS_ENGLISH = {
    "a metric reads it": {
        "Good photo.", "Bad photo.", "there is a", "there is the", "this is a", "this is the", "this is one",
        "in the scene.", "left of", "right of", "background", "(?: (left of|right of|above|below)",
        r")? on a (\w+) background$",
    },
    "a name in records and workflows, or what a node's menu offers": {
        "CLIPScore (loaded encoders)", "spaCy", "split at commas and prepositions", "weights MB", "both ends",
        "first step", "nothing found", "as plugged in", "use as is", "cancelled calibration", "TO DO", "kB", "ROCm",
        "CUDA", "nearness to the reference",
    },
    "rows of pictures, which web/shared/texts.js names": {
        "full precision", "quantised + Q-Sched", "+ Q-Sched", "quantised, fitted", "other model:",
    },
    "a kernel's own words": {
        "comfy-kitchen's kernel on", "torch's int8 product on", "float16, divided by input_gain",
        "The host's, and eager after a failure.", "binaries of comfy-kitchen 0.2.26, 0.2.31 and 0.2.40",
        "comfy_kitchen.backends of 0.2.31", "the Triton kernel that", "unpacks weights", "rounds tokens",
    },
    "the host shows it while a node runs, and takes it away": {
        "recording, evaluation", "network with", "waiting for other workers", "pictures of the reference",
        ": best JAQ so far", "- about", "multiplying and comparing",
    },
    "written into a file, for other programs": {"Load Q-Sched Preset, then Q-Sched Sampler or Apply Q-Sched"},
    "the short verdict, for those who call it in Python": {
        "held-out prompts", "identity recommended: no candidate beat the stock sampler", "identity recommended: JAQ",
        ", but drifts in", "identity recommended: the candidate breaks",
    },
}  # fmt: skip
"""Pieces of text that stay as they are, by why."""

_PROMPTS = re.compile("about above across |a an the this |a red fox ")
"""Words that prompts are split at, and prompts."""

_ENDS = " ,;:.()'\""


@cache
def catalogue(language: str) -> dict[str, dict[str, str]]:
    return json.loads((CATALOGUES / f"{language}.json").read_text("utf-8"))


@cache
def sources() -> Sources:
    return Sources(page_files())


@cache
def errors() -> tuple[Said, ...]:
    return tuple(sources().errors())


@cache
def lines() -> tuple[Said, ...]:
    return tuple(sources().lines())


def untranslated_errors(language: str) -> list[Said]:
    """What an error can say and the catalogue has not. Commands are typed as they are, in every language."""
    sentences = catalogue(language)["sentences"]
    by_text = {source_text.text: source_text for source_text in errors() if source_text.text not in sentences}
    return [source_text for text, source_text in sorted(by_text.items()) if not _COMMAND.fullmatch(text)]


def untranslated_lines(language: str) -> list[Said]:
    """Pieces of reports that stand in no key of the catalogue, and have no reason to stay as they are."""
    keys = "\n".join(key for section in catalogue(language).values() for key in section)
    reasoned = set().union(*STAYS_ENGLISH.values())
    return [
        source_text
        for source_text in lines()
        if source_text.text.strip(_ENDS) not in keys
        and source_text.text not in reasoned
        and not (_COMMAND.search(source_text.text) or _PROMPTS.match(source_text.text))
    ]


def unused(language: str) -> list[str]:
    """Keys that no file of the pack has all the words of."""
    keys = [key for section in catalogue(language).values() for key in section]
    files = [module.words for module in sources().modules]
    return [key for key in keys if not any(words_of(PLACE.sub(" ", key)) <= words for words in files)]


if __name__ == "__main__":
    for name in LANGUAGES:
        for source_text in [*untranslated_errors(name), *untranslated_lines(name)]:
            print(f"{name}: {source_text.place}: {source_text.text}")
        for key in unused(name):
            print(f"{name}: unused: {key}")
    sys.exit(any([*untranslated_errors(name), *untranslated_lines(name), *unused(name)] for name in LANGUAGES))
