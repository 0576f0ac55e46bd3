"""Random checkpoints: the same on every run, made once, never half a file."""

from math import prod

import pytest
import torch
from exactness import differ, same_bits
from safetensors.torch import load_file

from scripts import random_models
from scripts.random_models import MODELS, Model, write

MILLIONS = {
    "sd15": 16.1,  # 13.6 of the U-Net, 2.4 of its TAESD
    "sdxl": 63.0,
    "flux1-schnell": 1.6,
    "flux2-klein": 2.0,
    "z-image": 908.5,
    "qwen-image": 380.4,
    "krea2": 0.5,
    "wan": 0.9,
    "wan-vae": 0.9,
    "taesd16": 2.5,
    "taef2_encoder": 1.3,
    "taef2_decoder": 1.3,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_a_model_is_as_small_as_it_is_said_to_be(name):
    assert sum(map(prod, MODELS[name].shapes().values())) / 1e6 == pytest.approx(MILLIONS[name], abs=0.05)


def test_the_same_bytes_every_time(tmp_path):
    first, second = (write("flux1-schnell", tmp_path / place).read_bytes() for place in ("a", "b"))
    assert first == second


def test_weights_are_scaled_by_fan_in_norms_are_1_and_biases_0(tmp_path):
    tensors = load_file(write("flux1-schnell", tmp_path))
    assert tensors["txt_in.weight"].dtype == torch.bfloat16
    # 524 288 values: their standard deviation is known to a thousandth.
    assert tensors["txt_in.weight"].float().std().item() == pytest.approx(4096**-0.5, rel=0.01)
    assert tensors["img_in.weight"].float().std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert (tensors["single_blocks.0.norm.query_norm.scale"] == 1).all()
    assert (tensors["img_in.bias"] == 0).all()


def test_a_tensor_depends_on_its_name_alone():
    one, two = ({"a.weight": (4, 8), "b.weight": (4, 8)}, {"b.weight": (4, 8)})
    tensors = [random_models.tensors(Model("vae", torch.float32, lambda s=shapes: s)) for shapes in (one, two)]
    assert same_bits(tensors[0]["b.weight"], tensors[1]["b.weight"])
    assert differ(tensors[0]["a.weight"], tensors[0]["b.weight"])


def test_a_file_that_is_there_is_left_alone(tmp_path):
    path = write("sd15-lora", tmp_path)
    time = path.stat().st_mtime_ns
    assert write("sd15-lora", tmp_path).stat().st_mtime_ns == time


@pytest.mark.parametrize("torn", [b"", b"half a file"], ids=["empty", "torn"])
def test_a_torn_file_is_made_anew(tmp_path, torn):
    whole = write("sd15-lora", tmp_path).read_bytes()
    (tmp_path / "sd15-lora.safetensors").write_bytes(torn)
    assert write("sd15-lora", tmp_path).read_bytes() == whole


def test_a_file_of_other_shapes_is_made_anew(tmp_path, monkeypatch):
    write("sd15-lora", tmp_path)
    monkeypatch.setitem(MODELS, "sd15-lora", Model("loras", torch.float16, lambda: {"new.weight": (2, 2)}))
    assert set(load_file(write("sd15-lora", tmp_path))) == {"new.weight"}


def test_nothing_is_left_of_a_file_that_could_not_be_finished(tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(random_models, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        write("sd15-lora", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_what_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["random_models", "--out", str(tmp_path), "sd15-lora", "qwen-image-lora"])
    assert random_models._main() == 0
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["qwen-image-lora", "sd15-lora"]
    assert "0.0 M" in capsys.readouterr().out


def test_the_command_names_what_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["random_models", "--out", str(tmp_path), "sd16"])
    with pytest.raises(SystemExit):
        random_models._main()
    assert "no model sd16; there are sd15, sdxl" in capsys.readouterr().err
