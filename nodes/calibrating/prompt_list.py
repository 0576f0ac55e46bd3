"""The prompts of a calibration as they cross the socket: plain ones, and ones that the user has encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...calibration.prompts import Prompts, select_as_given
from ...qsched_core import CalibrationError
from ..host.progress import inert

MAX_REPORT_PROMPTS = 6
"""Prompts of each set in the report."""


@dataclass(frozen=True, eq=False)
class PromptList:
    """What crosses the socket. ``verdict`` are indices into ``texts`` (empty: the calibration holds a share out);
    ``conditionings`` are None or one for each text; without ``has_texts`` the texts are mere names, of no use to a
    metric that reads prompts."""

    texts: tuple[str, ...]
    note: str
    digest: str
    verdict: tuple[int, ...] = ()
    conditionings: list | None = None
    has_texts: bool = True

    def __len__(self) -> int:
        return len(self.texts)


def plain(prompts: Prompts) -> PromptList:
    """Prompts that the calibration encodes."""
    return PromptList(prompts.texts, prompts.note, prompts.digest, prompts.verdict)


def conditioned(
    texts: Sequence[str], second: Sequence[str], conditionings: list, file_notes: Sequence[str] = ()
) -> PromptList:
    """Prompts with the user's own conditionings, as many as texts; without texts they are named "conditioning 1" ….
    ``second`` are those of the texts, or of the names, that are kept for the verdict.

    Raises:
        CalibrationError: as ``select_as_given``, or another number of texts, or something that is no conditioning.
    """
    count = len(conditionings)
    if texts and len(texts) != count:
        raise CalibrationError(
            f"texts and conditionings differ in number: {len(texts)} and {count}.",
            "give one text each in the same order, or no texts",
            texts=len(texts),
            conditionings=count,
        )
    for number, conditioning in enumerate(conditionings, 1):
        if not _is_conditioning(conditioning):
            raise CalibrationError(f"conditioning {number} is empty.", "check the node it comes from", number=number)
    selection = select_as_given(
        texts or [f"conditioning {number}" for number in range(1, count + 1)], second, file_notes
    )
    digest = hashlib.sha256(selection.digest.encode())
    _tell(digest, conditionings)
    return PromptList(
        selection.texts, selection.note, digest.hexdigest(), selection.verdict, conditionings, bool(texts)
    )


def report(prompts: PromptList) -> str:
    """The list in a few lines for a person."""
    verdict = [prompts.texts[i] for i in prompts.verdict]
    search = [text for i, text in enumerate(prompts.texts) if i not in set(prompts.verdict)]
    lines = [f"{len(prompts)} prompts; a share of them is held out for the verdict."]
    if verdict:
        lines = [f"{len(search)} prompts to search on, {len(verdict)} for the verdict."]
    if prompts.note:
        lines.append(f"{prompts.note[0].upper()}{prompts.note[1:]}.")
    if prompts.conditionings is not None:
        lines.append("They are sampled with the conditionings plugged in.")
    if not prompts.has_texts:
        lines.append("Their texts are unknown: a metric that reads prompts will refuse them.")
    for name, texts in (("Search" if verdict else "Prompts", search), ("Verdict", verdict)):
        if texts:
            lines += ["", f"{name}:", *(f"  {text[:100]}" for text in texts[:MAX_REPORT_PROMPTS])]
        if len(texts) > MAX_REPORT_PROMPTS:
            lines.append(f"  … and {len(texts) - MAX_REPORT_PROMPTS} more")
    return inert("\n".join(lines))


def _is_conditioning(value: object) -> bool:
    """[[tensor, {…}], …] with at least one entry."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(
        isinstance(entry, (list, tuple)) and len(entry) == 2 and hasattr(entry[0], "shape") and hasattr(entry[1], "get")
        for entry in value
    )


def _tell(digest, value: object) -> None:
    """Feeds what decides a conditioning's pictures to a hash: tensors by their bytes, a ControlNet by its picture, its
    strength and some of its weights, other objects (hooks) by their kind alone."""
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(f"{key}=".encode())
            _tell(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}]".encode())
        for item in value:
            _tell(digest, item)
    elif value is None or isinstance(value, (str, int, float)):
        digest.update(f"{value!r};".encode())
    else:
        digest.update(f"{type(value).__name__};".encode())
        for name in ("cond_hint_original", "strength", "timestep_percent_range", "extra_concat_orig"):
            _tell(digest, getattr(value, name, None))
        for patcher in getattr(value, "get_models_only_self", list)():
            _tell(digest, [weight for weight in patcher.model.parameters() if weight.ndim == 1][:16])
        if (before := getattr(value, "previous_controlnet", None)) is not None:
            _tell(digest, before)
