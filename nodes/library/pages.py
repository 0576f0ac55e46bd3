"""The list of presets a page at a time: those that fit the graph first, and only those that a search is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..host.folders import PRESETS_FOLDER, file_names
from . import files
from .matching import Graph, Match, match, read_graph

PAGE_SIZE, MAX_PAGE_SIZE = 60, 500
"""Presets in a page that says nothing of its length, and in any: each may carry a picture of some 20 KB."""

_SEARCH_FIELDS = ("name", "title", "author", "description", "model", "quantization")
_MAX_SEARCH_LENGTH = 200
"""Characters: more than anybody types, and each word is looked for in every preset."""


@dataclass(frozen=True)
class Listed:
    """A preset in the list; ``match`` is None for a file that is refused."""

    name: str
    facts: files.Facts
    match: Match | None

    @property
    def rank(self) -> int:
        """What fits, what may fit, what does not, what is no preset."""
        return 3 if self.match is None else {True: 0, None: 1, False: 2}[self.match.fits]


def page(question: dict) -> dict:
    """One page of the list.

    ``question`` is the page's graph (see ``read_graph``) with ``words`` that are searched for, ``fitting`` (leave out
    what does not fit), ``offset`` and ``limit``. The answer has the page's ``presets``, each with its ``match``, how
    many there are of them in ``total`` and how many presets there are at all in ``all``, and what is known of the
    graph's model. ``fits`` is None where that is not known before a run.
    """
    graph = read_graph(question)
    everything = list(_listed(graph))
    matches = [one for one in everything if _is_found(one, question)]
    offset = _count(question.get("offset"), 0, len(matches))
    limit = _count(question.get("limit"), PAGE_SIZE, MAX_PAGE_SIZE)
    return {
        "models": list(dict.fromkeys(model.family for model in graph.models)),
        "formats": list(dict.fromkeys(graph.formats)),
        "all": len(everything),
        "total": len(matches),
        "presets": [
            {**files.entry(one.name), "match": _as_json(one.match)} for one in matches[offset : offset + limit]
        ],
    }


def names_by_fit(question: dict) -> dict:
    """The names of all presets, those that fit the page's graph first: the order for *Load Q-Sched Preset*."""
    return {"names": [one.name for one in _listed(read_graph(question))]}


def _listed(graph: Graph) -> Iterator[Listed]:
    facts = ((name, files.facts(name)) for name in file_names(PRESETS_FOLDER))
    presets = [Listed(name, one, None if "error" in one.entry else match(one, graph)) for name, one in facts]
    yield from sorted(presets, key=lambda one: one.rank)  # sorted() keeps the host's order among equals


def _is_found(one: Listed, question: dict) -> bool:
    if question.get("fitting") is True and one.rank > 1:
        return False
    words = question.get("words")
    words = words[:_MAX_SEARCH_LENGTH].lower().split() if isinstance(words, str) else []
    text = "\n".join(str(one.facts.entry.get(key, "")) for key in _SEARCH_FIELDS).lower()
    return all(word in text for word in words)


def _as_json(match: Match | None) -> dict | None:
    if match is None:
        return None
    differences = [{"what": item.what, "preset": item.preset, "here": item.here} for item in match.differs]
    return {"fits": match.fits, "differs": differences, "unknown": list(match.unknown)}


def _count(value: object, default: int, most: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return min(max(0, value), most) if whole else min(default, most)
