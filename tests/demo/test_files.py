"""Reading the demo's weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from demo.files import read


def test_floats_come_as_float32_and_other_types_as_they_are(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"half": torch.ones(2, dtype=torch.float16), "ids": torch.arange(3)}, path)
    tensors = read(path)
    assert {name: value.dtype for name, value in tensors.items()} == {"half": torch.float32, "ids": torch.int64}
    assert tensors["half"].tolist() == [1.0, 1.0]


def test_a_missing_file_says_which_and_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors is missing\. Fix: "):
        read(tmp_path / "nothing.safetensors")
