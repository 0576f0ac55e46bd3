"""Quantised modules as files: there and back bit for bit, and everything a stranger's file may be."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from exactness import same_bits
from safetensors.torch import load_file, save_file
from torch import nn

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import (
    QuantizedConv2d,
    QuantizedLinear,
    checked_write,
    layer_records,
    load_quantized,
    restore,
    save_quantized,
)
from qsched_core.quant import files as files_module


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 64)
        self.conv = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.same = nn.Conv2d(64, 64, 3, padding="same", dilation=2, bias=False)
        self.mix = nn.Linear(64, 64)

    def forward(self, x):
        return self.mix(self.same(self.conv(self.norm(x))).movedim(1, -1))


class Net(nn.Module):
    def __init__(self, blocks: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.proj_in = nn.Linear(64, 64)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.register_buffer("steps", torch.arange(5))

    def forward(self, x):
        for block in self.blocks:
            x = block(x).movedim(-1, 1)
        return x


def made(name: str = "w4a8", **options) -> Net:
    net = Net()
    qs.quantize(net, name, **options)
    return net


def picture(net: Net) -> torch.Tensor:
    return net(torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", ["w4a8", "w8a8", "w4a16", "w6a8", "w3a8", "w4a4"])
@pytest.mark.parametrize("group_size", [None, 0])
def test_there_and_back_bit_for_bit(tmp_path, name, group_size):
    net, path = made(name, group_size=group_size), tmp_path / "a.safetensors"
    save_quantized(net, path, {"model": "Net"})
    packed_file = load_quantized(path)
    assert packed_file.about == {"model": "Net"}
    assert packed_file.shapes() == {key: tuple(value.shape) for key, value in Net().state_dict().items()}
    other = Net(seed=9)
    restore(other, packed_file)
    assert same_bits(picture(other), picture(net))
    assert str(other.blocks[0].conv) == str(net.blocks[0].conv)
    assert isinstance(other.blocks[1].same, QuantizedConv2d)
    assert isinstance(other.blocks[1].mix, QuantizedLinear)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["w4a8", "w6a8", "w8a8"])
def test_minimums_come_back_too(tmp_path, name):
    net, path = made(name, symmetric=False), tmp_path / "a.safetensors"
    save_quantized(net, path)
    other = Net(seed=9)
    restore(other, load_quantized(path))
    assert not other.blocks[0].mix.format.symmetric
    assert same_bits(picture(other), picture(net))


def test_the_file_is_as_small_as_the_module(tmp_path):
    net, path = made(), tmp_path / "a.safetensors"
    save_quantized(net, path)
    size = sum(value.numel() * value.element_size() for value in net.state_dict().values())
    assert size <= path.stat().st_size < size + 8192


def test_a_float_module_is_refused(tmp_path, refused):
    with refused(QuantizationError, "not quantised"):
        save_quantized(Net(), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "failing"), [(checked_write, "save_file"), (files_module, "load_quantized")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, refused, monkeypatch, module, failing):
    path = tmp_path / "a.safetensors"
    save_quantized(made(), path)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, failing, full)
    with refused(QuantizationError, "No space left on device"):
        save_quantized(made("w8a8"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_read_back_must_be_what_was_written(tmp_path, refused, monkeypatch):
    real = checked_write.save_file

    def rotten(tensors, path, metadata):
        tensors = dict(tensors)
        tensors["proj_in.bias"] = tensors["proj_in.bias"] + 1e-6
        real(tensors, path, metadata)

    monkeypatch.setattr(checked_write, "save_file", rotten)
    with refused(QuantizationError, "what was read back differs"):
        save_quantized(made(), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path, refused):
    (tmp_path / "models").write_text("a file")
    with refused(QuantizationError, "cannot write"):
        save_quantized(made(), tmp_path / "models" / "a.safetensors")


# --- files from strangers


@pytest.fixture(scope="module")
def good_parts(tmp_path_factory):
    """(tensors, what is said of the layers) of a good file."""
    path, net = tmp_path_factory.mktemp("good") / "a.safetensors", made()
    save_quantized(net, path)
    return load_file(path), layer_records(net)


@pytest.fixture
def file_parts(tmp_path, good_parts):
    """(tensors, metadata, write): a good file's content, and a way to write it changed."""
    tensors, layers = copy.deepcopy(good_parts)
    path, metadata = tmp_path / "a.safetensors", {"format": "qsched-quantized", "version": files_module.VERSION}
    metadata["layers"] = layers

    def write():
        flat = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        save_file(tensors, path, flat)
        return path

    return tensors, metadata, write


CONV, LINEAR = "blocks.0.conv", "blocks.0.mix"


def spoil_scales(tensors, name, value: bytes):
    """The last two bytes of a layer's first row: in w4a8 the row's number of steps."""
    tensors[f"{name}.weight"][0, -2:] = torch.frombuffer(bytearray(value), dtype=torch.uint8)


def bury(tensors, metadata):
    """A layer below another one: its values are part of both."""
    tensors[f"{LINEAR}.inner.weight"] = tensors[f"{LINEAR}.weight"].clone()
    metadata["layers"][f"{LINEAR}.inner"] = metadata["layers"][LINEAR]


def make_native(tensors, metadata, name, shape):
    tensors.pop(f"{name}.norm_shift")  # of our own layers alone
    metadata["layers"][name] = {"native": True, "shape": shape}


def change(metadata, name, **values):
    metadata["layers"][name] = {**metadata["layers"][name], **values}


def alter_format(metadata, layer, /, **values):
    change(metadata, layer, format={**metadata["layers"][layer]["format"], **values})


ATTACKS = {
    "another format": (lambda t, m: m.update(format="pt"), "no quantised model"),
    "another version": (lambda t, m: m.update(version="999"), "has version '999'"),
    "of before scales were steps": (lambda t, m: m.update(version="1"), "has version '1'"),
    "no list": (lambda t, m: m.pop("layers"), "damaged"),
    "no JSON": (lambda t, m: m.update(layers="{"), "damaged"),
    "a list of numbers": (lambda t, m: m.update(layers="[1]"), "damaged"),
    "deep JSON": (lambda t, m: m.update(layers="[" * 100_000), "damaged"),
    "a layer without bytes": (lambda t, m: t.pop(f"{LINEAR}.weight"), "damaged"),
    "float bytes": (lambda t, m: t.update({f"{LINEAR}.weight": torch.zeros(64, 36)}), "damaged"),
    "too few bytes": (lambda t, m: t.update({f"{LINEAR}.weight": t[f"{LINEAR}.weight"][:, :-1].clone()}), "damaged"),
    "too wide": (lambda t, m: change(m, LINEAR, shape=[64, 2**40]), "damaged"),
    "negative": (lambda t, m: change(m, LINEAR, shape=[64, -64]), "damaged"),
    "three axes": (lambda t, m: change(m, LINEAR, shape=[64, 8, 8]), "damaged"),
    "true for a size": (lambda t, m: change(m, LINEAR, shape=["64", 64]), "damaged"),
    "unknown bits": (
        lambda t, m: change(
            m, LINEAR, format={"name": "x", "weight_bits": 5, "activation_bits": 8, "group_size": 32}
        ),
        "damaged",
    ),
    "symmetric as a number": (lambda t, m: alter_format(m, LINEAR, symmetric=1), "damaged"),
    "symmetric as a word": (lambda t, m: alter_format(m, LINEAR, symmetric="no"), "damaged"),
    "minimums that are not there": (lambda t, m: alter_format(m, LINEAR, symmetric=False), "damaged"),
    "a format that is a word": (lambda t, m: change(m, LINEAR, format="w4a8"), "damaged"),
    "no format": (lambda t, m: m["layers"][LINEAR].pop("format"), "damaged"),
    "no stride": (lambda t, m: m["layers"][CONV].pop("stride"), "damaged"),
    "stride of words": (lambda t, m: change(m, CONV, stride="fast"), "damaged"),
    "stride by padding's word": (lambda t, m: change(m, CONV, stride="same"), "damaged"),
    "padding of words": (lambda t, m: change(m, CONV, padding="reflect"), "damaged"),
    "huge padding": (lambda t, m: change(m, CONV, padding=[10**9, 1]), "damaged"),
    "huge dilation": (lambda t, m: change(m, CONV, dilation=[10**9, 1]), "damaged"),
    "a layer without a name": (lambda t, m: m["layers"].update({"": m["layers"][LINEAR]}), "damaged"),
    "a layer in a layer": (bury, "damaged"),
    "values below a layer": (lambda t, m: t.update({f"{LINEAR}.a.b": torch.zeros(1)}), "damaged"),
    "a scale of NaN": (lambda t, m: spoil_scales(t, LINEAR, b"\xff\x7f"), "scales that are no numbers"),
    "a scale that is too large": (lambda t, m: spoil_scales(t, CONV, b"\xc0\0"), "scales that are no numbers"),
    "native and wider than its bytes": (lambda t, m: make_native(t, m, LINEAR, [64, 2 * 36 + 1]), "damaged"),
    "native and of other outputs": (lambda t, m: make_native(t, m, LINEAR, [32, 64]), "damaged"),
    "native with what is ours alone": (lambda t, m: change(m, LINEAR, native=True), "damaged"),
    "a native convolution": (lambda t, m: make_native(t, m, CONV, [64, 64, 3, 3]), "damaged"),
    "true for one": (lambda t, m: change(m, LINEAR, shape=[64, True]), "damaged"),
    "a format's name of 5000 letters": (lambda t, m: alter_format(m, LINEAR, name="w" * 5000), "damaged"),
    "a format without a name": (lambda t, m: alter_format(m, LINEAR, name=""), "damaged"),
    "a format's name of two lines": (lambda t, m: alter_format(m, LINEAR, name="w4a8\n"), "damaged"),
    "a format's name that is a list": (lambda t, m: alter_format(m, LINEAR, name=["w4a8"]), "damaged"),
    "half a bit": (lambda t, m: alter_format(m, LINEAR, weight_bits=4.0), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_lies_is_refused(file_parts, refused, attack):
    tensors, metadata, write = file_parts
    alter, text = ATTACKS[attack]
    alter(tensors, metadata)
    with refused(QuantizationError, text):
        load_quantized(write())


def test_a_native_layer_may_hold_two_weights_in_each_byte(file_parts):
    tensors, metadata, write = file_parts
    rows, width = tensors[f"{LINEAR}.weight"].shape
    make_native(tensors, metadata, LINEAR, [rows, 2 * width])
    packed_file = load_quantized(write())
    assert packed_file.is_native(LINEAR)
    assert packed_file.shapes()[f"{LINEAR}.weight"] == (rows, 2 * width)


LIES = {
    "another stride": (lambda t, m: change(m, CONV, stride=[1, 1]), "does not fit this model"),
    "another padding": (lambda t, m: change(m, CONV, padding=[0, 1]), "does not fit this model"),
    "padding by a word": (lambda t, m: change(m, CONV, padding="valid"), "does not fit this model"),
    "another dilation": (lambda t, m: change(m, CONV, dilation=[2, 2]), "does not fit this model"),
    "other groups": (lambda t, m: change(m, CONV, groups=2), "does not fit this model"),
    "a bias of whole numbers": (lambda t, m: t.update({f"{LINEAR}.bias": torch.zeros(64, dtype=torch.int32)}), "int32"),
    "a buffer of floats": (lambda t, m: t.update(steps=torch.zeros(5)), "steps holds float32, not int64"),
    "a bias of complex numbers": (
        lambda t, m: t.update({f"{LINEAR}.bias": torch.zeros(64, dtype=torch.complex64)}),
        "complex64",
    ),
    "a bias of NaN": (lambda t, m: t[f"{LINEAR}.bias"].fill_(float("nan")), "is not finite"),
    "a bias that is infinite here": (
        lambda t, m: t.update({f"{LINEAR}.bias": torch.full((64,), 1e300, dtype=torch.float64)}),
        "is not finite",
    ),
    "a bias the wrong way": (lambda t, m: t.update({f"{LINEAR}.bias": torch.zeros(1, 64)}), "another shape"),
    "one value more": (lambda t, m: t.update({f"{LINEAR}.gain": torch.zeros(64)}), "this model has no"),
    "one value less": (lambda t, m: t.pop("blocks.1.norm.bias"), "the file has no"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_does_not_agree_with_the_model_is_refused_before_a_value_is_taken(file_parts, refused, lie):
    """Regression: a file's stride, padding and groups were believed, and a layer ran as another one."""
    tensors, metadata, write = file_parts
    alter, text = LIES[lie]
    alter(tensors, metadata)
    packed_file, net = load_quantized(write()), Net(seed=9)
    before = {name: value.clone() for name, value in net.state_dict().items() if name.startswith("blocks.1.norm")}
    with refused(QuantizationError, text):
        restore(net, packed_file)
    assert all(same_bits(net.state_dict()[name], value) for name, value in before.items())


def test_a_layer_in_two_places_comes_back_as_one(tmp_path):
    """Regression: the second place kept the float layer, and the file could not be written."""
    net, other = Net(), Net(seed=9)
    for each in (net, other):
        each.blocks[1].mix = each.blocks[0].mix
    qs.quantize(net, "w4a8")
    assert net.blocks[1].mix is net.blocks[0].mix
    assert isinstance(net.blocks[1].mix, QuantizedLinear)
    save_quantized(net, tmp_path / "a.safetensors")
    restore(other, load_quantized(tmp_path / "a.safetensors"))
    assert other.blocks[1].mix is other.blocks[0].mix
    assert same_bits(picture(other), picture(net))


def test_a_mask_of_infinities_comes_back(tmp_path):
    """Masks are buffers, and infinite on purpose."""
    net, other = made(), Net(seed=9)
    mask = torch.full((4, 4), -torch.inf).triu(1)
    net.register_buffer("mask", mask)
    other.register_buffer("mask", torch.zeros(4, 4))
    save_quantized(net, tmp_path / "a.safetensors")
    restore(other, load_quantized(tmp_path / "a.safetensors"))
    assert same_bits(other.mask, mask)


@pytest.mark.parametrize("name", ["w4a8", "w6a8", "w8a8", "w3a8"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_what_packing_writes_is_always_read(tmp_path, name, symmetric, size):
    net = Net()
    with torch.no_grad():
        net.proj_in.weight.mul_(size)
        net.blocks[0].mix.weight.mul_(size)
    qs.quantize(net, name, symmetric=symmetric)
    save_quantized(net, tmp_path / "a.safetensors")
    other = Net(seed=9)
    restore(other, load_quantized(tmp_path / "a.safetensors"))
    tensors, read = net.state_dict(), other.state_dict()
    assert tensors.keys() == read.keys()
    assert all(same_bits(read[name], value) for name, value in tensors.items())


def test_a_layer_that_says_nothing_of_minimums_is_symmetric(file_parts):
    _, metadata, write = file_parts
    for layer in metadata["layers"].values():
        del layer["format"]["symmetric"]
    net = Net(seed=9)
    restore(net, load_quantized(write()))
    assert net.blocks[0].mix.format == made().blocks[0].mix.format
    assert same_bits(picture(net), picture(made()))


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      "])
def test_what_is_no_safetensors_file_is_refused(tmp_path, refused, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with refused(QuantizationError, "a.safetensors"):
        load_quantized(path)


def test_a_missing_file(tmp_path, refused):
    with refused(QuantizationError, "cannot read none.safetensors"):
        load_quantized(tmp_path / "none.safetensors")


def test_another_module_is_refused(tmp_path, refused):
    path = tmp_path / "a.safetensors"
    save_quantized(made(), path)
    packed_file = load_quantized(path)
    with refused(QuantizationError, "does not fit this model"):
        restore(Net(1), packed_file)
    with refused(QuantizationError, "the file has no"):
        restore(Net(3), packed_file)
    wide = Net()
    wide.proj_in = nn.Linear(64, 32)
    with refused(QuantizationError, "another shape"):
        restore(wide, packed_file)
    linear = Net()
    linear.blocks[0].conv = nn.Linear(64, 64)
    with refused(QuantizationError, "does not fit this model"):
        restore(linear, packed_file)
    more = Net()
    more.register_buffer("extra", torch.zeros(1))
    with refused(QuantizationError, "the file has no extra"):
        restore(more, packed_file)


def test_shapes_are_those_of_the_float_model_whatever_stands_beside_the_weights():
    """Of layers in ComfyUI's own layouts all but the bias is left out, of ours what a layer may have besides."""
    extras = ("first_token", "first_residual", "input_scale", "norm_shift", "low_rank.up", "low_rank.down")
    native, own = ("weight", "weight_scale", "comfy_quant", "bias"), ("weight", "bias", *extras)
    sizes = {**{f"a.{part}": 3 for part in native}, **{f"b.{part}": 5 for part in own}, "norm.weight": 7}
    layers = {"a": {"native": True, "shape": [3, 64]}, "b": {"shape": [5, 32]}}
    content = files_module.Stored({name: torch.zeros(size) for name, size in sizes.items()}, layers, {})
    weights = {"a.weight": (3, 64), "b.weight": (5, 32), "norm.weight": (7,)}
    assert content.shapes() == {**weights, "a.bias": (3,), "b.bias": (5,)}
