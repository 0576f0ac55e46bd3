"""The lines of the environment check that need no host."""

from __future__ import annotations

import os
import re
from importlib import metadata

import pytest
import torch

from qsched_core import environment
from qsched_core.environment import OK, OPTIONAL, TO_DO, Line
from qsched_core.quant import trial
from qsched_core.quant.backends import TorchBackend, default_backends

PYPROJECT = environment.PACK / "pyproject.toml"


def nothing_installed(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_the_version_is_the_one_in_pyproject(tmp_path):
    assert f'\nversion = "{environment.pack_version()}"\n' in PYPROJECT.read_text("utf-8")
    assert environment.pack_version(tmp_path) == "unknown"


@pytest.mark.parametrize(("rocm", "cuda", "words"), [
    ("6.2", None, "ROCm 6.2"), (None, "13.0", "CUDA 13.0"), (None, None, "CPU"),
])  # fmt: skip
def test_it_is_said_for_what_torch_was_built(monkeypatch, rocm, cuda, words):
    monkeypatch.setattr(torch.version, "hip", rocm)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert environment.versions()[-1] == Line(OK, f"torch {torch.__version__}, built for {words}")


def test_a_section_that_fails_is_a_finding_and_the_others_are_there():
    def broken():
        yield Line(OK, "half of it")
        raise RuntimeError("no\nsuch thing")

    text = environment.report([("the moon", broken), ("the sun", lambda: [Line(OK, "it shines")])]).splitlines()
    assert text[0].endswith(": 1 thing to do")
    assert text[1] == "TO DO     the moon could not be checked (RuntimeError: no such thing). Send us this line."
    assert text[2] == "OK        it shines"


def test_without_anything_to_do_all_is_fine():
    lines = [Line(OK, "there"), Line(OPTIONAL, "could be there")]
    assert environment.report([("all", lambda: lines)]).splitlines()[0].endswith(": all is fine")


def test_a_missing_package_is_told_with_its_use_and_the_command_of_this_python():
    lines = {line.text.split()[0]: line for line in environment.packages(version_of=nothing_installed)}
    assert {name for name, line in lines.items() if line.state == TO_DO} == set(environment.REQUIRED)
    assert {name for name, line in lines.items() if line.state == OPTIONAL} == set(environment.EXTRAS)
    assert lines["psycopg"].text.endswith('-m pip install "psycopg[binary]"')
    assert environment.pip_command() in lines["pyiqa"].text
    assert "non-commercial" in lines["pyiqa"].text


def test_the_optional_packages_are_those_that_pyproject_offers():
    extras = PYPROJECT.read_text("utf-8").split("[project.optional-dependencies]")[1].split("\n[")[0]
    names = {re.split(r"[\[>=]", text)[0] for text in re.findall(r'"([^"]+)"', extras)}
    assert names == set(environment.EXTRAS)


def test_the_required_packages_are_those_of_requirements():
    lines = (environment.PACK / "requirements.txt").read_text("utf-8").split()
    assert [re.split("[>=]", line)[0] for line in lines] == list(environment.REQUIRED)


def test_a_backend_tells_what_it_packs_and_why_not_the_rest():
    reports = {
        name: environment.quantizer(backend, torch.device("cpu")) for name, backend in default_backends().items()
    }
    assert reports["torch"] == [Line(OK, "backend torch on cpu: w4a8, w4a16, w4a4, w8a8, w8a16, w6a8, w3a8")]
    (kitchen,) = reports["kitchen"]
    assert "not w4a16, w8a16, w6a8, w3a8: ComfyUI has no native layout for them" in kitchen.text
    assert "asym_them" not in kitchen.text  # a layout's name holds the format's


def test_a_folder_is_counted_made_later_or_not_writable(tmp_path, monkeypatch):
    for name in ("a.safetensors", "b.txt", "deep/c.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert environment.folder("presets", tmp_path, ".safetensors").text.endswith(", 2 files")
    later = environment.folder("presets", tmp_path / "x" / "y")
    assert (later.state, later.text.endswith("made when first needed")) == (OK, True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert environment.folder("presets", tmp_path / "x").state == TO_DO
    assert environment.folder("presets", tmp_path / "x", write=False).state == OK
    blocked = environment.folder("presets", tmp_path / "b.txt" / "y")
    assert (blocked.state, "b.txt" in blocked.text) == (TO_DO, True)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("postgresql+psycopg://me:s3cret@host:5432/name", "postgresql+psycopg://host:5432/name "),
        ("postgresql://me:s3c/r?et@host/name", "postgresql://… "),
        ("postgresql://me:s@3cret@host/name", "postgresql://host/name "),
        ("postgresql://host/name?password=s3cret", "postgresql://host/name "),
        ("postgresql://host/name?password=s@3cret", "postgresql://… "),
        ("sqlite:///studies.db", "sqlite:///studies.db "),
    ],
)
def test_a_database_is_shown_without_its_password(address, text):
    line = environment.storage(address, "QSCHED_STUDIES")
    assert line.state == OK
    assert text in line.text
    assert not [part for part in ("cret", "me", "s3c") if part in line.text.replace("name", "")]


def test_what_is_no_address_is_not_repeated():
    line = environment.storage("s3cret", "QSCHED_STUDIES")
    assert (line.state, "s3cret" in line.text) == (TO_DO, False)


def test_a_kernel_that_fails_its_trial_is_told_with_its_reason(monkeypatch):
    monkeypatch.setattr(TorchBackend, "trial", lambda *_: "it fails here (no such kernel image)")
    (line,) = environment.quantizer(TorchBackend(), torch.device("cpu"))
    assert line.state == OPTIONAL
    assert line.text.startswith("backend torch on cpu: no format; not w4a8, ")
    assert line.text.endswith(": it fails here (no such kernel image)")


def test_a_kernel_that_failed_in_a_run_is_told():
    trial.forget()
    assert environment.kernels() == []
    trial.failed_in_run("the product", RuntimeError("too many rows"))
    assert environment.kernels() == [
        Line(OPTIONAL, "the product failed in a run (too many rows) and is computed the slow way")
    ]
    trial.forget()
