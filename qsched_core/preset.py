"""A preset: coefficients, the sigmas they were found on, what they are bound to, and what was measured.

One small ``.safetensors`` file: tensors ``c_x``, ``c_eps`` (n,) and ``sigmas`` (n + 1,) in float32, where it has a plan
of the steps' precision also ``activation_bits`` and, of several models, ``models`` (n,), and string metadata. Files
come from strangers: sizes, types, ranges and versions are checked before anything is used.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from .atomic import replacing, write_new
from .coefficients import MAX_STEPS, Coefficients
from .errors import PresetError, QuantizationError, SamplingError
from .precision import Precision

FORMAT = "qsched-preset"
VERSION = "1"
MAX_HEADER_BYTES = 1024**2
"""The host's model sidebar reads no larger header."""

MAX_FILE_BYTES = 2 * MAX_HEADER_BYTES
"""The largest header and as much again: all numbers of ``MAX_STEPS`` steps take less than a tenth of that."""

VERDICTS = ("accepted", "accepted as re-tuning", "identity recommended", "not validated", "made by hand")
MAX_RECORD_DEPTH = 32
"""Lists and objects inside each other; a study's record has four."""
_MAX_DIGITS = 1000
"""Of a whole number: reading one of a million digits takes minutes in older Pythons."""
_TENSORS = ("c_x", "c_eps", "sigmas")
_PLAN_TENSORS = ("activation_bits", "models")
"""A preset may be without them."""
_OWN_FIELDS = {"format", "version", "verdict", "binding", "record"}
"""Metadata with a meaning to us; everything else is the card."""

_PICTURE_ENDINGS = ("thumbnail", "image", "icon")
"""The host's model sidebar takes the first field whose name ends so for the address of a picture, and loads it."""
_PICTURE = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")


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
    """Coefficients and their story. ``record`` holds what calibration measured, as plain JSON values. ``precision`` is
    the plan of its steps' precision, on the same sigmas; None: as the model has it.

    Raises:
        PresetError: sigmas not finite, not descending or not one more than the steps; a plan on other sigmas; an
            unknown verdict; a card with a field of the preset's own, or with a picture that is no data URI: pages would
            load it from elsewhere.
    """

    coefficients: Coefficients
    sigmas: tuple[float, ...]
    binding: Binding = Binding()
    verdict: str = "made by hand"
    record: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, str] = field(default_factory=dict)
    precision: Precision | None = None

    def __post_init__(self) -> None:
        sigmas = tuple(float(sigma) for sigma in self.sigmas)
        object.__setattr__(self, "sigmas", sigmas)
        if len(sigmas) != len(self.coefficients) + 1:
            raise PresetError(
                f"the preset's sigmas do not fit its steps: {len(sigmas)} and {len(self.coefficients)}.",
                "a preset has one sigma more than steps",
            )
        if not all(math.isfinite(s) and 0 <= s <= 1e5 for s in sigmas):
            raise PresetError("preset sigmas are not finite values in [0, 100000].", "use another preset")
        if any(after >= before for before, after in zip(sigmas, sigmas[1:], strict=False)):
            raise PresetError("preset sigmas do not descend.", "use another preset", sigmas=sigmas)
        if self.precision is not None and self.precision.sigmas != sigmas:
            raise PresetError("the preset's plan of the steps has other sigmas.", "make the plan for its schedule")
        if self.verdict not in VERDICTS:
            raise PresetError(f"verdict {short(self.verdict)} is unknown.", f"use one of {', '.join(VERDICTS)}")
        if own_fields := sorted(_OWN_FIELDS & set(self.card)):
            raise PresetError(f"card field {own_fields[0]} is the preset's own.", "use another name")
        if foreign := [key for key in self.card if is_foreign_picture(key, self.card[key])]:
            raise PresetError(
                f"card field {short(foreign[0])} is no picture in a data URI.", "use a JPEG, PNG or WEBP in base64"
            )

    @property
    def steps(self) -> int:
        return len(self.coefficients)


def is_foreign_picture(key: str, value: object) -> bool:
    """Whether a card's field is what the host's page would take for a picture, and is none that the file itself holds:
    an address would tell its server who looks at the preset, and when."""
    if key == "ssmd_cover_images":  # the host decodes these itself, of any size
        return True
    return key.endswith(_PICTURE_ENDINGS) and not _PICTURE.fullmatch(str(value))


def save_preset(preset: Preset, path: str | os.PathLike[str]) -> None:
    """Write atomically: a temporary file beside the target, read back as a stranger's, then renamed over it.

    Raises:
        PresetError: a record that is not plain JSON, too large a header, or a file that cannot be written or loaded.
    """
    path = Path(path)
    content = encode_preset(preset)
    try:
        with replacing(path) as temporary:
            write_new(temporary, content)
            load_preset(temporary)
    except OSError as error:
        raise PresetError(
            f"cannot write {path.name}: {error.strerror or error}.", "choose a writable folder"
        ) from error


def encode_preset(preset: Preset) -> bytes:
    """The bytes of a preset's file: the same for equal presets.

    Raises:
        PresetError: a record that is not plain JSON, half a character in a text, or metadata larger than 1 MiB.
    """
    plan = preset.precision
    lists = {"c_x": preset.coefficients.c_x, "c_eps": preset.coefficients.c_eps, "sigmas": preset.sigmas}
    if plan is not None:
        lists["activation_bits"] = plan.activation_bits
    if plan is not None and plan.models:
        lists["models"] = plan.models
    return _encode(
        lists,
        {
            "format": FORMAT,
            "version": VERSION,
            "verdict": preset.verdict,
            "binding": _json(asdict(preset.binding)),
            "record": _json(preset.record),
            **{key: str(value) for key, value in sorted(preset.card.items())},
        },
    )


def load_preset(path: str | os.PathLike[str]) -> Preset:
    """Read and check a preset file. What loads can be saved again, and its floats are the same bit for bit.

    Raises:
        PresetError: not a preset, an unknown version, or any value out of its range; the text says which.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise PresetError(
            f"cannot read {path.name}: {error.strerror or error}.", "check the file and its folder"
        ) from error
    return _parse(content, path.name, size)


def parse_preset(content: bytes, name: str) -> Preset:
    """A preset from a file's bytes; ``name`` is what errors call it.

    Raises:
        PresetError: as ``load_preset``.
    """
    return _parse(content, name, len(content))


def _parse(content: bytes, name: str, size: int) -> Preset:
    lists, metadata = _read(content, name, size)
    if metadata.get("format") != FORMAT:
        raise PresetError(f"{name} is not a Q-Sched preset.", "choose a file made by Save Q-Sched Preset")
    if metadata.get("version") != VERSION:
        raise PresetError(
            f"{name} has preset version {short(metadata.get('version'))}, not {VERSION}.",
            "update the Q-Sched pack",
        )
    for key in _TENSORS:
        if key not in lists:
            raise PresetError(f"{name} has no tensor {key}.", "use another preset", missing=key)
    extra = sorted(set(lists) - {*_TENSORS, *_PLAN_TENSORS})
    if extra:
        raise PresetError(f"{name} holds a tensor {short(extra[0])} no preset has.", "use another preset")
    binding = _object(metadata, "binding", name)
    names = {item.name for item in fields(Binding)}
    if not set(binding) <= names:
        raise PresetError(f"{name} is bound by {short(sorted(set(binding) - names)[0])}.", "update the Q-Sched pack")
    preset = Preset(
        Coefficients(lists["c_x"], lists["c_eps"]),
        lists["sigmas"],
        Binding(**binding),
        metadata.get("verdict", ""),
        _object(metadata, "record", name),
        {key: text for key, text in metadata.items() if key not in _OWN_FIELDS and not is_foreign_picture(key, text)},
        _precision(lists, name),
    )
    encode_preset(preset)  # numbers may take more room when they are written again
    return preset


def _precision(lists: Mapping[str, Sequence[float]], name: str) -> Precision | None:
    """A plan as the file's tensors have it. Raises PresetError for numbers that are none of a plan's."""
    if not any(key in lists for key in _PLAN_TENSORS):
        return None
    try:
        bits, models = (tuple(map(_integer, lists.get(key, ()))) for key in _PLAN_TENSORS)
        return Precision(bits, lists["sigmas"], models)
    except (ValueError, QuantizationError, SamplingError) as error:
        raise PresetError(f"{name} has a plan of the steps that is none.", "use another preset") from error


def _integer(value: float) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _encode(lists: Mapping[str, Sequence[float]], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes. safetensors' own writer shuffles the metadata: no preset would have the same hash twice."""
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, values in lists.items():
        piece = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    try:
        # As UTF-8: escapes would make a file that was read larger than it may be.
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise PresetError("a text of the preset holds half a character.", "write the character itself") from error
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        fix = "leave out the thumbnail or the prompts"
        raise PresetError("the preset's metadata is larger than 1 MiB.", fix, header_bytes=len(text))
    return struct.pack("<Q", len(text)) + text + data


def _read(content: bytes, name: str, size: int) -> tuple[dict[str, tuple[float, ...]], dict[str, str]]:
    """Lists and metadata after the checks that need no trust: sizes first, then types and shapes."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if size > MAX_FILE_BYTES or len(content) < 8 or length > MAX_HEADER_BYTES:
        raise PresetError(f"{name} ({size} bytes) is no preset.", "choose a file that is one")
    try:
        tensors = deserialize(content)
        header = json.loads(content[8 : 8 + length].decode(), object_pairs_hook=_unique)
    # Two fields of one name: readers do not agree on which of them counts.
    except (SafetensorError, ValueError, RecursionError) as error:
        raise PresetError(f"{name} is not a safetensors file.", "download or save it again") from error
    lists = {}
    for key, tensor in tensors:
        dtype, shape = tensor["dtype"], tensor["shape"]
        if dtype != "F32" or len(shape) != 1 or not 1 <= shape[0] <= MAX_STEPS + 1:
            raise PresetError(f"{name}: {short(key)} is {dtype} {shape}.", "a preset holds float32 lists")
        lists[key] = tuple(map(_shortest, np.frombuffer(tensor["data"], "<f4")))
    return lists, header.get("__metadata__") or {}


def _object(metadata: Mapping[str, str], key: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(
            metadata.get(key, "{}"),
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_int=_whole,
            parse_constant=_no_number,
        )
        deep = _depth(value) > MAX_RECORD_DEPTH
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{name}: {key} is not JSON.", "use another preset") from error
    if not isinstance(value, dict) or deep:
        what = f"has more than {MAX_RECORD_DEPTH} levels" if deep else "is not a JSON object"
        raise PresetError(f"{name}: {key} {what}.", "use another preset")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        raise ValueError("two fields have one name")
    return items


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than any number here")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _depth(value: Any) -> int:
    """How many lists and objects are inside each other."""
    level, inner = 0, [value]
    while inner := [item for item in inner if isinstance(item, (Mapping, list, tuple))]:
        level += 1
        if level > MAX_RECORD_DEPTH:
            break  # a record may hold itself
        inner = [item for outer in inner for item in (outer.values() if isinstance(outer, Mapping) else outer)]
    return level


def _json(value: Any) -> str:
    try:
        if _depth(value) > MAX_RECORD_DEPTH:
            raise ValueError("too many levels")
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise PresetError("the preset's record is not plain JSON.", "use finite numbers, texts and lists") from error


def _shortest(value: np.float32) -> float:
    """float32 as the shortest decimal that means the same bits: 0.9 comes back as 0.9."""
    short_form = float(str(value))
    return short_form if np.float32(short_form) == value else float(value)


def short(value: object) -> str:
    """A value from a stranger's file as an error may show it: at most 60 characters."""
    text = repr(value) if not isinstance(value, float) else f"{value:g}"
    return text if len(text) <= 60 else text[:57] + "…"
