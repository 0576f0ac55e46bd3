"""Parts of the notes that are counted: ``python -m scripts.workflows.notes`` after benchmarks.model_bytes or a change
of the table of families. They go into ``web/notes/parts.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..evidence_page import CARDS, LEFT_FOR_THE_REST, RESULTS, gigabytes
from .families import FAMILIES, Family
from .graph import NOTES, File
from .restoration import MODEL, VAE

PARTS = NOTES / "parts.json"
ALL, ONE_BY_ONE, IN_PART = "\N{BLACK CIRCLE}", "\N{CIRCLE WITH LEFT HALF BLACK}", "\N{WHITE CIRCLE}"
"""What a card holds beside what the rest takes: everything, the largest part, or not even that."""


@dataclass(frozen=True)
class Sizes:
    """GB of a family as one of its forms: `models` are one or two."""

    models: tuple[float, ...]
    encoder: float
    vae: float

    @property
    def total(self) -> float:
        return sum(self.models) + self.encoder + self.vae

    def on(self, card: int) -> str:
        room = card - LEFT_FOR_THE_REST
        if self.total <= room:
            return ALL
        return ONE_BY_ONE if max(*self.models, self.encoder) <= room else IN_PART


def sizes_of(family: Family, counts: dict[str, Any]) -> tuple[Sizes, Sizes] | None:
    """(as its files have it, as W4A8 with the VAE as it is), or None where nobody has counted it."""
    if family.counted is None:
        return None
    model, encoder, vae = family.counted
    parameters, texts = counts[model]["parameters"], counts["text encoders"][encoder]
    count = 2 if family.low else 1
    plain = gigabytes(parameters, family.source_bits / 16), texts["GB at FP16"] * family.encoder_bits / 16
    packed = gigabytes(parameters, counts[model]["w4a8 compact"]), texts["GB in w4a8"]
    half = counts["VAEs"][vae]["GB at FP16"]
    return Sizes((plain[0],) * count, plain[1], half), Sizes((packed[0],) * count, packed[1], half)


def form_of(family: Family) -> str:
    """What its files hold, in the field's own word."""
    if family.source_bits == 16:
        return "16 bit"
    return "int8" if "int8" in family.model.name else "fp8"


def restoration_sizes(counts: dict[str, Any]) -> tuple[Sizes, Sizes]:
    """Of the upscaler, which reads no text: (as its files have it, as W4A8 with the VAE in 8 bits)."""
    model, vae = counts["SeedVR2 3B"], counts["VAEs"]["SeedVR2"]
    forms = ((0.5, vae["GB at FP16"]), (model["w4a8 compact"], vae["GB in w8a16"]))  # of FP16: its file is int8
    plain, packed = (Sizes((gigabytes(model["parameters"], share),), 0.0, size) for share, size in forms)
    return plain, packed


def parts() -> dict[str, list[str]]:
    """Tables of files, sizes and cards, by the names that the notes have for them."""
    counts = json.loads((RESULTS / "model_bytes.json").read_text("utf-8"))
    tables = {"files_19": _files((MODEL, VAE)), "cards_19": _cards("int8", *restoration_sizes(counts))}
    for family in FAMILIES:
        tables[f"files_{family.number}"] = _files(family.files)
        if (sizes := sizes_of(family, counts)) is not None:
            tables[f"cards_{family.number}"] = _cards(form_of(family), *sizes)
    return dict(sorted(tables.items()))


def _files(files: tuple[File, ...]) -> list[str]:
    return ["| `models/` | |", "|---|---|", *(f"| {f.folder} | [{f.name}]({f.url}) |" for f in files)]


def _cards(name: str, plain: Sizes, packed: Sizes) -> list[str]:
    """Model + text encoder + VAE, and what each card does with them."""
    heads = " | ".join(f"{card} GB" for card in CARDS)
    return [
        f"| GB | | {heads} |",
        "|---|---|" + "---|" * len(CARDS),
        *(
            f"| {form} | {_sum(sizes)} | " + " | ".join(sizes.on(card) for card in CARDS) + " |"
            for form, sizes in ((name, plain), ("W4A8", packed))
        ),
    ]


def _sum(sizes: Sizes) -> str:
    several = [size for size in (*sizes.models, sizes.encoder, sizes.vae) if size]
    return f"{' + '.join(f'{size:.1f}' for size in several)} = {sizes.total:.1f}"


def main() -> None:
    notes = {name: lines for name, lines in json.loads(PARTS.read_text("utf-8")).items() if "_" not in name}
    PARTS.write_text(json.dumps({**notes, **parts()}, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
