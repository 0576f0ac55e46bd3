"""Which prompts the search sees, and which the verdict."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from .core import CalibrationError
from .prompt_files import read_lines
from .prompt_lines import one_line

MIN_PROMPTS = 4
"""Two to search on and two for the verdict, see ``split``."""
MIN_VERDICT_PROMPTS = 2
"""Of one prompt no interval can be told."""
MAX_PROMPTS = 256
"""More prompts cost time and no longer change the verdict; a longer list is sampled, and the report says so."""

MAX_PROMPT_LENGTH = 2000
"""Characters: a longer one is a whole list on one line."""


@dataclass(frozen=True)
class Prompts:
    """What is calibrated on. ``note`` tells what was done to the list that was given; ``verdict`` are the indices of
    the second set, which the search must not see (empty: there is none, and a share of all is held out)."""

    texts: tuple[str, ...]
    note: str
    verdict: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """sha256 of the list, and of the second set if there is one: a preset names its prompts without telling
        them."""
        text = "\n".join(self.texts)
        if self.verdict:
            # No text is empty or holds a line end: an empty line cannot be part of the list.
            text += "\n\n" + " ".join(map(str, self.verdict))
        return hashlib.sha256(text.encode()).hexdigest()


def read_prompts(text: str, seed: int = 0) -> Prompts:
    """Distinct prompts of a text, in order; at most 256, drawn with ``seed`` from a longer list.

    Raises:
        CalibrationError: fewer than 4 distinct prompts, or one of more than 2000 characters.
    """
    lines = read_lines(text)
    return select(lines.texts, (), seed, [lines.note])


def select(first: Sequence[str], second: Sequence[str] = (), seed: int = 0, file_notes: Sequence[str] = ()) -> Prompts:
    """Distinct prompts: those of ``first`` in order, then those of ``second``, on which the verdict is made. A prompt
    in both is kept for the verdict alone.

    At most 256 are kept. From longer lists ``seed`` draws: each set is sure of 128 places, and has those that the other
    leaves free. ``file_notes`` say what was skipped before, and come first in the note.

    Raises:
        CalibrationError: fewer than 4 distinct prompts to search on, fewer than 2 in a second set, or a prompt of more
            than 2000 characters.
    """
    first, second = ([text for text in map(one_line, texts) if text] for texts in (first, second))
    search, verdict = list(dict.fromkeys(first)), list(dict.fromkeys(second))
    notes = [note for note in file_notes if note]
    if repeats := len(first) - len(search) + len(second) - len(verdict):
        notes.append(f"{repeats} repeated prompt{'s' * (repeats != 1)} left out")
    if common := set(search) & set(verdict):
        search = [text for text in search if text not in common]
        notes.append(f"{len(common)} prompt{'s' * (len(common) != 1)} of both sets kept for the verdict alone")
    _check(search, verdict)
    places = min(len(verdict), max(MAX_PROMPTS // 2, MAX_PROMPTS - len(search)))
    draw = random.Random(seed)
    sets = []
    for texts, count, name in (
        (search, MAX_PROMPTS - places, "prompts to search on" if verdict else "prompts"),
        (verdict, places, "prompts for the verdict"),
    ):
        if len(texts) > count:
            notes.append(f"{count} of {len(texts)} {name} drawn with seed {seed}")
            texts = [texts[i] for i in sorted(draw.sample(range(len(texts)), count))]
        sets.append(texts)
    search, verdict = sets
    every = (*search, *verdict)
    return Prompts(every, "; ".join(notes), tuple(range(len(search), len(every))))


def select_as_given(texts: Sequence[str], second: Sequence[str] = (), file_notes: Sequence[str] = ()) -> Prompts:
    """All of ``texts``, in order, repeated ones too: for prompts that come with something of their own, such as a
    conditioning. ``second`` names those of them that are kept for the verdict.

    Raises:
        CalibrationError: fewer than 4 texts to search on or more than 256 in all, fewer than 2 in a second set, an
            empty text, one of more than 2000 characters, or a text of the second set that is not among them.
    """
    texts, verdict_texts = [one_line(text) for text in texts], {one_line(text) for text in second} - {""}
    if "" in texts:
        raise CalibrationError(f"text {texts.index('') + 1} is empty.", "give every conditioning its text, or none")
    if len(texts) > MAX_PROMPTS:
        raise CalibrationError(f"{len(texts)} conditionings, at most {MAX_PROMPTS} are used.", "plug in fewer")
    if unknown := sorted(verdict_texts - set(texts)):
        raise CalibrationError(
            f"the verdict's {unknown[0][:40]!r} is not among the prompts.",
            "with conditionings, the second set names some of their texts",
            unknown=len(unknown),
        )
    verdict = tuple(i for i, text in enumerate(texts) if text in verdict_texts)
    _check([text for text in texts if text not in verdict_texts], [texts[i] for i in verdict])
    return Prompts(tuple(texts), "; ".join(filter(None, file_notes)), verdict)


def _check(search: Sequence[str], verdict: Sequence[str]) -> None:
    for text in (*search, *verdict):
        if len(text) > MAX_PROMPT_LENGTH:
            raise CalibrationError(
                f"a prompt has {len(text)} characters.", "write one prompt per line", start=text[:80]
            )
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise CalibrationError("a prompt holds half a character.", "write the character itself, not its code")
    if (count := len(search)) < MIN_PROMPTS:
        where = " to search on" if verdict else ""
        raise CalibrationError(
            f"{count} prompt{'s' * (count != 1)}{where}, at least {MIN_PROMPTS} are needed.",
            "write one prompt per line, 12 or more is good",
        )
    if 0 < (count := len(verdict)) < MIN_VERDICT_PROMPTS:
        raise CalibrationError(
            f"{count} prompt{'s' * (count != 1)} for the verdict, at least {MIN_VERDICT_PROMPTS} are needed.",
            "write more, or none: half of the others is held out then",
        )
