"""Front ends from the registry, with a stand-in for pip."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.front_ends import FOLDER, NEWEST, OWN, FrontEndError, front_end

PYTHON = Path(sys.executable)


@pytest.fixture
def pip(monkeypatch):
    """What the registry has, as versions; pip puts the one that is asked for into its folder, and fails otherwise."""
    registry = ["1.9.9", "1.58.1"]

    def run(command, **_):
        package, folder = command[-1], Path(command[command.index("--dest") + 1])
        version = package.partition("==")[2] or (registry[-1] if registry else "")
        if version not in registry:
            return SimpleNamespace(returncode=1, stderr=f"no {package}")
        with zipfile.ZipFile(folder / f"comfyui_frontend_package-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{FOLDER}/index.html", version)
            wheel.writestr("other/file", "")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return registry


def shown(name: str, cache: Path) -> str:
    return (front_end(name, PYTHON, cache) / "index.html").read_text()


def test_the_hosts_own_front_end_needs_nothing(tmp_path):
    assert front_end(OWN, PYTHON, tmp_path) is None


def test_a_version_is_downloaded_once(pip, tmp_path):
    assert shown("1.9.9", tmp_path) == "1.9.9"
    assert not (tmp_path / "1.9.9" / "other").exists()
    pip.clear()
    assert shown("1.9.9", tmp_path) == "1.9.9"


def test_the_newest_is_asked_for_again_and_without_a_network_the_newest_that_is_there_is_taken(pip, tmp_path):
    assert shown(NEWEST, tmp_path) == "1.58.1"
    pip.append("1.100.0")
    assert shown(NEWEST, tmp_path) == "1.100.0"
    pip.clear()
    assert shown(NEWEST, tmp_path) == "1.100.0"


def test_what_cannot_be_downloaded_is_named(tmp_path, pip):
    with pytest.raises(FrontEndError, match="comfyui-frontend-package==2.0.0:\nno "):
        front_end("2.0.0", PYTHON, tmp_path)
