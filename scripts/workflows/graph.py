"""What an example workflow is made of: nodes, files they load, groups, notes.

The page's languages are five: group titles are numbers and names of the field, nodes keep their own titles, which the
host translates, and the notes are in ``web/notes``, where web/templates/translate_notes.js finds them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..layout import ROOT

NOTES = ROOT / "web" / "notes"

LANGUAGES = ("en", "zh", "ja", "ko", "fr")

LIVE, MUTED, BYPASSED = 0, 2, 4
"""The front end's own numbers of a node's mode."""

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class File:
    """A model file that the front end offers to download: `folder` is a folder of ``models``."""

    name: str
    folder: str
    page: str
    """The repository on huggingface.co, and the path in it."""
    remote: str = ""
    """What it is called there, if not so."""

    @property
    def url(self) -> str:
        repository, path = self.page.split(":")
        return f"{HUB}/{repository}/resolve/main/{path}{self.remote or self.name}"


@dataclass(frozen=True)
class Node:
    """A node by its id; an input that is a list [id, slot] is a link, all others are widgets."""

    id: int
    kind: str
    title: str
    """For the API's form and for readers of this file."""
    inputs: dict[str, Any] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    mode: int = LIVE
    size: tuple[int, int] = (0, 0)
    """At least, in pixels."""
    label: str = ""
    """Its title on the page, a name that needs no translation; without one the host's own for its kind."""


@dataclass(frozen=True)
class Group:
    """A titled frame around columns of nodes."""

    title: str
    columns: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Template:
    """A workflow. `bands` stand side by side, the groups of a band below each other."""

    name: str
    note_size: tuple[int, int]
    bands: tuple[tuple[Group, ...], ...]
    note_band: int | None = None
    """Which band the note stands below; left of all without one. Below it saves width."""

    @property
    def number(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def note(self) -> str:
        return note_text(self.number)

    @property
    def nodes(self) -> list[Node]:
        return [n for band in self.bands for group in band for column in group.columns for n in column]


SHARED = "shared_"
"""What names of texts begin with that several notes of a language have in common."""


def note_text(key: str, language: str = "en") -> str:
    """A note of ``web/notes``; "" where there is none. What stands in braces is one of the parts that all languages
    have in common, or a shared text of this language."""
    texts, parts = (json.loads((NOTES / f"{name}.json").read_text("utf-8")) for name in (language, "parts"))
    lines = "\n".join(texts.get(key, []))
    words = {**texts, **parts}
    return re.sub(r"\{(\w+)\}", lambda match: "\n".join(words[match[1]]), lines)
