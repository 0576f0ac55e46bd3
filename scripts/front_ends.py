"""Front ends of ComfyUI other than the host's own, from the Python package registry: people have old and new ones."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from pathlib import Path

from .errors import DevError
from .layout import CACHE

PACKAGE = "comfyui-frontend-package"
FOLDER = "comfyui_frontend_package/static"
OWN, NEWEST = "own", "newest"
"""The one that the host brings, and the newest that the registry has."""

ALL = (OWN, "1.47.12", "1.49.6", NEWEST)
"""Before and after 1.54, which began to clear a node's text when its run ends."""


class FrontEndError(DevError):
    """A front end cannot be had."""


def front_end(name: str, python: Path, cache: Path = CACHE / "front-ends") -> Path | None:
    """The folder to give to ComfyUI's ``--front-end-root``; None for OWN.

    Args:
        name: OWN, NEWEST or a version.
        python: whose pip downloads it, unless it is in `cache`.
    """
    if name == OWN:
        return None
    folder = cache / name / FOLDER
    if name == NEWEST or not folder.is_dir():
        folder = _unpacked(_wheel(name, python, cache), cache)
    return folder


def _wheel(name: str, python: Path, cache: Path) -> Path:
    """pip takes a file that is in its folder already for downloaded: asking for the newest is cheap."""
    wheels = cache / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wheel = PACKAGE if name == NEWEST else f"{PACKAGE}=={name}"
    command = [python, "-m", "pip", "download", "--no-deps", "--dest", wheels, "--disable-pip-version-check", wheel]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    version = "*" if name == NEWEST else name
    files = sorted(wheels.glob(f"{PACKAGE.replace('-', '_')}-{version}-*.whl"), key=_version)
    if not files:
        raise FrontEndError(f"pip could not download {wheel}:\n{done.stderr.strip()}")
    return files[-1]  # without a network, the newest that was downloaded before


def _version(wheel: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in wheel.name.split("-")[1].split(".") if part.isdigit())


def _unpacked(wheel: Path, cache: Path) -> Path:
    target = cache / wheel.name.split("-")[1]
    if not (target / FOLDER).is_dir():
        with tempfile.TemporaryDirectory(prefix="front-end-", dir=cache) as work, zipfile.ZipFile(wheel) as archive:
            archive.extractall(work, [name for name in archive.namelist() if name.startswith(FOLDER)])
            try:
                (Path(work) / "comfyui_frontend_package").rename(_empty(target) / "comfyui_frontend_package")
            except OSError:
                if not (target / FOLDER).is_dir():  # else another command was faster
                    raise
    return target / FOLDER


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
