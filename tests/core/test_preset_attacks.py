"""Presets come from strangers: every broken or hostile file is refused with a sentence, and with nothing else."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Mapping

import pytest

import qsched_core as qs
from qsched_core import Preset, PresetError, QSchedError, load_preset, save_preset

NAME = "evil.safetensors"
BINDING = {
    "model": "",
    "fingerprint": "",
    "prediction": "",
    "quantization": "",
    "sampler": "",
    "scheduler": "",
    "cfg": 0.0,
}
METADATA = {
    "format": "qsched-preset",
    "version": "1",
    "verdict": "made by hand",
    "binding": json.dumps(BINDING),
    "record": "{}",
}


def floats(*values: float) -> tuple[str, list[int], bytes]:
    return "F32", [len(values)], struct.pack(f"<{len(values)}f", *values)


TENSORS = {"c_x": floats(1.0, 1.1), "c_eps": floats(0.9, 1.0), "sigmas": floats(1.0, 0.5, 0.0)}


def assemble(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def file(tensors: Mapping = TENSORS, metadata: object = METADATA) -> bytes:
    """A safetensors file, byte by byte: what no library would write can be written here."""
    header: dict = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return assemble(header, data)


def tensors(**changed) -> bytes:
    return file({**TENSORS, **changed})


def metadata(**changed) -> bytes:
    return file(metadata={**METADATA, **changed})


def binding(**changed) -> bytes:
    return metadata(binding=json.dumps({**BINDING, **changed}))


def without(mapping: Mapping, key: str) -> dict:
    return {name: value for name, value in mapping.items() if name != key}


VALID = file()
NOT_SAFETENSORS = f"{NAME} is not a safetensors file."
TOO_LARGE = "bytes) is no preset."
NOT_OURS = f"{NAME} is not a Q-Sched preset."
TOO_MANY = [1.0] * 1001

ATTACKS = {
    # the file
    "empty": (b"", TOO_LARGE),
    "seven bytes": (b"\0" * 7, TOO_LARGE),
    "3 MB": (file() + b"\0" * 3_000_000, TOO_LARGE),
    "3 MB of tensor": (tensors(c_x=("F32", [750_000], b"\0" * 3_000_000)), TOO_LARGE),
    "wrong magic": (b"PK\3\4" + VALID[4:], TOO_LARGE),
    "a pickle": (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", TOO_LARGE),
    "a picture": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, TOO_LARGE),
    "truncated in the numbers": (VALID[:-1], NOT_SAFETENSORS),
    "truncated in the header": (VALID[:100], NOT_SAFETENSORS),
    "trailing bytes": (VALID + b"\0", NOT_SAFETENSORS),
    "header length 0": (struct.pack("<Q", 0) + VALID[8:], NOT_SAFETENSORS),
    "header length beyond the file": (struct.pack("<Q", len(VALID)) + VALID[8:], NOT_SAFETENSORS),
    "header length 2^63": (struct.pack("<Q", 2**63) + VALID[8:], TOO_LARGE),
    "header length 2^64 - 1": (struct.pack("<Q", 2**64 - 1) + VALID[8:], TOO_LARGE),
    "header of 1.5 MB": (metadata(author="x" * 1_500_000), TOO_LARGE),
    "header not JSON": (assemble(b"{not json", b""), NOT_SAFETENSORS),
    "header not UTF-8": (assemble(b'{"\xff\xfe":1}', b""), NOT_SAFETENSORS),
    "header a list": (assemble([], b""), NOT_SAFETENSORS),
    "header of deep nesting": (assemble(b"[" * 100_000, b""), NOT_SAFETENSORS),
    "metadata not texts": (metadata(author=3), NOT_SAFETENSORS),
    "metadata a list": (file(metadata=["format"]), NOT_SAFETENSORS),
    "shape larger than the data": (tensors(c_x=("F32", [3], b"\0" * 8)), NOT_SAFETENSORS),
    "shape that overflows": (tensors(c_x=("F32", [2**62, 2**62], b"\0" * 8)), NOT_SAFETENSORS),
    "negative shape": (tensors(c_x=("F32", [-2], b"\0" * 8)), NOT_SAFETENSORS),
    "unknown type": (tensors(c_x=("F33", [2], b"\0" * 8)), NOT_SAFETENSORS),
    "overlapping tensors": (
        assemble(
            {
                "__metadata__": METADATA,
                **{n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in ("c_x", "c_eps")},
                "sigmas": {"dtype": "F32", "shape": [3], "data_offsets": [8, 20]},
            },
            b"\0" * 20,
        ),
        NOT_SAFETENSORS,
    ),
    # not ours
    "a model": (file({"weight": ("F32", [2, 2], b"\0" * 16)}, None), "'weight' is F32 [2, 2]"),
    "a small LoRA": (file({"alpha": floats(1.0)}, {"ss_network": "x"}), NOT_OURS),
    "no metadata": (file(metadata=None), NOT_OURS),
    "no format": (file(metadata=without(METADATA, "format")), NOT_OURS),
    "another format": (metadata(format="qsched"), NOT_OURS),
    "no version": (file(metadata=without(METADATA, "version")), f"{NAME} has preset version None, not 1."),
    "version 2": (metadata(version="2"), f"{NAME} has preset version '2', not 1."),
    "version 1.0": (metadata(version="1.0"), f"{NAME} has preset version '1.0', not 1."),
    "version of 5000 digits": (metadata(version="9" * 5000), f"{NAME} has preset version '999"),
    # tensors
    "no c_x": (file(without(TENSORS, "c_x")), f"{NAME} has no tensor c_x."),
    "no c_eps": (file(without(TENSORS, "c_eps")), f"{NAME} has no tensor c_eps."),
    "no sigmas": (file(without(TENSORS, "sigmas")), f"{NAME} has no tensor sigmas."),
    "an extra tensor": (tensors(evil=floats(1.0)), "'evil'"),
    "an extra tensor of 1 MB": (tensors(evil=("U8", [10**6], b"\0" * 10**6)), "'evil' is U8 [1000000]"),
    "an extra tensor with a long name": (tensors(**{"e" * 3000: floats(1.0)}), "'eeee"),
    "float64": (tensors(c_x=("F64", [2], struct.pack("<2d", 1, 1))), "'c_x' is F64 [2]"),
    "float16": (tensors(c_eps=("F16", [2], b"\0\x3c\0\x3c")), "'c_eps' is F16 [2]"),
    "integers": (tensors(c_x=("I32", [2], b"\1\0\0\0\1\0\0\0")), "'c_x' is I32 [2]"),
    "two-dimensional": (tensors(c_x=("F32", [1, 2], TENSORS["c_x"][2])), "'c_x' is F32 [1, 2]"),
    "zero-dimensional": (tensors(c_x=("F32", [], struct.pack("<f", 1))), "'c_x' is F32 []"),
    "no values": (tensors(c_x=floats()), "'c_x' is F32 [0]"),
    "too many steps": (
        tensors(c_x=floats(*TOO_MANY), c_eps=floats(*TOO_MANY), sigmas=floats(*TOO_MANY)),
        "c_x has 1001 values.",
    ),
    "100 000 values": (tensors(c_x=floats(*[1.0] * 100_000)), "'c_x' is F32 [100000]"),
    "c_x longer than c_eps": (tensors(c_x=floats(1.0, 1.0, 1.0)), "c_x and c_eps differ in number: 3 and 2."),
    "too few sigmas": (tensors(sigmas=floats(1.0, 0.0)), "the preset's sigmas do not fit its steps: 2 and 2."),
    "c_x NaN": (tensors(c_x=floats(1.0, math.nan)), "c_x[1] is nan."),
    "c_eps infinite": (tensors(c_eps=floats(math.inf, 1.0)), "c_eps[0] is inf."),
    "c_eps negative": (tensors(c_eps=floats(1.0, -0.9)), "c_eps[1] is -0.9."),
    "c_x zero": (tensors(c_x=floats(0.0, 1.0)), "c_x[0] is 0."),
    "c_x huge": (tensors(c_x=floats(1e30, 1.0)), "c_x[0] is 1e+30."),
    "c_x denormal": (tensors(c_x=floats(1e-42, 1.0)), "c_x[0] is 1e-42."),
    "sigmas ascending": (tensors(sigmas=floats(0.0, 0.5, 1.0)), "sigmas do not descend"),
    "sigmas equal": (tensors(sigmas=floats(1.0, 1.0, 0.0)), "sigmas do not descend"),
    "sigmas negative": (tensors(sigmas=floats(1.0, 0.5, -1.0)), "sigmas are not finite values in [0, 100000]"),
    "sigmas NaN": (tensors(sigmas=floats(math.nan, 0.5, 0.0)), "sigmas are not finite values"),
    "sigmas infinite": (tensors(sigmas=floats(math.inf, 0.5, 0.0)), "sigmas are not finite values"),
    # metadata
    "unknown verdict": (metadata(verdict="certified by NASA"), "verdict 'certified by NASA' is unknown."),
    "no verdict": (file(metadata=without(METADATA, "verdict")), "verdict '' is unknown."),
    "a verdict of 5000 letters": (metadata(verdict="v" * 5000), "verdict 'vvv"),
    "binding not JSON": (metadata(binding="{"), f"{NAME}: binding is not JSON."),
    "binding empty": (metadata(binding=""), f"{NAME}: binding is not JSON."),
    "binding a list": (metadata(binding="[]"), f"{NAME}: binding is not a JSON object."),
    "binding null": (metadata(binding="null"), f"{NAME}: binding is not a JSON object."),
    "binding of deep nesting": (metadata(binding="[" * 200_000), f"{NAME}: binding is not JSON."),
    "binding with an unknown key": (binding(seed=1), f"{NAME} is bound by 'seed'."),
    "binding with a key of a method": (binding(__init__=1), f"{NAME} is bound by '__init__'."),
    "model a number": (binding(model=3), "preset field model is 3."),
    "model null": (binding(model=None), "preset field model is None."),
    "model of 5000 letters": (binding(model="m" * 5000), "preset field model is 'mmm"),
    "sampler a list": (binding(sampler=["euler"]), "preset field sampler is ['euler']."),
    "cfg true": (binding(cfg=True), "preset cfg is True."),
    "cfg a text": (binding(cfg="7"), "preset cfg is '7'."),
    "cfg negative": (binding(cfg=-1), "preset cfg is -1."),
    "cfg of 400 digits": (binding(cfg=10**400), "preset cfg is 1000"),
    "cfg of 5000 digits": (
        metadata(binding='{"cfg": ' + "9" * 5000 + "}"),
        f"{NAME}: binding is not JSON.",  # Python refuses to read such numbers
    ),
    "cfg 1e999": (metadata(binding='{"cfg": 1e999}'), f"{NAME}: binding is not JSON."),
    "cfg -1e999": (metadata(binding='{"cfg": -1e999}'), f"{NAME}: binding is not JSON."),
    "record with 1e999": (metadata(record='{"gain": {"low": [1e999]}}'), f"{NAME}: record is not JSON."),
    "binding with a key twice": (
        metadata(binding='{"cfg": 1.0, "cfg": 2.0}'),
        f"{NAME}: binding is not JSON.",
    ),
    "record with a key twice": (metadata(record='{"a": {"b": 1, "b": 1}}'), f"{NAME}: record is not JSON."),
    "a tensor twice": (VALID.replace(b'"c_eps":', b'"c_x"  :', 1), NOT_SAFETENSORS),
    "metadata with a key twice": (VALID.replace(b'"version": "1"', b'"format" : "1"', 1), NOT_SAFETENSORS),
    "metadata twice": (
        assemble(
            b'{"__metadata__": {}, ' + json.dumps({"__metadata__": METADATA}).encode()[1:-1] + b"}",
            b"",
        ),
        NOT_SAFETENSORS,
    ),
    "record of 33 levels": (metadata(record='{"a":' * 33 + "1" + "}" * 33), "record has more than 32 levels."),
    "record with half a character": (metadata(record='{"a": "\\ud83e"}'), "holds half a character."),
    "record that grows": (metadata(record='{"a": [' + ",".join(["1e15"] * 180_000) + "]}"), "larger than 1 MiB."),
    "cfg NaN": (metadata(binding='{"cfg": NaN}'), f"{NAME}: binding is not JSON."),
    "cfg infinite": (metadata(binding='{"cfg": -Infinity}'), f"{NAME}: binding is not JSON."),
    "record not JSON": (metadata(record="gain: 7"), f"{NAME}: record is not JSON."),
    "record with NaN": (metadata(record='{"gain": NaN}'), f"{NAME}: record is not JSON."),
    "record a text": (metadata(record='"x"'), f"{NAME}: record is not a JSON object."),
    "record of deep nesting": (metadata(record='{"a":' * 100_000), f"{NAME}: record is not JSON."),
}


@pytest.fixture
def evil(tmp_path):
    return tmp_path / NAME


def test_the_files_that_the_attacks_start_from_are_valid(evil):
    """Else every attack below would be refused for another reason than its own."""
    evil.write_bytes(VALID)
    preset = load_preset(evil)
    assert preset == Preset(qs.Coefficients((1.0, 1.1), (0.9, 1.0)), (1.0, 0.5, 0.0))
    evil.write_bytes(binding())
    assert load_preset(evil) == preset


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_file_is_refused_with_a_sentence(evil, refused, attack):
    content, text = ATTACKS[attack]
    evil.write_bytes(content)
    # CoefficientError for what is wrong with a coefficient, PresetError for all else.
    with refused(qs.CoefficientError if text.startswith("c_") else PresetError, text):
        load_preset(evil)


def test_a_missing_file_is_refused(evil, refused):
    with refused(PresetError, f"cannot read {NAME}: No such file"):
        load_preset(evil)


def test_a_folder_is_refused(evil, refused):
    evil.mkdir()
    with refused(PresetError, f"cannot read {NAME}: "):
        load_preset(evil)


def test_a_long_file_name_with_line_breaks_cannot_hide_what_is_wrong(tmp_path, refused):
    path = tmp_path / ("a\n" + "b" * 200 + ".safetensors")
    path.write_bytes(b"")
    with refused(PresetError, "a bbb", "b.safetensors (0 bytes) is no preset.", "choose a file"):
        load_preset(path)


def test_unknown_metadata_is_the_card_and_not_an_attack(evil):
    """The host adds its own keys to files; a later version of ours may add to the card."""
    evil.write_bytes(metadata(author="<script>alert(1)</script>", **{"modelspec.title": "x\n" * 100}))
    assert load_preset(evil).card == {"author": "<script>alert(1)</script>", "modelspec.title": "x\n" * 100}


@pytest.mark.parametrize("key", ["modelspec.thumbnail", "thumbnail", "x.image", "icon", "ssmd_cover_images"])
def test_a_picture_from_elsewhere_is_left_out_of_what_loads(evil, key):
    """Regression: saved again, it was in the host's sidebar, and its server saw who looks at the preset."""
    evil.write_bytes(metadata(**{key: "https://example.org/tracker.png", "author": "me"}))
    assert load_preset(evil).card == {"author": "me"}


def test_no_truncation_loads(evil):
    for length in range(len(VALID)):
        evil.write_bytes(VALID[:length])
        with pytest.raises(PresetError, match=r"evil\.safetensors"):
            load_preset(evil)


def test_random_damage_either_loads_as_a_valid_preset_or_is_refused(evil):
    draw = random.Random(0)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(300):
        data = bytearray(VALID)
        for _ in range(draw.choice([1, 1, 2, 8])):
            # Half of it in the 28 bytes of numbers at the end, or nearly all would be in the header.
            data[draw.randrange(draw.choice([0, len(data) - 28]), len(data))] = draw.randrange(256)
        evil.write_bytes(data)
        try:
            preset = load_preset(evil)
        except QSchedError as error:
            assert len(str(error).splitlines()[0]) <= 90
            outcomes["refused"] += 1
        else:
            # Built anew: __post_init__ checks every value again; and it can be written again.
            assert Preset(preset.coefficients, preset.sigmas, preset.binding, preset.verdict) is not None
            save_preset(preset, evil)
            outcomes["loaded"] += 1
    assert outcomes["loaded"] > 30
    assert outcomes["refused"] > 100
