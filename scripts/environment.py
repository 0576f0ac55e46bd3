"""The Python environment in which ComfyUI, the demo and the tests run: found, or made once and completed.

A stamp in the environment holds the sha256 of everything that determines its content. It is removed before anything is
changed and written after everything is there, so an interrupted run is simply gone on with by the next one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import processes, requirements
from .errors import DevError
from .host import Host, fetch_host, local_host
from .layout import BARE_VENV, REQUIREMENTS, TOOL_REQUIREMENTS, TOOLS_VENV, VENV

# Newer torch breaks torchaudio's CUDA check at import, and the CPU-only build of torch breaks torchvision's.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
STAMP_NAME = ".q-sched-stamp"
VENV_ADVICE = "On Debian and Ubuntu: apt install python3-venv."


class EnvironmentSetupError(DevError):
    """The environment cannot be found or made."""


@dataclass(frozen=True)
class Workbench:
    """What every command needs: an interpreter that has everything, and a ComfyUI."""

    python: Path
    host: Host


def prepare() -> Workbench:
    """Find or make the environment and the ComfyUI. Instant when both are there."""
    # Where it is set, each of our processes would compile all that it imports again: see _pip_install.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    python = named_interpreter()
    host = local_host() or fetch_host(python or _interpreter_with_pip())
    # A repackaged ComfyUI may come without its own list.
    files = [file for file in (host.requirements, *REQUIREMENTS) if file.is_file()]
    bench = Workbench(python or _stamped(VENV, files) or _running_if_complete(files) or _complete(VENV, files), host)
    print(f"Python: {bench.python}\nHost:   {bench.host}", flush=True)
    return bench


def bare(host: Host) -> Path:
    """The interpreter of an environment that has a user's packages alone: ComfyUI's requirements and ours."""
    files = [file for file in (host.requirements, REQUIREMENTS[0]) if file.is_file()]
    return _stamped(BARE_VENV, files) or _complete(BARE_VENV, files)


def tools() -> Path:
    """The interpreter of an environment with the programs that the registry and its clients run on a pack. It sees the
    packages of the running one too, half of what they need, and gets the rest."""
    packages = sysconfig.get_path("purelib")
    stamp = digest([TOOL_REQUIREMENTS], [packages])
    if not is_stamped(TOOLS_VENV, stamp):
        # In a process of its own: tests that have imported much would get setuptools' warning for the question.
        pip = ["--without-pip"] if _has_pip(Path(sys.executable)) else []
        _check([sys.executable, "-m", "venv", "--clear", *pip, TOOLS_VENV], VENV_ADVICE)
        python = interpreter_of(TOOLS_VENV)
        ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        own = subprocess.run([str(word) for word in ask], capture_output=True, text=True, check=True).stdout.strip()
        Path(own, "running.pth").write_text(packages + "\n", "utf-8")
        _pip_install(python, ["-r", TOOL_REQUIREMENTS], "--quiet")
        write_stamp(TOOLS_VENV, stamp)
    return interpreter_of(TOOLS_VENV)


def named_interpreter(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The interpreter in `QSCHED_PYTHON`, used as it is; None when not set."""
    name = environ.get("QSCHED_PYTHON")
    if not name:
        return None
    program = shutil.which(os.path.expanduser(name))
    if program is None:
        raise EnvironmentSetupError(
            f"QSCHED_PYTHON={name} is not a program that can be run. "
            "Set it to the Python of your ComfyUI, or unset it to have an environment made in .venv."
        )
    return Path(program).absolute()  # not resolved: a venv's python is a link whose place makes it what it is


def digest(files: Sequence[Path], beside: Sequence[str] = TORCH) -> str:
    """sha256 of all that determines what is installed: files of requirements, and what stands ``beside`` them."""
    content = {"beside": list(beside), "files": [file.read_text("utf-8") for file in files]}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def is_stamped(venv: Path, text: str) -> bool:
    """Whether `venv` was completed for the digest `text` and its interpreter is still there."""
    stamp = venv / STAMP_NAME
    return interpreter_of(venv).exists() and stamp.is_file() and stamp.read_text("utf-8").strip() == text


def write_stamp(venv: Path, text: str) -> None:
    """Mark `venv` as complete, in one step."""
    fresh = venv / f"{STAMP_NAME}.new"
    fresh.write_text(text + "\n", "utf-8")
    fresh.replace(venv / STAMP_NAME)


def interpreter_of(venv: Path) -> Path:
    """The path of a virtual environment's Python on this system."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _stamped(venv: Path, files: Sequence[Path]) -> Path | None:
    return interpreter_of(venv) if is_stamped(venv, digest(files)) else None


def _running_if_complete(files: Sequence[Path]) -> Path | None:
    """The running interpreter, if it has everything; any torch will do that its owner's ComfyUI runs on."""
    lines = [line for file in files for line in requirements.lines(file.read_text("utf-8"))]
    complete = not requirements.missing(lines, requirements.installed_version)
    return Path(sys.executable) if complete else None


def _interpreter_with_pip() -> Path:
    return Path(sys.executable) if importlib.util.find_spec("pip") else _make_venv(VENV)


def _complete(venv: Path, files: Sequence[Path]) -> Path:
    """Make `venv` if need be and install into it whatever it lacks."""
    python = _make_venv(venv)
    (venv / STAMP_NAME).unlink(missing_ok=True)
    print("Installing torch (the first time: several GB) …", flush=True)
    _pip_install(python, TORCH, "--progress-bar=on")
    print("Installing the requirements of ComfyUI and Q-Sched …", flush=True)
    # torch is named again, so that no other requirement can move it.
    _pip_install(python, [*TORCH, *(part for file in files for part in ("-r", file))], "--quiet")
    write_stamp(venv, digest(files))
    return python


def _make_venv(venv: Path) -> Path:
    python = interpreter_of(venv)
    if not _has_pip(python):
        print(f"Making {venv} …", flush=True)
        # --clear: what is there has no working Python or pip, so nothing in it can be used.
        _check([sys.executable, "-m", "venv", "--clear", venv], VENV_ADVICE)
    return python


def _has_pip(python: Path) -> bool:
    if not python.exists():
        return False
    command = [str(python), "-c", "import pip"]
    return subprocess.run(command, capture_output=True).returncode == 0


def _pip_install(python: Path, what: Sequence[str | Path], *options: str) -> None:
    # Python compiles what is imported, a small part: to compile all takes as long as the rest of the installation.
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *options]
    _check([*command, *what], "Check the network connection and the free disk space, then run the command again.")


def _check(command: Sequence[str | Path], advice: str) -> None:
    parts = [str(part) for part in command]
    status = processes.run(parts)
    if status != 0:
        raise EnvironmentSetupError(f"This command failed with status {status}:\n  {' '.join(parts)}\n{advice}")
