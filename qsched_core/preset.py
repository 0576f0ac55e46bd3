"""A preset: coefficients, the sigmas they were found on, what they are bound to, and what was measured.

One small ``.safetensors`` file: tensors ``c_x``, ``c_eps`` (n,) and ``sigmas`` (n + 1,) in float32, and string
metadata. Files come from strangers: sizes, types, ranges and versions are checked before anything is used.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .atomic import replacing, write_new
from .coefficients import MAX_STEPS, Coefficients
from .errors import PresetError

FORMAT = "qsched-preset"
VERSION = "1"
MAX_FILE_BYTES = 2 * 1024**2
MAX_HEADER_BYTES = 1024**2
"""The host's model sidebar reads no larger header."""

VERDICTS = ("accepted", "identity recommended", "not validated", "made by hand")
_TENSORS = ("c_x", "c_eps", "sigmas")
_OWN = {"format", "version", "verdict", "binding", "record"}
"""Metadata with a meaning to us; everything else is the card."""


@dataclass(frozen=True)
class Binding:
    """What the coefficients were found on. Empty strings, 0 and NaN-free floats; "" or 0 means "any"."""

    model: str = ""
    fingerprint: str = ""
    prediction: str = ""
    quantization: str = ""
    sampler: str = ""
    scheduler: str = ""
    cfg: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "cfg":
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1000:
                    raise PresetError(f"preset cfg is {short(value)}.", "use a number in [0, 1000]", cfg=value)
            elif not isinstance(value, str) or len(value) > 200:
                raise PresetError(
                    f"preset field {item.name} is {short(value)}.", "use a text of at most 200 characters"
                )


@dataclass(frozen=True)
class Preset:
    """Coefficients and their story. ``record`` holds what calibration measured, as plain JSON values.

    Raises:
        PresetError: sigmas not finite, not descending or not one more than the steps; an unknown verdict.
    """

    coefficients: Coefficients
    sigmas: tuple[float, ...]
    binding: Binding = Binding()
    verdict: str = "made by hand"
    record: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sigmas = tuple(float(sigma) for sigma in self.sigmas)
        object.__setattr__(self, "sigmas", sigmas)
        if len(sigmas) != len(self.coefficients) + 1:
            raise PresetError(
                f"{len(sigmas)} sigmas for {len(self.coefficients)} steps.", "a preset has one sigma more than steps"
            )
        if not all(math.isfinite(s) and 0 <= s <= 1e5 for s in sigmas):
            raise PresetError("preset sigmas are not finite values in [0, 100000].", "use another preset")
        if any(after >= before for before, after in zip(sigmas, sigmas[1:], strict=False)):
            raise PresetError("preset sigmas do not descend.", "use another preset", sigmas=sigmas)
        if self.verdict not in VERDICTS:
            raise PresetError(f"verdict {short(self.verdict)} is unknown.", f"use one of {', '.join(VERDICTS)}")
        if taken := sorted(_OWN & set(self.card)):
            raise PresetError(f"card field {taken[0]} is the preset's own.", "use another name")

    @property
    def steps(self) -> int:
        return len(self.coefficients)


def save_preset(preset: Preset, path: str | os.PathLike[str]) -> None:
    """Write atomically: a temporary file beside the target, read back as a stranger's, then renamed over it.

    Raises:
        PresetError: a record that is not plain JSON, too large a header, or a file that cannot be written or loaded.
    """
    path = Path(path)
    content = _encode(
        {"c_x": preset.coefficients.c_x, "c_eps": preset.coefficients.c_eps, "sigmas": preset.sigmas},
        {
            "format": FORMAT,
            "version": VERSION,
            "verdict": preset.verdict,
            "binding": _json(asdict(preset.binding)),
            "record": _json(preset.record),
            **{key: str(value) for key, value in sorted(preset.card.items())},
        },
    )
    try:
        with replacing(path) as temporary:
            write_new(temporary, content)
            load_preset(temporary)
    except OSError as error:
        raise PresetError(
            f"cannot write {path.name}: {error.strerror or error}.", "choose a writable folder"
        ) from error


def load_preset(path: str | os.PathLike[str]) -> Preset:
    """Read and check a preset file.

    Raises:
        PresetError: not a preset, an unknown version, or any value out of its range; the text says which.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise PresetError(f"{path.name} is not a Q-Sched preset.", "choose a file made by Save Q-Sched Preset")
    if metadata.get("version") != VERSION:
        raise PresetError(
            f"{path.name} has preset version {short(metadata.get('version'))}, not {VERSION}.",
            "update the Q-Sched pack",
        )
    for name in _TENSORS:
        if name not in tensors:
            raise PresetError(f"{path.name} has no tensor {name}.", "use another preset", missing=name)
    extra = sorted(set(tensors) - set(_TENSORS))
    if extra:
        raise PresetError(f"{path.name} holds a tensor {short(extra[0])} no preset has.", "use another preset")
    coefficients = Coefficients(_round(tensors["c_x"]), _round(tensors["c_eps"]))
    binding = _object(metadata, "binding", path)
    known = {item.name for item in fields(Binding)}
    if not set(binding) <= known:
        raise PresetError(
            f"{path.name} is bound by {short(sorted(set(binding) - known)[0])}.", "update the Q-Sched pack"
        )
    return Preset(
        coefficients,
        _round(tensors["sigmas"]),
        Binding(**binding),
        metadata.get("verdict", ""),
        _object(metadata, "record", path),
        {key: value for key, value in metadata.items() if key not in _OWN},
    )


def _encode(lists: Mapping[str, Sequence[float]], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes. safetensors' own writer shuffles the metadata: no preset would have the same hash twice."""
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, values in lists.items():
        piece = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        fix = "leave out the thumbnail or the prompts"
        raise PresetError("the preset's metadata is larger than 1 MiB.", fix, header_bytes=len(text))
    return struct.pack("<Q", len(text)) + text + data


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata after the checks that need no trust: sizes first, then types and shapes."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
        if size > MAX_FILE_BYTES or len(head) < 8 or struct.unpack("<Q", head)[0] > MAX_HEADER_BYTES:
            raise PresetError(f"{path.name} ({size} bytes) is no preset.", "choose a file that is one")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {}
            for name in file.keys():
                piece = file.get_slice(name)
                shape = piece.get_shape()
                if piece.get_dtype() != "F32" or len(shape) != 1 or not 1 <= shape[0] <= MAX_STEPS + 1:
                    raise PresetError(
                        f"{path.name}: {short(name)} is {piece.get_dtype()} {shape}.", "a preset holds float32 lists"
                    )
                tensors[name] = file.get_tensor(name)
    except OSError as error:
        raise PresetError(
            f"cannot read {path.name}: {error.strerror or error}.", "check the file and its folder"
        ) from error
    except SafetensorError as error:
        raise PresetError(f"{path.name} is not a safetensors file.", "download or save it again") from error
    return tensors, metadata


def _object(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, "{}"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{path.name}: {key} is not JSON.", "use another preset") from error
    if not isinstance(value, dict):
        raise PresetError(f"{path.name}: {key} is not a JSON object.", "use another preset")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise PresetError("the preset's record is not plain JSON.", "use finite numbers, texts and lists") from error


def _round(values: torch.Tensor) -> tuple[float, ...]:
    """float32 as the shortest decimal that means the same: 0.9 comes back as 0.9."""
    return tuple(float(f"{value:.7g}") for value in values.tolist())


def short(value: object) -> str:
    """A value from a stranger's file as an error may show it: at most 60 characters."""
    text = repr(value) if not isinstance(value, float) else f"{value:g}"
    return text if len(text) <= 60 else text[:57] + "…"
