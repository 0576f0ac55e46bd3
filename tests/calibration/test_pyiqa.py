"""The door to pyiqa, with a stand-in for the package: its tree is too heavy for the tests."""

from __future__ import annotations

import os
import socket
import sys
from types import ModuleType

import pytest
import torch
from exactness import same_bits
from torch import nn

from calibration.core import CalibrationError, DependencyError
from calibration.metrics.pyiqa import PyIQA

PICTURES = torch.stack([torch.full((4, 4, 3), value) for value in (0.25, 0.75)])


class Net(nn.Module):
    def __init__(self, lower_better: bool, columns: int):
        super().__init__()
        self.lower_better, self.columns = lower_better, columns
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        assert pictures.shape[1] == 3
        mean = pictures.mean((1, 2, 3)) * self.weight
        return mean if self.columns == 0 else mean[:, None].expand(-1, self.columns)


@pytest.fixture
def pyiqa(monkeypatch) -> ModuleType:
    module = ModuleType("pyiqa")
    module.made = []
    modes = {"NR": ["piqe", "entropy", "musiq", "two", "clipscore", "fid"], "FR": ["lpips"]}
    module.list_models = lambda mode: modes[mode]

    def create_metric(name: str, as_loss: bool, device: str) -> Net:
        module.made.append((name, as_loss, device))
        if name == "musiq":
            socket.create_connection(("localhost", 9))
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        return Net(name == "piqe", {"entropy": 1, "two": 2}.get(name, 0))

    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


def test_more_is_better_whatever_the_metric_says(pyiqa):
    piqe, entropy = PyIQA("piqe"), PyIQA("entropy")
    assert same_bits(piqe.score(PICTURES, ["a", "b"]), torch.tensor([-0.25, -0.75]))
    assert same_bits(entropy.score(PICTURES, ["a", "b"]), torch.tensor([0.25, 0.75]))
    assert (piqe.name, entropy.name) == ("piqe (negated)", "entropy")
    assert piqe.role == "iq"
    assert "Noncommercial" in piqe.license
    assert pyiqa.made == [("piqe", False, "cpu"), ("entropy", False, "cpu")]


def test_a_file_that_would_be_downloaded_is_an_error(pyiqa, refused):
    look_up, setting = socket.getaddrinfo, os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    with refused(CalibrationError, "musiq", "OSError", metric="musiq"):
        PyIQA("musiq")
    assert socket.getaddrinfo is look_up
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == setting


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("lpips", "needs a reference"),
        ("clipscore", "needs a text"),
        ("fid", "needs a set of pictures"),
        ("musik", "choose musiq"),
    ],
)
def test_what_cannot_score_one_picture_is_refused(pyiqa, refused, name, part):
    with refused(CalibrationError, name, part, metric=name):
        PyIQA(name)
    assert pyiqa.made == []


def test_more_than_one_number_per_picture_is_refused(pyiqa, refused):
    with refused(CalibrationError, "two"):
        PyIQA("two").score(PICTURES, ["a", "b"])


def test_without_the_package_it_is_named(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with refused(DependencyError, "this metric needs pyiqa.", "pip install pyiqa"):
        PyIQA("piqe")
