"""Preset files of strangers: bytes at random, headers rebuilt with values that no writer would write."""

from __future__ import annotations

import json
import random
import struct

import numpy as np

import qsched_core as qs
from qsched_core import Preset, QSchedError, encode_preset, parse_preset
from qsched_core.preset import is_foreign_picture

from .tally import Tally

DAMAGED, REBUILT = 80_000, 30_000
MAX_FIRST_LINE = 90

VALUES = (
    None, True, -1, 0, 2**63, 10**400, 1e999, -1e999, float("nan"), 1e-320, "", "\0", "\ud800", "x" * 5000, "\u202eabc",
    "<script>alert(1)</script>", "javascript:alert(1)", "https://example.org/a.png", "../../x", "[1e999]",
    '{"a":1,"a":2}',
    "[" * 5000, '{"a":' * 40 + "1" + "}" * 40, "{" + '"k":1,' * 999 + '"k":1}', [], {}, [[]], {"a": {"b": []}},
)  # fmt: skip
"""For any place of a header."""
FIELDS = (
    "format", "version", "verdict", "binding", "record", "modelspec.title", "modelspec.thumbnail", "thumbnail", "icon",
    "image", "ssmd_cover_images", "workflow", "prompt", "__metadata__", "", "a" * 3000,
)  # fmt: skip
NUMBERS = (0.0, -0.0, 1.0, 0.1, 10.0, 1e-40, 1e30, -1.0, float("inf"), float("nan"), 0.9999999, 1.0000001)


def run() -> Tally:
    tally, draw = Tally(), random.Random(0)
    coefficients = qs.Coefficients.ramp(4, c_x=(1.02, 0.98), c_eps=(0.96, 1.03))
    record = {"gain": {"gain": 0.02, "low": 0.01, "high": 0.03}, "votes": {"wins": 3, "losses": 1, "skips": 0}}
    card = {"modelspec.title": "T", "modelspec.thumbnail": "data:image/png;base64,AAAA", "workflow": "{}"}
    preset = Preset(coefficients, (1.0, 0.75, 0.5, 0.25, 0.0), qs.Binding("SDXL", cfg=1.0), "accepted", record, card)
    valid = encode_preset(preset)
    for _ in range(DAMAGED):
        _attack(damaged(valid, draw), tally)
    for _ in range(REBUILT):
        _attack(rebuilt(valid, draw), tally)
    return tally


def damaged(valid: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or cut off."""
    data = bytearray(valid)
    for _ in range(draw.choice((1, 1, 2, 8))):
        # A third of it in the numbers at the end, which are a twentieth of the bytes.
        place = draw.randrange(max(0, draw.choice((0, 0, len(data) - 52))), len(data) or 1)
        kind = draw.randrange(10)
        if not data:
            break
        if kind < 7:
            data[place] = draw.randrange(256)
        elif kind == 7:
            del data[place : place + draw.randrange(1, 9)]
        elif kind == 8:
            data[place:place] = data[place : place + draw.randrange(1, 40)]
        else:
            del data[max(8, place) :]
    return bytes(data)


def rebuilt(valid: bytes, draw: random.Random) -> bytes:
    """A file whose header is JSON: fields with other values, tensors of other kinds and lengths."""
    length = struct.unpack("<Q", valid[:8])[0]
    header = json.loads(valid[8 : 8 + length])
    metadata = header["__metadata__"]
    valid_binding = metadata["binding"]
    for _ in range(draw.choice((1, 1, 2))):
        value = draw.choice(VALUES)
        kind = draw.randrange(4)
        if kind == 0:
            metadata[draw.choice(FIELDS)] = value if draw.random() < 0.3 else _text(value)
        elif kind == 1:
            inner = json.loads(valid_binding)
            inner[draw.choice((*inner, "new"))] = value
            metadata["binding"] = _text(inner)
        elif kind == 2:
            metadata["record"] = _text({draw.choice(("gain", "votes", "settings", "x")): value})
        else:
            header[draw.choice(("c_x", "c_eps", "sigmas", "more"))] = {
                "dtype": draw.choice(("F32", "F64", "F16", "I32", "U8", "F33")),
                "shape": draw.choice(([4], [5], [2, 2], [], [0], [-1], [10**9], ["4"])),
                "data_offsets": draw.choice(([0, 16], [16, 32], [32, 52], [0, 52], [16, 0], [0, 10**12])),
            }
    body = bytearray(valid[8 + length :])
    if draw.random() < 0.5:
        struct.pack_into("<f", body, 4 * draw.randrange(len(body) // 4), draw.choice(NUMBERS))
    text = json.dumps(header, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if draw.random() < 0.05:  # one field twice
        text = text.replace(b'"version"', b'"format"', 1)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _attack(content: bytes, tally: Tally) -> None:
    try:
        preset = parse_preset(content, "evil.safetensors")
    except QSchedError as error:
        first = str(error).splitlines()[0]
        tally.count("refused") if len(first) <= MAX_FIRST_LINE else tally.hurt(f"a long sentence: {first}")
        return
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is no sentence for a person
        tally.hurt(f"{type(error).__name__}: {error}")
        return
    try:
        _check(preset, content)
        tally.count("loaded")
    except Exception as error:  # noqa: BLE001 - the harm is counted with its reason
        tally.hurt(f"loaded, but {type(error).__name__}: {error}")


def _check(preset: Preset, content: bytes) -> None:
    """What loads can be saved, comes back the same, bit for bit, and holds nothing that a page would fetch."""
    again = encode_preset(preset)
    assert encode_preset(parse_preset(again, "again.safetensors")) == again, "the second file differs"
    count = preset.steps
    numbers = np.frombuffer(content[-4 * (3 * count + 1) :], "<f4")
    ours = np.float32((*preset.coefficients.c_x, *preset.coefficients.c_eps, *preset.sigmas))
    # Tensors may lie in another order in the file.
    assert sorted(ours.tobytes()[i : i + 4] for i in range(0, ours.nbytes, 4)) == sorted(
        numbers.tobytes()[i : i + 4] for i in range(0, numbers.nbytes, 4)
    ), "the floats differ"
    assert np.isfinite(ours).all(), "a number is not finite"
    assert not any(is_foreign_picture(key, value) for key, value in preset.card.items()), "a picture from elsewhere"
